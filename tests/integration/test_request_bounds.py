"""Bounds for strangers: trailers, chunk framing, unfinished bodies and connections."""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from select import select
from statistics import median
from typing import TYPE_CHECKING

import httpx
import pytest
from msgspec import json

from syncd.core.signature import HEADER, sign
from syncd.http_server.limits import raise_open_files
from syncd.webhook.bodies import MAX_INCOMPLETE_BYTES

if TYPE_CHECKING:
    from conftest import Daemon, Site

KB = 1024
MB = 1024 * KB
PATH = "/webhooks/dreamship"
UNSIGNED = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\n".encode()
FORGED = UNSIGNED + f"{HEADER}: {'0' * 64}\r\n".encode()
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


def dial(where: str, timeout_s: float = 10.0) -> socket.socket:
    """Return a connection to a listener, by its URL or the path of its socket."""
    if where.startswith("/"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout_s)
        connection.connect(where)
        return connection
    to = httpx.URL(where)
    return socket.create_connection((to.host, to.port or 0), timeout=timeout_s)


def listeners(daemon: Daemon) -> dict[str, str]:
    return {
        "webhook": daemon.webhook_url,
        "admin": daemon.admin_url,
        "control": str(daemon.site.socket),
    }


def code_of(output: bytes) -> str:
    return output[9:12].decode()


def deliver_in_pieces(daemon: Daemon, pause_s: float = 0.1) -> str:
    """Send an honest delivery in four pieces; return the code of its answer, or an empty text."""
    body = json.encode(
        {"object": "order", "event": {"action": "x", "uuid": str(uuid.uuid4())}, "x": "y" * 2000}
    )
    signature = f"{HEADER}: {sign(body, (daemon.site.key,))}\r\n".encode()
    head = UNSIGNED + signature + b"Content-Length: %d\r\n\r\n" % len(body)
    try:
        with dial(daemon.webhook_url, 20) as connection:
            connection.sendall(head[:40])
            for part in (head[40:], body[:900], body[900:]):
                time.sleep(pause_s)
                connection.sendall(part)
            return code_of(connection.recv(4096))
    except OSError:
        return ""


class Honest:
    """Sends deliveries in pieces all the time, and records each answer and its duration."""

    def __init__(self, daemon: Daemon, pause_s: float = 0.1) -> None:
        self.codes: list[str] = []
        self._pause_s = pause_s
        self.waits_s: list[float] = []
        self._daemon = daemon
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._deliver) for _ in range(3)]

    def _deliver(self) -> None:
        while not self._is_over.is_set():
            began_s = time.monotonic()
            self.codes.append(deliver_in_pieces(self._daemon, self._pause_s))
            self.waits_s.append(time.monotonic() - began_s - 3 * self._pause_s)

    @contextmanager
    def working(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            for thread in self._threads:
                thread.join()


@pytest.mark.parametrize("listener", ["webhook", "admin", "control"])
@pytest.mark.parametrize(
    ("trailers", "expected"),
    [
        (b"X-Trailer: " + b"y" * 100 + b"\r\n", "431"),
        (b"a:b\r\n", "431"),
        (b"x" * 100, "431"),  # one line without an end
    ],
    ids=["lines", "short lines", "one line"],
)
def test_trailers_are_bounded(
    shared: Daemon, listener: str, trailers: bytes, expected: str
) -> None:
    """40 MB of trailers take no memory; the connection ends after 64 KB and one read."""
    before_mb = shared.memory_mb("VmHWM")
    request = FORGED if listener == "webhook" else UNSIGNED.replace(PATH.encode(), b"/reconcile")
    flood = trailers * (MB // len(trailers))
    sent = 0
    with dial(listeners(shared)[listener]) as connection:
        connection.sendall(request + CHUNKED + b"1\r\nx\r\n0\r\n")
        with suppress(OSError):
            for _ in range(40):
                sent += connection.send(flood)
        output = b""
        with suppress(ConnectionResetError):
            output = connection.recv(4096)
    # A request that was answered already is only ended.
    assert code_of(output) in {expected, "401", "404", ""}
    assert sent < 20 * MB
    assert shared.memory_mb("VmHWM") - before_mb < 20


@pytest.mark.parametrize(
    ("framing", "expected"),
    [
        (b"1;" + b"e" * 1000 + b"\r\nx\r\n", "413"),  # extensions
        (b"1\r\nx\r\n", "413"),  # pieces
        (b"1;" + b"e" * MB, "413"),  # one extension without an end
    ],
    ids=["extensions", "pieces", "one extension"],
)
def test_chunk_framing_is_bounded(shared: Daemon, framing: bytes, expected: str) -> None:
    """1,024 small chunks and 64 KB of framing a body; more is 413."""
    with dial(shared.webhook_url) as connection:
        connection.sendall(FORGED + CHUNKED)
        time.sleep(0.05)
        with suppress(OSError):
            for _ in range(20):
                connection.sendall(framing * max(1, 100 * KB // len(framing)))
                time.sleep(0.02)
        assert code_of(connection.recv(4096)) == expected


def test_bodies_in_one_byte_chunks_delay_no_delivery(shared: Daemon) -> None:
    """300 connections at once, each with such a body."""
    flood = FORGED + CHUNKED + b"1\r\nx\r\n" * 100_000
    honest = Honest(shared)
    with ExitStack() as ending:
        strangers = [ending.enter_context(dial(shared.webhook_url)) for _ in range(300)]
        with honest.working():
            for connection in strangers:
                connection.settimeout(0)
                with suppress(OSError):
                    connection.send(flood)
            shared.site.until(lambda: len(honest.codes) > 15)
    assert set(honest.codes) == {"200"}
    assert median(honest.waits_s) < 3, honest.waits_s


def test_a_delivery_in_pieces_is_never_evicted(shared: Daemon) -> None:
    """Slow strangers hold 64 MB minus 500 bytes: the first stranger is evicted."""
    of_each = 980_000
    rest = (MAX_INCOMPLETE_BYTES - 500) % of_each
    with ExitStack() as ending:
        strangers = []
        for size in [of_each] * (MAX_INCOMPLETE_BYTES // of_each) + [rest]:
            one = ending.enter_context(dial(shared.webhook_url))
            one.sendall(FORGED + b"Content-Length: 1000000\r\n\r\n" + b"x" * size)
            strangers.append(one)
        time.sleep(1)
        assert [deliver_in_pieces(shared) for _ in range(3)] == ["200"] * 3
        given_up, _, _ = select(strangers, [], [], 5)
        assert [code_of(one.recv(4096)) for one in given_up] == ["503"]
        # The first stranger is the oldest, and holds as much memory as each other.
        assert given_up == strangers[:1]


def test_idle_connections_do_not_evict_a_delivery_in_pieces(shared: Daemon) -> None:
    """Thousands, while the delivery pauses: the longest idle connection is closed."""
    honest, is_over, opened = Honest(shared, pause_s=0.3), threading.Event(), [0]
    to = httpx.URL(shared.webhook_url)

    def flood() -> None:
        held: list[socket.socket] = []
        while not is_over.is_set():
            one = socket.create_connection((to.host, to.port or 0))
            opened[0] += 1
            held.append(one)
            if len(held) > 300:
                held.pop(0).close()
        for one in held:
            one.close()

    strangers = [threading.Thread(target=flood) for _ in range(3)]
    with honest.working():
        for thread in strangers:
            thread.start()
        shared.site.until(lambda: len(honest.codes) >= 3 and opened[0] > 1500)
        is_over.set()
        for thread in strangers:
            thread.join()
    assert set(honest.codes) == {"200"}
    assert median(honest.waits_s) < 1, honest.waits_s


def test_all_listeners_share_the_limit_of_open_files(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of idle connections on two listeners, few files: the third answers at once."""
    command: Callable[..., list[str]] = site.command
    raise_open_files()  # this test holds 1,200 itself
    monkeypatch.setattr(
        site, "command", lambda *words: ["prlimit", "--nofile=512:1024", *command(*words)]
    )
    daemon = site.serve()
    with open(f"/proc/{daemon.process.pid}/limits") as file:  # noqa: PTH123 - procfs
        (limits,) = (line.split() for line in file if line.startswith("Max open files"))
    assert limits[3:5] == ["1024", "1024"], "the soft limit is raised to the hard one"
    everywhere = listeners(daemon)
    for third in everywhere:
        with ExitStack() as ending:
            for name, where in everywhere.items():
                if name != third:
                    for _ in range(600):
                        ending.enter_context(dial(where))
            began_s = time.monotonic()
            if third == "webhook":
                assert deliver_in_pieces(daemon) == "200"
            elif third == "admin":
                page = httpx.get(f"{daemon.admin_url}/status.json", trust_env=False)
                assert page.json()["health"] == "ok"
            else:
                assert daemon.status()["health"] == "ok"
            assert time.monotonic() - began_s < 2
    assert not [line for line in daemon.lines() if line["level"] == "error"]
    daemon.stop()
