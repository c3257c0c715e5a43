"""Hostile requests to the public listener: each gets its answer, and disturbs no other client."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import os
import re
import resource
import socket
import threading
import time
import uuid
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

import httpx
import pytest
import uvloop
from msgspec import json
from starlette.types import Receive, Scope, Send

from syncd.core.signature import HEADER, sign
from syncd.core.timestamps import to_text
from syncd.http_server.refusals import Refusals
from syncd.http_server.server import HttpServer
from syncd.http_server.sockets import bind_tcp

pytestmark = pytest.mark.long

if TYPE_CHECKING:
    from conftest import Daemon, Site

MB = 1024 * 1024
# More than the limit for a client that does not read.
WORDS = 256 * 1024
# The daemon's time limit for a body, for a head, and for a client that does not read.
ARRIVAL_S = 10.0


def dial(daemon: Daemon, timeout_s: float = 20.0) -> socket.socket:
    url = httpx.URL(daemon.webhook_url)
    return socket.create_connection((url.host, url.port or 0), timeout=timeout_s)


def head(daemon: Daemon, *lines: str, version: str = "1.1") -> bytes:
    path = httpx.URL(daemon.webhook_url).path
    return "\r\n".join([f"POST {path} HTTP/{version}", "Host: shop", *lines, "", ""]).encode()


def request(daemon: Daemon, body: bytes, *lines: str, version: str = "1.1") -> bytes:
    """Return a whole signed delivery."""
    signature = f"{HEADER}: {sign(body, (daemon.site.key,))}"
    length = f"Content-Length: {len(body)}"
    return head(daemon, signature, length, *lines, version=version) + body


def order() -> bytes:
    """Return a body that is authentic, new, and answered `ignored`."""
    return json.encode({"object": "order", "event": {"action": "x", "uuid": str(uuid.uuid4())}})


_HEAD = re.compile(rb"HTTP/1.1 (\d{3}) .*?content-length: (\d+).*?\r\n\r\n", re.DOTALL)


def answers(connection: socket.socket, count: int = 1) -> list[bytes]:
    """Read so many whole answers; return their codes, fewer if the other side is done before."""
    codes: list[bytes] = []
    output = b""
    with suppress(ConnectionResetError):
        while len(codes) < count:
            whole = _HEAD.match(output)
            if whole is not None and len(output) >= (end := whole.end() + int(whole[2])):
                codes.append(whole[1])
                output = output[end:]
            elif received := connection.recv(MB):
                output += received
            else:
                break
    return codes


def exchange(daemon: Daemon, *parts: bytes, count: int = 1) -> list[bytes]:
    """Send these bytes as far as they are taken; return the codes of the answers."""
    with dial(daemon) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):
            for part in parts:
                connection.sendall(part)
        return answers(connection, count)


def refused(daemon: Daemon, code: str) -> float:
    """Return how many requests the webhook's listener refused with a code."""
    output = httpx.get(f"{daemon.admin_url}/metrics", trust_env=False).text
    found = re.search(
        rf'^syncd_http_refused_total{{code="{code}",listener="webhook"}} (\S+)$',
        output,
        re.MULTILINE,
    )
    assert found
    return float(found[1])


def memory_mb(daemon: Daemon, what: str) -> float:
    """Return VmRSS, or VmHWM: the most it ever was."""
    with open(f"/proc/{daemon.process.pid}/status") as file:  # noqa: PTH123 - procfs
        return next(int(line.split()[1]) for line in file if line.startswith(what)) / 1024


@pytest.fixture
def flat(shared: Daemon) -> Iterator[None]:
    """Check that a test costs the daemon no memory, and that the daemon still takes deliveries."""
    before_mb = memory_mb(shared, "VmHWM")
    yield
    assert shared.post(order()).json() == {"outcome": "ignored"}
    assert memory_mb(shared, "VmHWM") - before_mb < 30
    assert not [line for line in shared.lines() if line["level"] == "error"]


# Bodies that are not JSON, or almost JSON.


def delivery(variant_id: int, availability: bytes, **more: bytes) -> bytes:
    """Return a documented body in which some bytes are replaced by others."""
    uuid_text = more.get("uuid", json.encode(str(uuid.uuid4())))
    return (
        b'{"id":%d,"object":"item_variant","event":{"uuid":%s,"action":'
        b'"item-variant-availability-updated","timestamp":"%s"},'
        b'"data":{"id":%s,"item":%s,"availability":%s}}'
    ) % (
        variant_id,
        uuid_text,
        to_text(datetime.now(UTC)).encode(),
        more.get("data_id", b"%d" % variant_id),
        # A separate item: a later read of it must not affect the variants of other tests.
        more.get("item", b"%d" % variant_id),
        availability,
    )


ODD: dict[str, bytes] = {
    "nothing": b"",
    "deeply nested": b'{"event":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "nested in data": delivery(1, b"[" * 100_000 + b"]" * 100_000),
    "an enormous integer": delivery(1, b"1", data_id=b"9" * 4000),
    "a more enormous integer": delivery(1, b"1", data_id=b"9" * 500_000),
    "NUL": b"\x00" * 1000,
    "two documents": delivery(1, b'"in_stock"') * 2,
    "gzip that does not end": gzip.compress(delivery(1, b'"in_stock"'))[:-40],
    "a bomb": gzip.compress(b" " * 50 * MB),
    "nothing but keys": b'"id":' * 200_000,
    "nothing but quotes": b'"\\' * 500_000,
    "nothing but braces": b'"id":{' * 150_000,
}

FORGIVEN: dict[str, tuple[bytes, str]] = {
    "gzip": (gzip.compress(delivery(2, b'"gzip"')), "gzip"),
    "an enormous exponent": (delivery(3, b"1e99999"), "1e99999"),
    "NaN": (delivery(4, b"NaN"), "NaN"),
    "Infinity": (delivery(5, b"-Infinity"), "-Infinity"),
    "a lone surrogate": (delivery(6, b'"\\ud800"'), "\ufffd"),
    "a lone low surrogate": (delivery(7, b'"\\udc00 x"'), "\ufffd x"),
    "a surrogate in UTF-8": (delivery(8, b'"\xed\xa0\x80"'), "\ufffd" * 3),
    "a raw NUL": (delivery(9, b'"\x00"'), "\0"),
    "invalid UTF-8": (delivery(10, b'"\xff\xfe"'), "\ufffd" * 2),
    "overlong UTF-8": (delivery(11, b'"\xc0\xaf"'), "\ufffd" * 2),
    "UTF-16": (delivery(12, b'"UTF-16"').decode().encode("utf-16"), "UTF-16"),
    "a byte order mark": (b"\xef\xbb\xbf" + delivery(13, b'"BOM"'), "BOM"),
}


@pytest.mark.usefixtures("flat")
@pytest.mark.parametrize("body", ODD.values(), ids=ODD)
def test_a_body_that_is_not_json_is_quarantined_whole(shared: Daemon, body: bytes) -> None:
    """Authentic, so 200; not understood, so every byte is kept."""
    answer = shared.post(body)
    assert (answer.status_code, answer.json()) == (200, {"outcome": "quarantined"})
    stored = shared.site.rows("SELECT body FROM deliveries ORDER BY delivery_id DESC LIMIT 1")
    assert stored == [{"body": body}]
    assert shared.post(body).json() == {"outcome": "duplicate"}


@pytest.mark.parametrize(("body", "stored"), FORGIVEN.values(), ids=FORGIVEN)
def test_a_body_that_is_almost_json_is_understood(shared: Daemon, body: bytes, stored: str) -> None:
    """Ids and availability count; text that a database cannot store becomes U+FFFD."""
    variant_id = list(FORGIVEN.values()).index((body, stored)) + 2
    assert shared.post(body).json() == {"outcome": "applied"}
    row = shared.site.variant(variant_id)
    assert (row["availability"], row["sellable"]) == (stored, 0)


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (b'"out of stock","availability":"out of stock"', "out of stock"),
        (b'"\\u0000 in \\u0000 stock"', "\0 in \0 stock"),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'"%s"' % (b"x" * 100_000), "x" * 100_000),
        (b"9" * 4000, "9" * 4000),
        (b"[" * 500 + b"]" * 500, "[" * 500 + "]" * 500),
        (b"[1.5,null,true]", "[1.5,null,true]"),
    ],
    ids=["twice", "NUL", "emoji", "long", "number", "nested", "list"],
)
def test_unusual_availability_values_are_kept_as_received(
    shared: Daemon, value: bytes, stored: str
) -> None:
    """From the body into the view; an unlisted value is not sellable."""
    variant_id = 900_000_000 + zlib.crc32(value)
    assert shared.post(delivery(variant_id, value)).json()["outcome"] == "applied"
    row = shared.site.variant(variant_id)
    assert (row["availability"], row["sellable"]) == (stored, 0)


# Requests that are almost HTTP.


@pytest.mark.usefixtures("flat")
def test_an_endless_head_gets_431(shared: Daemon) -> None:
    """After a few KB, for one endless header or endlessly many."""
    endless = b"X-Long: " + b"x" * (10 * MB)
    assert exchange(shared, head(shared)[:-2], endless) == [b"431"]
    many = b"".join(b"X-%d: y\r\n" % number for number in range(500_000))
    assert exchange(shared, head(shared)[:-2], many) == [b"431"]
    segments = f"{HEADER}: {','.join(['0' * 64] * 100_000)}".encode()
    assert exchange(shared, head(shared)[:-2], segments, b"\r\n\r\n{}") == [b"431"]
    assert exchange(shared, b"GET /" + b"x" * (10 * MB)) == [b"431"]


def test_a_signature_with_many_segments_gets_401(shared: Daemon) -> None:
    """As many as fit into a head; only a few are compared."""
    body = order()
    header = ",".join(["0" * 64] * 700 + [sign(body, (shared.site.key,))])
    assert len(header) < 48 * 1024
    lines = (f"{HEADER}: {header}", f"Content-Length: {len(body)}")
    assert exchange(shared, head(shared, *lines) + body) == [b"401"]
    first = ",".join([sign(body, (shared.site.key,)), *["0" * 64] * 5])
    lines = (f"{HEADER}: {first}", f"Content-Length: {len(body)}")
    assert exchange(shared, head(shared, *lines) + body) == [b"200"]


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500,  # TLS
        b"\x00" * 1000,
        b"POST / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT shop:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 100 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nNo colon\r\n\r\n",
    ],
)
def test_a_request_that_is_not_http_gets_400(shared: Daemon, sent: bytes) -> None:
    """The connection ends, and the refusal is counted."""
    before = refused(shared, "400")
    with dial(shared) as connection:
        connection.sendall(sent)
        assert answers(connection) == [b"400"]
        assert connection.recv(100) == b""
    assert refused(shared, "400") == before + 1


def test_http_1_0_is_accepted(shared: Daemon) -> None:
    """The connection ends with the answer."""
    with dial(shared) as connection:
        connection.sendall(request(shared, order(), version="1.0"))
        assert answers(connection) == [b"200"]
        assert connection.recv(100) == b""


def test_pipelined_requests_are_answered_in_order(shared: Daemon) -> None:
    """Each one."""
    bodies = [order() for _ in range(20)]
    sent = b"".join(request(shared, body) for body in bodies)
    assert exchange(shared, sent, count=20) == [b"200"] * 20


@pytest.mark.usefixtures("flat")
def test_few_pipelined_requests_are_held(shared: Daemon) -> None:
    """However many are sent before the first answer is read."""
    url = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"
    with ExitStack() as ending:
        for _ in range(20):
            connection = ending.enter_context(dial(shared, 0.5))
            with suppress(OSError):
                for _ in range(20):
                    connection.sendall(url * 20_000)


def test_chunked_bodies_are_accepted(shared: Daemon) -> None:
    """One-byte chunks make a body; a chunk with a wrong length gets 400."""
    body = order()
    chunked = head(
        shared, f"{HEADER}: {sign(body, (shared.site.key,))}", "Transfer-Encoding: chunked"
    )
    ones = b"".join(b"1;x=y\r\n%c\r\n" % byte for byte in body)
    assert exchange(shared, chunked + ones + b"0\r\nX-Trailer: z\r\n\r\n") == [b"200"]
    assert exchange(shared, chunked + b"zz\r\n" + body) == [b"400"]
    assert exchange(shared, chunked + b"3\r\n" + body) == [b"400"]
    assert exchange(shared, chunked + b"f" * 17 + b"\r\n" + body) == [b"400"]


@pytest.mark.usefixtures("flat")
def test_a_content_length_with_many_zeros_is_accepted(shared: Daemon) -> None:
    """Python refuses numbers of more than 4,300 digits; this number is small."""
    body = order()
    signature = f"{HEADER}: {sign(body, (shared.site.key,))}"
    length = f"Content-Length: {'0' * 5000}{len(body)}"
    assert exchange(shared, head(shared, signature, length) + body) == [b"200"]


def test_bytes_after_content_length_end_the_connection(shared: Daemon) -> None:
    """The claimed part is judged; the rest is no request."""
    with dial(shared) as connection:
        connection.sendall(request(shared, order()))
        assert answers(connection) == [b"200"]
        connection.sendall(b"and more\r\n\r\n")
        assert answers(connection) == [b"400"]
    # Some old clients send a line break after the body; it is no request.
    assert exchange(shared, request(shared, order()) + b"\r\n", b"\r\n") == [b"200"]


@pytest.mark.usefixtures("flat")
@pytest.mark.parametrize("signed", [True, False])
def test_413_and_401_reach_a_client_that_sends_the_whole_body_first(
    shared: Daemon, signed: bool
) -> None:
    """No reset in the middle, and the connection stays usable."""
    body = b" " * (20 * MB)
    lines = [f"{HEADER}: {'0' * 64}"] if signed else []
    with dial(shared) as connection:
        connection.sendall(head(shared, *lines, f"Content-Length: {len(body)}"))
        connection.sendall(body)
        assert answers(connection) == [b"413" if signed else b"401"]
        connection.sendall(request(shared, order()))
        assert answers(connection) == [b"200"]


# Clients that are slow, or that use many connections.


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
        before_mb = memory_mb(daemon, "VmRSS")
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
        assert memory_mb(daemon, "VmHWM") - before_mb < 60
        # None of these connections is left.
        site.until(lambda: len(os.listdir(f"/proc/{daemon.process.pid}/fd")) < 50)  # noqa: PTH208
        daemon.stop()


@pytest.mark.usefixtures("flat")
@pytest.mark.parametrize("path", ["/reconcile", "/replay"])
def test_a_huge_body_at_the_control_socket_is_refused(shared: Daemon, path: str) -> None:
    """Members of its group are known, and may still be hostile."""

    def endless() -> Iterator[bytes]:
        yield b'{"ids": ['
        for _ in range(200):
            yield b"1," * (MB // 2)

    with httpx.Client(transport=httpx.HTTPTransport(uds=str(shared.site.socket))) as client:
        answer = client.post(f"http://syncd{path}", content=endless())
    assert answer.status_code == 400
    assert "too many ids in" in answer.text


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
        assert memory_mb(shared, "VmRSS") < 200
        refused = 0
        for connection in slow:
            connection.settimeout(0.01)
            with suppress(TimeoutError):
                assert answers(connection) == [b"503"]
                refused += 1
        assert refused > 50
    assert shared.post(b" " * 900_000 + order()).status_code == 200


@pytest.mark.parametrize("is_answered", [False, True])
def test_a_408_is_sent_after_the_answer_of_the_earlier_request(*, is_answered: bool) -> None:
    """Two pipelined requests, of which the second never completes.

    The first is still in progress, or already answered.
    """

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        if not is_answered:
            while (await receive()).get("more_body"):
                pass
            await asyncio.sleep(0.7)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def scenario() -> tuple[list[bytes], int]:
        refusals = Refusals("test")
        bound = bind_tcp("127.0.0.1", 0, key="webhook.listen")
        server = HttpServer(slow, bound, arrival_s=0.3, refusals=refusals)
        await server.start()
        reader, writer = await asyncio.open_connection(*bound.getsockname())
        whole = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"
        writer.write(whole + whole.replace(b": 1", b": 2"))
        output = await reader.read()
        writer.close()
        await writer.wait_closed()
        await server.drain()
        await server.stop()
        return re.findall(rb"HTTP/1.1 (\d+)", output), refusals.counted["408"]

    expected = ([b"204", b"204"], 0) if is_answered else ([b"204", b"408"], 1)
    assert asyncio.run(scenario()) == expected


GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
HALF_A_POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nha"


async def wordy(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a GET with a large body, and a POST when its body is complete."""
    if scope["method"] == "POST":
        while (message := await receive()).get("more_body"):
            pass
        if message["type"] == "http.disconnect":
            return
    length = [(b"content-length", b"%d" % WORDS)]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    await send({"type": "http.response.body", "body": b"x" * WORDS})


@asynccontextmanager
async def serving_words(
    refusals: Refusals | None = None, **bounds: float
) -> AsyncIterator[HttpServer]:
    """Serve `wordy`; the kernel takes hardly any of an answer that nobody reads."""
    bound = bind_tcp("127.0.0.1", 0, key="webhook.listen")
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    server = HttpServer(wordy, bound, refusals=refusals, **bounds)  # type: ignore[arg-type]  # of their kinds
    await server.start()
    try:
        yield server
    finally:
        await server.drain()
        await server.stop()


def greeted(server: HttpServer, greeting: bytes) -> socket.socket:
    """Return a connection that has sent something."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(server._bound.getsockname())
    connection.sendall(greeting)
    connection.settimeout(0)
    return connection


@pytest.mark.parametrize("more", [b"", GET, GET * 2])
def test_a_client_that_never_reads_is_disconnected(
    more: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Its answer waits in memory for a limited time, for every kind of request."""

    async def scenario() -> int:
        async with serving_words(arrival_s=0.3) as server:
            with greeted(server, GET) as connection:
                await asyncio.sleep(0.1)
                connection.send(more)
                held = server._server.server_state.connections
                assert len(held) == 1
                await asyncio.sleep(0.7)
                return len(held)

    assert uvloop.run(scenario()) == 0
    assert [record for record in caplog.records if record.levelname != "INFO"] == []


def test_reading_an_earlier_answer_does_not_extend_the_body_timeout() -> None:
    """The client still owes half a request."""
    refusals = Refusals("test")

    async def scenario() -> bytes:
        loop, output = asyncio.get_running_loop(), b""
        async with serving_words(refusals, arrival_s=1) as server:
            with greeted(server, GET + HALF_A_POST) as connection:
                await asyncio.sleep(0.1)
                async with asyncio.timeout(3):
                    while some := await loop.sock_recv(connection, WORDS):
                        output += some
        return output

    output = uvloop.run(scenario())
    assert re.findall(rb"HTTP/1.1 (\d+)", output) == [b"200", b"408"]
    assert refusals.counted == {"408": 1}


def test_a_431_is_sent_after_the_answer_of_the_earlier_request() -> None:
    """431 only for a client that waits for no other answer."""

    async def scenario(greeting: bytes) -> list[bytes]:
        loop, output = asyncio.get_running_loop(), b""
        async with serving_words() as server:
            with greeted(server, greeting) as connection:
                await asyncio.sleep(0.1)
                for _ in range(3):
                    with suppress(ConnectionError):
                        await loop.sock_sendall(connection, b"x" * 30_000)
                async with asyncio.timeout(3):
                    with suppress(ConnectionError):
                        while some := await loop.sock_recv(connection, WORDS):
                            output += some
        return re.findall(rb"HTTP/1.1 (\d+)", output)

    head = b"GET / HTTP/1.1\r\nX: "
    assert uvloop.run(scenario(head)) == [b"431"]
    assert uvloop.run(scenario(GET * 2 + head)) == [b"200", b"200", b"431"]


def test_an_evicted_connection_gets_no_408() -> None:
    """It is closed in favour of a new one, without an answer."""
    refusals = Refusals("test")

    async def scenario() -> bytes:
        loop = asyncio.get_running_loop()
        async with serving_words(refusals, max_connections=2) as server:
            with greeted(server, b"") as first, greeted(server, GET[:9]), greeted(server, b""):
                async with asyncio.timeout(3):
                    return await loop.sock_recv(first, 100)

    assert uvloop.run(scenario()) == b""
    assert not refusals.counted
