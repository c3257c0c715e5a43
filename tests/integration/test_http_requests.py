"""Raw requests: every form that HTTP allows is answered as documented; all else is counted."""

from __future__ import annotations

import re
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from raw_requests import order, refused

from syncd.core.signature import HEADER, sign

if TYPE_CHECKING:
    from conftest import Daemon, Site

PATH = "/webhooks/dreamship"
KEY = "ds_test_0123456789abcdef"
WRONG = "0" * 64
ANSWER = re.compile(rb"HTTP/1\.1 (\d{3}) ")
H2C = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAABAAM")


def head(*lines: str, method: str = "POST", target: str = PATH, version: str = "1.1") -> bytes:
    first = f"{method} {target} HTTP/{version}"
    return "\r\n".join([first, *lines, "", ""]).encode("latin-1")


def signed(
    *lines: str, target: str = PATH, version: str = "1.1", host: str = "Host: shop"
) -> bytes:
    """Return a whole signed delivery with a Content-Length."""
    body = order()
    mine = [host] if host else []
    mine += [f"{HEADER}: {sign(body, (KEY,))}", f"Content-Length: {len(body)}"]
    return head(*mine, *lines, target=target, version=version) + body


def with_signature(*values: str) -> bytes:
    """Return a delivery with these signature headers, `{}` in them being the right signature."""
    body = order()
    right = sign(body, (KEY,))
    lines = [f"{HEADER}:{value.replace('{}', right)}" for value in values]
    return head("Host: shop", *lines, f"Content-Length: {len(body)}") + body


def chunked(
    *lines: str, size: str = "{}", trailer: str = "", coding: str = "chunked", where: str = "head"
) -> bytes:
    """Return a delivery in one chunk; its signature is in the `head`, the `trailer` or nowhere."""
    body = order()
    signature = f"{HEADER}: {sign(body, (KEY,))}"
    mine = [signature] if where == "head" else []
    last = f"{signature}\r\n" if where == "trailer" else trailer
    opening = size.format(f"{len(body):x}").encode()
    return (
        head("Host: shop", f"Transfer-Encoding: {coding}", *mine, *lines)
        + opening
        + b"\r\n%b\r\n0\r\n%b\r\n" % (body, last.encode())
    )


def exchange(url: str, *parts: bytes, half_close: bool = False) -> list[str]:
    """Send these bytes; return the codes of all answers."""
    to = httpx.URL(url)
    output = b""
    with socket.create_connection((to.host, to.port or 0), timeout=5) as connection:
        for part in parts:
            connection.sendall(part)
            connection.settimeout(0.15 if len(parts) > 1 else 5)
            try:
                output += connection.recv(65536)
            except TimeoutError:
                continue
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        connection.settimeout(0.3)
        try:
            while received := connection.recv(65536):
                output += received
        except (TimeoutError, ConnectionResetError):
            pass
    return [code.decode() for code in ANSWER.findall(output)]


# Every header and framing that HTTP allows around an authentic delivery.
H2C_DELIVERY = signed(*H2C)
ALLOWED: dict[str, tuple[bytes, ...]] = {
    "h2c": (signed(*H2C),),
    "h2c, the body later": (H2C_DELIVERY[:-60], H2C_DELIVERY[-60:]),
    "h2c, chunked": (chunked(*H2C),),
    "h2c, expecting": (signed(*H2C, "Expect: 100-continue"),),
    "h2c, HTTP/1.0": (signed(*H2C, version="1.0"),),
    "h2c, upper case": (signed("CONNECTION: UPGRADE", "UPGRADE: H2C"),),
    "several protocols": (signed("Connection: Upgrade", "Upgrade: h2c, foo/2", "Upgrade: x"),),
    "websocket": (signed("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x"),),
    "TLS upgrade": (signed("Connection: Upgrade", "Upgrade: TLS/1.2"),),
    "a query": (signed(target=f"{PATH}?x=1&y=/z"),),
    "an empty query": (signed(target=f"{PATH}?"),),
    "absolute form": (signed(target=f"http://shop{PATH}"),),
    "absolute form of another host": (signed(target=f"https://[::1]:8443{PATH}?x"),),
    "escaped without need": (signed(target="/%77ebhooks/dream%73hip"),),
    "HTTP/1.0": (signed(version="1.0"),),
    "HTTP/1.0 without Host": (signed(version="1.0", host=""),),
    "HTTP/1.0 that stays": (signed("Connection: keep-alive", version="1.0"),),
    "HTTP/1.0 that expects": (signed("Expect: 100-continue", version="1.0"),),
    "the end of the connection": (signed("Connection: close"),),
    "options of the connection": (signed("Connection: keep-alive, TE", "TE: trailers"),),
    "another expectation": (signed("Expect: a-miracle"),),
    "chunked": (chunked(),),
    "chunk extensions": (chunked(size='{};a=b;c="d e"'),),
    "space after a chunk size": (chunked(size="{}  "),),
    "a trailer": (chunked(trailer="X-Checksum: 1\r\n"),),
    "Chunked": (chunked(coding="Chunked"),),
    "a coded body, signed as sent": (chunked(coding="gzip, chunked"),),
    "a content coding": (signed("Content-Encoding: gzip"),),
    "lower case": (with_signature(" {}").replace(HEADER.encode(), HEADER.lower().encode()),),
    "upper case": (with_signature(" {}").replace(HEADER.encode(), HEADER.upper().encode()),),
    "space around the signature": (with_signature("\t {} \t"),),
    "no space": (with_signature("{}"),),
    "an empty Host": (signed(host="Host:"),),
    "empty values": (signed("X-A:", "X-B: \t"),),
    "an empty value before it": (with_signature("", " {}"),),
    "an empty value after it": (with_signature(" {}", ""),),
    "two headers, the right one first": (with_signature(" {}", f" {WRONG}"),),
    "two headers, the right one last": (with_signature(f" {WRONG}", " {}"),),
    "empty segments": (with_signature(" ,, ,\t,{} , ,"),),
    "many empty segments": (with_signature("," * 500 + "{}"),),
    "bytes beyond ASCII": (signed("X-Name: J\xf6rg \xff"),),
    "many headers": (signed(*(f"X-{number}: y" for number in range(3000))),),
    "a long query": (signed(target=f"{PATH}?{'x' * 60_000}"),),
    "conditions": (signed("If-None-Match: *", "Range: bytes=0-1", "X-HTTP-Method-Override: GET"),),
    "empty lines before it": (b"\r\n\r\n" + signed(),),
    "forged forwarding": (signed("X-Forwarded-For: <a>, ,", "X-Forwarded-Proto: gopher"),),
}


@pytest.mark.parametrize("sent", ALLOWED.values(), ids=ALLOWED)
def test_an_authentic_delivery_is_accepted_in_any_http_form(
    shared: Daemon, sent: tuple[bytes, ...]
) -> None:
    """Exactly one answer, 200 (after a 100 on request), and the body is kept."""
    before = refused(shared)
    answered = exchange(shared.webhook_url, *sent)
    expects = b"\r\nExpect: 100-continue" in sent[0] and b" HTTP/1.0\r\n" not in sent[0]
    assert answered == (["100", "200"] if expects else ["200"])
    assert refused(shared) == before


GET = "GET"
REFUSED: dict[str, tuple[bytes, list[str]]] = {
    "a slash at the end": (signed(target=f"{PATH}/"), ["404"]),
    "a slash after healthz": (head("Host: x", method=GET, target="/healthz/"), ["404"]),
    "an escaped slash": (signed(target="/webhooks%2Fdreamship"), ["404"]),
    "two slashes first": (signed(target="//webhooks/dreamship"), ["404"]),
    "two slashes between": (signed(target="/webhooks//dreamship"), ["404"]),
    "a dot": (signed(target="/webhooks/./dreamship"), ["404"]),
    "upper case path": (signed(target="/Webhooks/dreamship"), ["404"]),
    "a broken escape": (signed(target=f"{PATH}%zz"), ["404"]),
    "a long path": (signed(target=f"/{'a' * 70_000}"), ["431"]),
    "a path that is not ASCII": (signed(target="/\xe4"), ["400"]),
    "no path": (signed(target="http://shop"), ["404"]),
    "a query alone": (signed(target="http://shop?x"), ["404"]),
    "the server itself": (head("Host: x", method="OPTIONS", target="*"), ["404"]),
    "OPTIONS": (head("Host: x", method="OPTIONS"), ["405"]),
    "TRACE": (head("Host: x", method="TRACE"), ["405"]),
    "HEAD": (head("Host: x", method="HEAD"), ["405"]),
    "GET with h2c": (head("Host: x", *H2C, method=GET), ["405"]),
    "PUT": (signed().replace(b"POST", b"PUT", 1), ["405"]),
    "POST to healthz": (signed(target="/healthz"), ["405"]),
    "CONNECT": (head("Host: x", method="CONNECT", target="shop:443"), ["400"]),
    "CONNECT to the path": (head("Host: x", method="CONNECT"), ["400"]),
    "lower case method": (signed().replace(b"POST", b"post", 1), ["400"]),
    "unknown method": (signed().replace(b"POST", b"FOO", 1), ["400"]),
    "a signature as trailer": (chunked(where="trailer"), ["401"]),
    "an unknown coding": (chunked(f"{HEADER}: {WRONG}", coding="gzip, chunked", where=""), ["501"]),
    "coded last": (chunked(coding="chunked, gzip"), ["400"]),
    "two lengths": (signed("Content-Length: 1"), ["400"]),
    "a length and chunks": (chunked("Content-Length: 5"), ["400"]),
    "a folded line": (signed("X-A: b\r\n c"), ["400"]),
    "space before the colon": (signed("X-A : b"), ["400"]),
    "a control character": (signed("X-A: a\x01b"), ["400"]),
    "line feeds alone": (signed().replace(b"\r\n", b"\n"), ["400"]),
    "another version": (signed(version="1.2"), ["400"]),
}


@pytest.mark.parametrize(("sent", "expected"), REFUSED.values(), ids=REFUSED)
def test_a_refusal_is_counted_under_its_code(
    shared: Daemon, sent: bytes, expected: list[str]
) -> None:
    """One answer, and one more in the metric of its code, below our own code too."""
    before = refused(shared)
    assert exchange(shared.webhook_url, sent) == expected
    (code,) = expected
    assert refused(shared) == before | {code: before[code] + 1}


@pytest.mark.parametrize(
    "sent",
    [head("Host: x", *H2C, method=GET, target="/healthz"), head(target="/healthz", method=GET)],
    ids=["h2c", "no Host"],
)
def test_a_health_check_is_answered_in_any_http_form(shared: Daemon, sent: bytes) -> None:
    """One with an offer of HTTP/2, and one without Host, as some load balancers send."""
    assert exchange(shared.webhook_url, sent) == ["200"]


def test_requests_after_an_ignored_upgrade_are_answered(shared: Daemon) -> None:
    """In the same read and later, in order."""
    several = signed(*H2C) + signed() + chunked(*H2C) + signed(*H2C)
    assert exchange(shared.webhook_url, several, signed(), signed(*H2C)) == ["200"] * 6


def test_a_delivery_before_garbage_is_answered_first(shared: Daemon) -> None:
    """The garbage gets its own answer after it."""
    before = refused(shared)["400"]
    assert exchange(shared.webhook_url, signed() + signed() + b"garbage\r\n\r\n") == [
        *["200"] * 2,
        "400",
    ]
    broken = chunked(size="zz")
    assert exchange(shared.webhook_url, signed() + broken) == ["200", "400"]
    assert refused(shared)["400"] == before + 2


def test_a_long_target_after_a_delivery_is_refused(shared: Daemon) -> None:
    """On the same connection, when the first answer has arrived, and before."""
    before = refused(shared)["431"]
    long = signed(target=f"/{'a' * 70_000}")
    assert exchange(shared.webhook_url, signed(), long) == ["200", "431"]
    assert exchange(shared.webhook_url, signed() + long) == ["200", "431"]
    assert refused(shared)["431"] == before + 2


def test_pipelined_deliveries_past_the_limit_get_503(shared: Daemon) -> None:
    """The first one past the limit gets 503, never 400."""
    answered = exchange(shared.webhook_url, b"".join(signed() for _ in range(150)))
    assert answered[:65] == ["200"] * 65
    assert set(answered[65:]) <= {"200", "503"}


def test_a_half_closed_connection_gets_its_answer(shared: Daemon) -> None:
    """The whole request arrived before the end."""
    body = order()
    assert exchange(shared.webhook_url, signed(), half_close=True) == ["200"]
    half = head(f"{HEADER}: {sign(body, (KEY,))}", f"Content-Length: {len(body)}")
    to = httpx.URL(shared.webhook_url)
    with socket.create_connection((to.host, to.port or 0), timeout=5) as connection:
        connection.sendall(signed() + half + body[:5])
        connection.shutdown(socket.SHUT_WR)
        output = b"".join(iter(lambda: connection.recv(65536), b""))
    assert ANSWER.findall(output) == [b"200"]


def test_a_body_after_an_upgrade_does_not_look_like_a_rotated_key(idle: Site) -> None:
    """Each refusal is one log line with client and code, and the status says nothing of keys."""
    daemon = idle.serve(filled=False)
    for _ in range(12):
        assert exchange(daemon.webhook_url, signed(*H2C)) == ["200"]
    assert not [reason for reason in daemon.status()["reasons"] if "rotated" in reason]

    def is_other(before: list[dict[str, Any]]) -> bool:
        return daemon.logged("a request was refused") != before

    for sent, hint in (
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100, "TLS"),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + signed(), "PROXY protocol"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + b"\0" * 12, "PROXY protocol"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", "HTTP/2"),
        (signed(target=f"{PATH}/"), PATH),
    ):
        before = daemon.logged("a request was refused")
        assert exchange(daemon.webhook_url, sent)[0] in {"400", "404"}
        if "QUIT" not in sent.decode("latin-1"):  # the same kind as the one before
            idle.until(partial(is_other, before))
            (line,) = daemon.logged("a request was refused")[len(before) :]
            assert hint in line["hint"]
            assert line["client"] == "127.0.0.1"
    daemon.stop()
    assert len(daemon.logged("a request was refused")) == 4


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (head("Host: localhost", *H2C, method=GET, target="/status.json"), "200"),
        (head("Host: localhost", method=GET, target="/status.json/"), "404"),
        (head("Host: localhost", method=GET, target="/metrics/?x"), "404"),
        (head("Host: localhost", method="POST", target="/metrics"), "405"),
        (head("Host: localhost", method=GET, target="http://localhost/metrics"), "200"),
        (head("Host: localhost", method=GET, target="http://evil.example/metrics"), "400"),
        (head("Host: localhost", "Host: evil.example", method=GET, target="/metrics"), "400"),
        (head("Host: evil.example", method=GET, target="/metrics"), "421"),
        (head("Host: localhost", method="FOO", target="/metrics"), "400"),
    ],
)
def test_the_admin_listener_follows_the_same_http_rules(
    shared: Daemon, sent: bytes, expected: str
) -> None:
    """No redirect, no second Host, no upgrade; refusals are counted under its name."""
    before = refused(shared, "admin")
    assert exchange(shared.admin_url, sent) == [expected]
    counted = {} if expected == "200" else {expected: before[expected] + 1}
    assert refused(shared, "admin") == before | counted


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [("POST", "/reconcile/", 404), ("GET", "/replay", 405), ("POST", "/replay", 400)],
)
def test_the_control_socket_always_answers_json(
    shared: Daemon, method: str, path: str, expected: int
) -> None:
    """Every client decodes the answer; refusals are counted."""
    before = refused(shared, "control")
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(shared.site.socket))) as client:
        answer = client.request(method, f"http://syncd{path}", content=b"[")
    assert answer.status_code == expected
    assert answer.json()["error"]
    assert refused(shared, "control")[str(expected)] == before[str(expected)] + 1
