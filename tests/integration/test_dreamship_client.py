"""The Dreamship client over real sockets: each good answer, and the error for each bad one."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
import subprocess
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from syncd.core.model import ItemRead, Page
from syncd.dreamship import client
from syncd.dreamship.client import DreamshipClient
from syncd.errors import (
    SourceAnswerInvalid,
    SourceError,
    SourceGone,
    SourceRefused,
    SourceThrottled,
    SourceUnreachable,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEY = "canary-key-0123"
ITEM = {
    "id": 7,
    "name": "Mug",
    "item_variants": [
        {
            "id": 70,
            "name": "Red",
            "color": {"name": "Red"},
            "size": None,
            "availability": "in_stock",
        }
    ],
}
REFUSED = {"error": {"key": "not_authenticated", "status_code": 401, "message": "No."}}
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def http(
    body: bytes | object = b"", status: str = "200 OK", *headers: str, length: int | None = None
) -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(raw) if length is None else length}"]
    lines += ["Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + raw


def answering(answer: bytes) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    return serve


@asynccontextmanager
async def source(
    serve: Serve, *, timeout_s: float = 5, key: str = KEY
) -> AsyncIterator[DreamshipClient]:
    """Serve each connection by `serve`, and give a client of it."""
    served: set[asyncio.Task[None] | None] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.add(asyncio.current_task())
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await serve(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = DreamshipClient(
        f"http://127.0.0.1:{port}/v1", key, timeout_s=timeout_s, now=lambda: NOW
    )
    try:
        yield client
    finally:
        await client.aclose()
        server.close()
        tasks = [task for task in served if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)


def item(serve: Serve, *, timeout_s: float = 5, key: str = KEY) -> ItemRead:
    async def query() -> ItemRead:
        async with source(serve, timeout_s=timeout_s, key=key) as client:
            return await client.item(7)

    return asyncio.run(query())


def page(serve: Serve, category_id: int | None = None) -> Page:
    async def query() -> Page:
        async with source(serve) as client:
            return await client.page(category_id, 2)

    return asyncio.run(query())


def test_an_item_is_read_with_its_variants() -> None:
    """With the time the request left and the time on Dreamship's clock."""
    read = item(answering(http(ITEM, "200 OK", "Date: Sun, 01 Mar 2026 12:00:30 GMT")))
    assert (read.item_id, read.name, read.began_at) == (7, "Mug", NOW)
    assert read.source_at == NOW + timedelta(seconds=30)
    assert read.variants is not None
    assert read.variants[0].value == "in_stock"
    assert read.variants[0].details.color == "Red"


def test_the_request_follows_dreamships_documentation() -> None:
    """Path with a slash at its end, page and limit, the key as a bearer token."""
    requested: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requested.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(http({"paging": {"count": 0, "next": None}, "data": []}))

    page(serve)
    page(serve, 5)
    assert requested[0].startswith(b"GET /v1/items/?page=2&limit=100 HTTP/1.1\r\n")
    assert requested[1].startswith(b"GET /v1/categories/5/items/?page=2&limit=100 ")
    assert f"Authorization: Bearer {KEY}".encode() in requested[0]


def test_requests_ask_caches_for_a_new_answer() -> None:
    """With the headers of HTTP/1.1 and HTTP/1.0; the URL is unchanged."""
    requested: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requested.append((await reader.readuntil(b"\r\n\r\n")).lower())
        writer.write(http(ITEM))

    item(serve)
    assert b"\r\ncache-control: no-cache\r\n" in requested[0]
    assert b"\r\npragma: no-cache\r\n" in requested[0]
    assert requested[0].startswith(b"get /v1/items/7/ http/1.1\r\n")


def test_cookies_of_answers_are_never_sent() -> None:
    """After 300 answers with a cookie each, faults and redirects among them."""
    requested: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requested.append(await reader.readuntil(b"\r\n\r\n"))
        number = len(requested)
        status = ("200 OK", "503 Busy", "302 Found", "404 Not Found")[number % 4]
        cookie = f"Set-Cookie: visit{number}={'x' * 200}; Path=/; Max-Age=99999"
        writer.write(http(ITEM, status, cookie, cookie.replace("visit", "again")))

    async def query() -> None:
        async with source(serve) as client:
            for _ in range(300):
                with contextlib.suppress(SourceError):
                    await client.item(7)

    asyncio.run(query())
    assert len(requested) == 300
    assert not any(b"cookie" in request.lower() for request in requested)
    assert len({len(request) for request in requested}) == 1


def test_the_age_of_an_answer_is_read_from_its_headers() -> None:
    """Of an item, a page and a missing item."""
    old = ("Age: 240", "Cache-Control: max-age=300")
    read = item(answering(http(ITEM, "200 OK", *old)))
    assert (read.age, read.fresh_for) == (timedelta(seconds=241), timedelta(seconds=59))
    listed = page(answering(http({"paging": {"next": None}, "data": []}, "200 OK", *old)))
    assert (listed.age, listed.fresh_for) == (timedelta(seconds=241), timedelta(seconds=59))
    error = {"error": {"key": "not_found", "status_code": 404, "message": "Not found."}}
    with pytest.raises(SourceGone) as gone:
        item(answering(http(error, "404 Not Found", *old)))
    assert (gone.value.age, gone.value.fresh_for) == (read.age, read.fresh_for)
    assert not item(answering(http(ITEM, "200 OK", "Age: 0", "X-Cache: MISS"))).age


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_a_cached_401_does_not_mean_a_refused_key(status: str) -> None:
    """The key may have changed since."""
    refusal = {"error": {"key": "no", "status_code": int(status[:3]), "message": "No."}}
    with pytest.raises(SourceUnreachable) as failure:
        item(answering(http(refusal, status, "Age: 60")))
    assert "a cache repeats" in failure.value.message


def test_the_url_of_next_does_not_matter() -> None:
    """Another host or the same page: it only says that there is a next page."""
    paging = {"count": 300, "next": "https://evil.example/v1/items/?page=9", "previous": None}
    output = page(answering(http({"paging": paging, "data": [ITEM]})))
    assert output.has_next


def test_a_row_of_a_list_may_contain_its_variants() -> None:
    """Each row is checked by itself."""
    rows = [ITEM, {"id": "8"}, {"id": 9, "item_variants": None}]
    output = page(answering(http({"paging": {"count": 3, "next": "x"}, "data": rows})))
    assert [row.variants is None for row in output.items] == [False, True, True]
    assert (output.count, output.has_next) == (3, True)


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        pytest.param(http(b"<html>", "502 Bad Gateway"), SourceUnreachable, id="html 502"),
        pytest.param(http({"error": {"message": "x"}}, "500 Error"), SourceUnreachable, id="500"),
        pytest.param(http(b"<html>Welcome"), SourceAnswerInvalid, id="html with 200"),
        pytest.param(http(json.dumps(ITEM).encode()[:40]), SourceAnswerInvalid, id="cut json"),
        pytest.param(http(b'{"id": 7', length=500), SourceUnreachable, id="cut body"),
        pytest.param(http(b"[" * 100_000), SourceAnswerInvalid, id="nested too deep"),
        pytest.param(http([ITEM]), SourceAnswerInvalid, id="a list"),
        pytest.param(http({**ITEM, "id": 8}), SourceAnswerInvalid, id="of another item"),
        pytest.param(http({"id": 7, "name": "Mug"}), SourceAnswerInvalid, id="without variants"),
        pytest.param(
            http({"id": [7], "item_variants": []}),
            SourceAnswerInvalid,
            id="an item without a usable id",
        ),
        pytest.param(
            http(b"", "301 Moved", "Location: http://127.0.0.2/"),
            SourceAnswerInvalid,
            id="a redirect, which would take the key elsewhere",
        ),
        pytest.param(http(REFUSED, "401 Unauthorized"), SourceRefused, id="401"),
        pytest.param(http(b"<html>", "403 Forbidden"), SourceUnreachable, id="a firewall's 403"),
        pytest.param(http({"error": {"key": "not_found"}}, "404 Not Found"), SourceGone, id="404"),
        pytest.param(http(b"<html>", "404 Not Found"), SourceUnreachable, id="a proxy's 404"),
        pytest.param(b"nonsense\r\n\r\n", SourceUnreachable, id="no HTTP"),
        pytest.param(b"", SourceUnreachable, id="hung up"),
    ],
)
def test_each_bad_answer_becomes_one_of_our_errors(
    answer: bytes, failure: type[SourceError]
) -> None:
    """The answer changes nothing, and no message contains the key."""
    with pytest.raises(failure) as raised:
        item(answering(answer))
    assert type(raised.value) is failure
    assert KEY not in raised.value.message + raised.value.hint


@pytest.mark.parametrize("drips", [False, True], ids=["never answers", "drips"])
def test_a_slow_answer_times_out(drips: bool) -> None:
    """As a whole: single bytes do not extend the time."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if drips:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        for _ in range(400):
            await asyncio.sleep(0.02)
            if drips:
                writer.write(b" ")
                await writer.drain()

    with pytest.raises(SourceUnreachable, match="did not answer items/7/ within"):
        item(serve, timeout_s=0.2)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_an_endless_answer_is_given_up(
    packed: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Memory stays bounded."""
    monkeypatch.setattr(client, "MAX_ITEM_BYTES", 100_000)
    body = b" " * 10_000_000
    head = "Content-Encoding: gzip" if packed else "X-Nothing: at all"
    with pytest.raises(SourceAnswerInvalid, match="more than 100,000 bytes"):
        item(answering(http(gzip.compress(body) if packed else body, "200 OK", head)))


def test_only_gzip_is_accepted() -> None:
    """A gzip body is decoded."""
    requested: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requested.append((await reader.readuntil(b"\r\n\r\n")).lower())
        body = gzip.compress(json.dumps(ITEM).encode())
        writer.write(http(body, "200 OK", "Content-Encoding: GZIP"))

    assert item(serve).name == "Mug"
    assert b"\r\naccept-encoding: gzip\r\n" in requested[0]


PACKED = gzip.compress(json.dumps(ITEM).encode())


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        pytest.param(gzip.compress(PACKED), ["gzip, gzip"], id="gzip in gzip"),
        pytest.param(gzip.compress(PACKED), ["gzip", "gzip"], id="in two lines"),
        pytest.param(PACKED, ["gzip, identity"], id="and none"),
        pytest.param(PACKED, ["x-gzip"], id="an old name"),
        pytest.param(zlib.compress(json.dumps(ITEM).encode()), ["deflate"], id="deflate"),
        pytest.param(json.dumps(ITEM).encode(), ["br"], id="brotli"),
        pytest.param(json.dumps(ITEM).encode(), ["GZIP, GZIP, GZIP"], id="capitals"),
        pytest.param(gzip.compress(PACKED), ["gzip"], id="once more than it says"),
        pytest.param(PACKED, [], id="without a word"),
        pytest.param(PACKED[:-9], ["gzip"], id="cut short"),
        pytest.param(PACKED + PACKED, ["gzip"], id="two members"),
        pytest.param(PACKED + b"\0" * 500, ["gzip"], id="with something behind"),
    ],
)
def test_a_body_in_another_coding_is_invalid(body: bytes, lines: list[str]) -> None:
    """It is not decompressed."""
    with pytest.raises(SourceAnswerInvalid, match="items/7/"):
        item(answering(http(body, "200 OK", *(f"Content-Encoding: {one}" for one in lines))))


@pytest.mark.parametrize("coding", ["gzip, gzip", "br", "gzip"])
def test_a_429_counts_in_any_coding(coding: str) -> None:
    """Its header is obeyed."""
    lines = ["Retry-After: 17", f"Content-Encoding: {coding}"]
    with pytest.raises(SourceThrottled) as failure:
        item(answering(http(b"no gzip at all", "429 Too Many Requests", *lines)))
    assert failure.value.wait_s == 17


def test_an_endless_error_body_is_not_read() -> None:
    """The status counts, and a 404 without Dreamship's own body is not Dreamship's."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 99999999\r\n\r\n")
        writer.write(b'{"detail": "Not found."}' + b" " * 300_000)
        await writer.drain()
        await asyncio.sleep(60)

    with pytest.raises(SourceUnreachable, match="not in Dreamship's form"):
        item(serve)


@pytest.mark.parametrize("count", [10**18, 10**30, -1, "7", 1.5])
def test_an_absurd_count_is_ignored(count: object) -> None:
    """It makes no estimate."""
    assert page(answering(http({"paging": {"count": count}, "data": []}))).count is None


def unreachable(base_url: str) -> SourceUnreachable:
    async def query() -> None:
        client = DreamshipClient(base_url, KEY, timeout_s=5, now=lambda: NOW)
        try:
            await client.item(7)
        finally:
            await client.aclose()

    with pytest.raises(SourceUnreachable) as raised:
        asyncio.run(query())
    return raised.value


def test_a_refused_connection_and_an_unknown_host_are_unreachable() -> None:
    """Both are retried later."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert unreachable(f"http://127.0.0.1:{taken.getsockname()[1]}").retryable
    assert "base_url" in unreachable("http://no-such-host.invalid").hint


def test_an_untrusted_certificate_is_unreachable(tmp_path: Path) -> None:
    """The key is not sent to it."""
    import ssl  # noqa: PLC0415 - of this test alone

    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=127.0.0.1",
            "-keyout",
            tmp_path / "key",
            "-out",
            tmp_path / "cert",
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    received: list[bytes] = []

    async def run() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            received.append(await reader.read())
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        client = DreamshipClient(f"https://127.0.0.1:{port}", KEY, timeout_s=5, now=lambda: NOW)
        try:
            with pytest.raises(SourceUnreachable, match="certificate"):
                await client.item(7)
        finally:
            await client.aclose()
            server.close()

    asyncio.run(run())
    assert received == []


def throttle(headers: list[str], message: Any) -> float | None:
    body = {"error": {"key": "throttled", "status_code": 429, "message": message}}
    with pytest.raises(SourceThrottled) as raised:
        item(answering(http(body, "429 Too Many Requests", *headers)))
    return raised.value.wait_s


WORDS = "Request was throttled. Expected available in 59 seconds."


@pytest.mark.parametrize(
    ("headers", "message", "wait_s"),
    [
        pytest.param(["Retry-After: 17"], WORDS, 17, id="whole seconds"),
        pytest.param(
            [
                f"Retry-After: {format_datetime(NOW + timedelta(seconds=100), usegmt=True)}",
                f"Date: {format_datetime(NOW + timedelta(seconds=70), usegmt=True)}",
            ],
            WORDS,
            30,
            id="a date, by Dreamship's own clock",
        ),
        pytest.param(
            [
                f"Retry-After: {format_datetime(NOW, usegmt=True)}",
                f"Date: {format_datetime(NOW + timedelta(seconds=5), usegmt=True)}",
            ],
            WORDS,
            0,
            id="a date that is over",
        ),
        pytest.param([], WORDS, 59, id="in words"),
        pytest.param([], "Request was throttled. Expected available in 1 second.", 1, id="one"),
        pytest.param(["Retry-After: soon"], "Wait.", None, id="nothing to go by"),
        pytest.param([], None, None, id="no message"),
        pytest.param(["Retry-After: 86400"], WORDS, 86400, id="a day, which the pace caps"),
        pytest.param(["Retry-After: -5"], "x", None, id="negative"),
        pytest.param(["Retry-After: " + "9" * 40], "x", 999_999_999, id="absurd"),
    ],
)
def test_every_form_of_a_429_gives_its_wait(
    headers: list[str], message: object, wait_s: float | None
) -> None:
    """The header first, then the text, else none."""
    assert throttle(headers, message) == wait_s


def test_the_message_of_a_fault_is_one_short_line() -> None:
    """Whatever the server sends: it goes into log, status and history."""
    message = {"error": {"message": "first\nsecond " + "x" * 100_000}}
    for output in (http(message, "500 Oops"), b"no\x0bHTTP " + b"y" * 50_000 + b"\r\n\r\n"):
        with pytest.raises(SourceUnreachable) as raised:
            item(answering(output))
        assert len(str(raised.value)) < 300
        assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(("key", "name"), [("Mug", "Mug"), ("Mug of ds_live_1", "********")])
def test_a_short_key_does_not_mask_the_answer(key: str, name: str) -> None:
    """A longer key is masked wherever an answer repeats it."""
    assert item(answering(http(ITEM | {"name": key})), key=key).name == name
