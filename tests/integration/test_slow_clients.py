"""Clients that are slow, or that use many connections: no other client waits for them."""

from __future__ import annotations

import itertools
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from typing import TYPE_CHECKING, Self

import httpx
import pytest
from raw_requests import answers, dial, head, order

from syncd.core.signature import HEADER

pytestmark = pytest.mark.long

if TYPE_CHECKING:
    from conftest import Daemon, Site

# The daemon's time limit for a body, for a head, and for a client that does not read.
ARRIVAL_S = 10.0


class Honest:
    """Delivers all the time on new connections; every answer must be a quick 200."""

    def __init__(self, daemon: Daemon) -> None:
        self.waits_s: list[float] = []
        self.codes: set[int] = set()
        self._daemon = daemon
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._deliver)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _deliver(self) -> None:
        while not self._is_over.wait(0.05):
            began_s = time.monotonic()
            try:
                self.codes.add(self._daemon.post(order()).status_code)
            except httpx.HTTPError:
                self.codes.add(0)
            self.waits_s.append(time.monotonic() - began_s)


def drip(connections: list[socket.socket], parts: Iterator[bytes], seconds: float) -> None:
    """Send a byte now and then on each of them."""
    deadline_s = time.monotonic() + seconds
    while time.monotonic() < deadline_s:
        part = next(parts)
        for connection in connections:
            with suppress(OSError):
                connection.send(part)
        time.sleep(0.5)


def test_slow_clients_do_not_delay_a_delivery(
    tmp_path_factory: pytest.TempPathFactory,
    open_site: Callable[..., AbstractContextManager[Site]],
) -> None:
    """A thousand idle connections, slow heads, and slow and endless bodies at once."""
    with ExitStack() as ending:
        site = ending.enter_context(open_site(tmp_path_factory.mktemp("slow")))
        daemon = site.serve()
        assert daemon.post(order()).status_code == 200
        before_mb = daemon.memory_mb("VmRSS")
        honest = ending.enter_context(Honest(daemon))
        began_s = time.monotonic()
        # This test needs more than the usual 1,024 files; the daemon keeps its own limit.
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        ending.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
        idle = [ending.enter_context(dial(daemon)) for _ in range(1000)]
        # The oldest connection is closed for a new one, long before its time limit.
        assert [connection.recv(100) for connection in idle[:400]] == [b""] * 400
        assert time.monotonic() - began_s < ARRIVAL_S - 2
        heads = [ending.enter_context(dial(daemon)) for _ in range(50)]
        bodies = [ending.enter_context(dial(daemon)) for _ in range(50)]
        endless = [ending.enter_context(dial(daemon)) for _ in range(10)]
        for connection in heads:
            connection.sendall(head(daemon)[:-2])
        for connection in bodies:
            connection.sendall(head(daemon, f"{HEADER}: {'0' * 64}", "Content-Length: 1000") + b"{")
        for connection in endless:
            connection.sendall(head(daemon, f"{HEADER}: {'0' * 64}", "Transfer-Encoding: chunked"))
        flood = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        for connection in endless:
            with suppress(OSError):
                for _ in range(40):
                    connection.sendall(flood)
        assert [answers(connection) for connection in endless] == [[b"413"]] * 10
        drip(heads + bodies, itertools.cycle([b"x"]), ARRIVAL_S - (time.monotonic() - began_s))
        assert [answers(connection) for connection in bodies] == [[b"408"]] * 50
        assert time.monotonic() - began_s > ARRIVAL_S - 0.1
        assert [answers(connection) for connection in heads] == [[b"408"]] * 50
        for connection in idle:
            with suppress(ConnectionResetError):
                assert connection.recv(100) == b""
        assert time.monotonic() - began_s < ARRIVAL_S + 3
        honest.__exit__()
        assert honest.codes == {200}
        assert len(honest.waits_s) > 30
        assert max(honest.waits_s) < 5
        assert daemon.memory_mb("VmHWM") - before_mb < 60
        # None of these connections is left.
        site.until(lambda: len(os.listdir(f"/proc/{daemon.process.pid}/fd")) < 50)  # noqa: PTH208
        daemon.stop()


def test_unfinished_bodies_take_bounded_memory(shared: Daemon) -> None:
    """100 MB in pieces from strangers: some get 503, and an honest delivery gets room."""
    lines = (f"{HEADER}: {'0' * 64}", "Content-Length: 1000000")
    with ExitStack() as ending:
        slow = [ending.enter_context(dial(shared)) for _ in range(150)]
        for connection in slow:
            connection.sendall(head(shared, *lines))
            connection.sendall(b"x" * 900_000)
        assert shared.post(order()).status_code == 200
        # The memory of the whole process: the value before the test depends on the last release.
        assert shared.memory_mb("VmRSS") < 200
        refused = 0
        for connection in slow:
            connection.settimeout(0.01)
            with suppress(TimeoutError):
                assert answers(connection) == [b"503"]
                refused += 1
        assert refused > 50
    assert shared.post(b" " * 900_000 + order()).status_code == 200
