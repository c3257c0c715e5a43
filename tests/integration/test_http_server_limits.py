"""The HTTP server without a daemon: time limits, the order of answers, and evicted connections."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import uvloop
from starlette.types import Receive, Scope, Send

from syncd.http_server.refusals import Refusals
from syncd.http_server.server import HttpServer
from syncd.http_server.sockets import bind_tcp

pytestmark = pytest.mark.long

# More than the limit for a client that does not read.
WORDS = 256 * 1024
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
