"""Every form a delivery may have, from the payload files, and what no bytes at all may do."""

from __future__ import annotations

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
def test_every_documented_form_is_understood(path: Path) -> None:
    """Each payload file says what its body must be understood as."""
    payload = json.decode(path.read_bytes())
    body = body_of(payload)
    delivery = parse(body, NOW)
    expected: dict[str, Any] = payload["expected"]
    assert delivery.body == body
    if "claim" in expected:
        assert delivery.quarantined is None
        assert delivery.update is not None
        found = asdict(delivery.update)
        found["event_at"] = maybe_text(found["event_at"])
        found["labels"] = asdict(found["labels"])
        assert found == expected["claim"]
    elif "quarantined" in expected:
        assert delivery.update is None
        assert expected["quarantined"] in (delivery.quarantined or "")
    else:
        assert (delivery.update, delivery.quarantined) == (None, None)
    if "mention" in expected:
        mention = delivery.mention
        assert (mention and json.decode(json.encode(mention))) == expected["mention"]


def test_there_is_a_file_for_each_form() -> None:
    """The payloads are found at all."""
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
def test_what_is_no_documented_object_is_quarantined_whole(body: bytes) -> None:
    """Authentic and unintelligible: kept byte for byte, with a reason."""
    delivery = parse(body, NOW)
    assert delivery.quarantined
    assert delivery.body == body
    assert delivery.event_id.startswith(HASHED)


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
def test_no_body_makes_it_raise(body: bytes) -> None:
    """Whatever is signed gets an answer, and is exactly one of the three."""
    delivery = parse(body, NOW)
    assert delivery.body == body
    assert delivery.update is None or delivery.quarantined is None
    assert delivery.event_id
    if delivery.update is not None:
        assert 0 < delivery.update.variant_id <= MAX_ID


@given(st.integers())
def test_ids_are_the_same_as_numbers_and_as_digits(number: int) -> None:
    """An id is a positive number of 64 bits, whichever way it is written."""
    expected = number if 0 < number <= MAX_ID else None
    assert parse_id(number) == expected
    assert parse_id(str(number)) == expected


@pytest.mark.parametrize("value", [True, False, None, "", " ", "1.5", "²", "1e3", 1.5, [], {}])
def test_what_is_no_id(value: object) -> None:
    """Nothing but whole numbers and digits names a variant."""
    assert parse_id(value) is None


def test_a_retry_with_newer_data_is_no_duplicate() -> None:
    """Latest data may be taken when a delivery is sent: same event, other news."""
    body = {"object": "item_variant", "event": {"uuid": "u"}, "data": {"id": 5}}
    first = parse(json.encode(body), NOW)
    body["data"] = {"id": 5, "availability": "in_stock"}
    second = parse(json.encode(body), NOW)
    assert first.event_id == second.event_id == "u"
    assert content_key(first) != content_key(second)


def test_a_null_availability_is_not_the_text_null() -> None:
    """What was not told and what was told as text have different keys."""
    body = {"object": "item_variant", "data": {"id": 5, "availability": "?"}}
    told = parse(json.encode(body), NOW)
    assert told.update is not None
    untold = replace(told, update=replace(told.update, value=None))
    assert content_key(told) != content_key(untold)
