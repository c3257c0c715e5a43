"""Every form of a delivery, from the payload files, and what no bytes may do."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import json
from msgspec.structs import asdict, replace
from payloads import PAYLOADS, body_of

from syncd.core.model import MAX_ID
from syncd.core.payload import HASHED, content_key, parse, parse_id
from syncd.core.timestamps import maybe_text

NOW = datetime(2026, 3, 1, 12, 1, tzinfo=UTC)


@pytest.mark.parametrize("path", PAYLOADS, ids=lambda path: path.stem)
def test_every_payload_file_is_parsed_as_it_says(path: Path) -> None:
    """Each file states the expected result."""
    payload = json.decode(path.read_bytes())
    body = body_of(payload)
    delivery = parse(body, NOW)
    expected: dict[str, Any] = payload["expected"]
    assert delivery.body == body
    if "update" in expected:
        assert delivery.quarantined is None
        assert delivery.update is not None
        found = asdict(delivery.update)
        found["event_at"] = maybe_text(found["event_at"])
        found["details"] = asdict(found["details"])
        assert found == expected["update"]
    elif "quarantined" in expected:
        assert delivery.update is None
        assert expected["quarantined"] in (delivery.quarantined or "")
    else:
        assert (delivery.update, delivery.quarantined) == (None, None)
    if "mention" in expected:
        mention = delivery.mention
        assert (mention and json.decode(json.encode(mention))) == expected["mention"]


def test_the_payload_files_exist() -> None:
    """The tests find files for every kind of result."""
    assert len(PAYLOADS) > 30


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut short"),
        pytest.param(b"\xff\xfe{}", id="no UTF-8"),
        pytest.param(b"null", id="null"),
        pytest.param(b'{"event":' * 5000 + b"1" + b"}" * 5000, id="nested too deep"),
        pytest.param(b'{"event":{"action":"item-variant-added"},"data":{"id":1', id="cut in data"),
        pytest.param(b'{"object":"item_variant","id":1e400}', id="a number no float has"),
    ],
)
def test_an_undocumented_body_is_quarantined_whole(body: bytes) -> None:
    """Authentic and not understood: stored byte for byte, with a reason."""
    delivery = parse(body, NOW)
    assert delivery.quarantined
    assert delivery.body == body
    assert delivery.event_id.startswith(HASHED)


@pytest.mark.parametrize(
    "part",
    [b'\\"', b'"', b'"\\', b'["', b'"[\\"', b"[]", b'{"id":'],
    ids=lambda part: part.decode(),
)
@pytest.mark.parametrize("begin", [b"", b'{"event":{"action":"'], ids=["document", "text"])
def test_a_body_of_quotes_and_brackets_is_parsed_in_one_pass(begin: bytes, part: bytes) -> None:
    """It takes 20 ms. With one pass for each quote, it would stop the daemon for a minute."""
    body = begin + part * (200_000 // len(part))
    began_s = time.thread_time()  # this thread's own: a busy machine does not add to it
    assert parse(body, NOW).quarantined
    assert time.thread_time() - began_s < 1


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
objects = st.fixed_dictionaries(
    {},
    optional={
        "id": anything,
        "object": st.sampled_from(["item_variant", "order", "", None, 7]) | anything,
        "event": st.fixed_dictionaries(
            {},
            optional={
                "uuid": st.uuids().map(str) | anything,
                "object_id": st.just(5) | anything,
                "object_type": st.just("item_variant") | anything,
                "action": st.just("item-variant-availability-updated") | anything,
                "timestamp": st.datetimes().map(str) | anything,
            },
        )
        | anything,
        "data": st.fixed_dictionaries(
            {"id": st.just(5) | anything},
            optional={"availability": anything, "item": anything, "color": anything},
        )
        | anything,
    },
)


@given(st.binary() | objects.map(json.encode))
def test_parsing_any_body_raises_nothing(body: bytes) -> None:
    """Each body is exactly one of update, ignored or quarantined."""
    delivery = parse(body, NOW)
    assert delivery.body == body
    assert delivery.update is None or delivery.quarantined is None
    assert delivery.event_id
    if delivery.update is not None:
        assert 0 < delivery.update.variant_id <= MAX_ID


@given(st.integers())
def test_ids_may_be_numbers_or_digits(number: int) -> None:
    """An id is a positive 64-bit number in either notation."""
    expected = number if 0 < number <= MAX_ID else None
    assert parse_id(number) == expected
    assert parse_id(str(number)) == expected


@pytest.mark.parametrize("value", [True, False, None, "", " ", "1.5", "²", "1e3", 1.5, [], {}])
def test_other_values_are_no_ids(value: object) -> None:
    """Only whole numbers and digits name a variant."""
    assert parse_id(value) is None


def test_a_retry_with_newer_data_is_no_duplicate() -> None:
    """Dreamship may insert the latest data when it retries: the same event with another value."""
    body = {"object": "item_variant", "event": {"uuid": "u"}, "data": {"id": 5}}
    first = parse(json.encode(body), NOW)
    body["data"] = {"id": 5, "availability": "in_stock"}
    second = parse(json.encode(body), NOW)
    assert first.event_id == second.event_id == "u"
    assert content_key(first) != content_key(second)


def test_a_null_availability_is_not_the_text_null() -> None:
    """The two have different content keys."""
    body = {"object": "item_variant", "data": {"id": 5, "availability": "?"}}
    delivery = parse(json.encode(body), NOW)
    assert delivery.update is not None
    without_value = replace(delivery, update=replace(delivery.update, value=None))
    assert content_key(delivery) != content_key(without_value)
