"""Unusual requests: heads, signatures, lengths, chunks and pipelining, each with its answer.

test_http_requests has the forms that HTTP allows, and test_request_bounds the bounds of chunks and
trailers.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest
from raw_requests import MB, answers, dial, exchange, head, order, refused, request

from syncd.core.signature import HEADER, sign

pytestmark = pytest.mark.long

if TYPE_CHECKING:
    from conftest import Daemon


@pytest.mark.usefixtures("harmless")
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
    before = refused(shared)["400"]
    with dial(shared) as connection:
        connection.sendall(sent)
        assert answers(connection) == [b"400"]
        assert connection.recv(100) == b""
    assert refused(shared)["400"] == before + 1


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


@pytest.mark.usefixtures("harmless")
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


@pytest.mark.usefixtures("harmless")
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


@pytest.mark.usefixtures("harmless")
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
