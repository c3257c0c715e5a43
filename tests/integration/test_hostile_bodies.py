"""Hostile bodies: not JSON, almost JSON, or far too large."""

from __future__ import annotations

import gzip
import uuid
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import httpx
import pytest
from msgspec import json
from raw_requests import MB

from syncd.core.timestamps import to_text

pytestmark = pytest.mark.long

if TYPE_CHECKING:
    from conftest import Daemon


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


@pytest.mark.usefixtures("harmless")
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


@pytest.mark.usefixtures("harmless")
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
