"""Only a body that was signed with one of our keys is authentic."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core.signature import MAX_SEGMENTS, is_authentic, sign

keys = st.text(min_size=1).filter(lambda key: key.isprintable())


@given(st.binary(), st.lists(keys, min_size=1, max_size=4, unique=True), st.data())
def test_one_valid_segment_is_enough(
    body: bytes, sender_keys: list[str], data: st.DataObject
) -> None:
    """During a rotation each side may have keys that the other side does not have."""
    ours = data.draw(st.lists(st.sampled_from(sender_keys), min_size=1))
    assert is_authentic(body, sign(body, sender_keys).encode(), ours)


@given(st.binary(), st.binary(), keys, keys)
def test_another_body_or_another_key_is_not_authentic(
    body: bytes, other: bytes, key: str, other_key: str
) -> None:
    """A signature is valid for its own bytes and key only."""
    header = sign(body, [key]).encode()
    assert is_authentic(other, header, [key]) == (other == body)
    assert is_authentic(body, header, [other_key]) == (key == other_key)


@given(st.binary(), st.none() | st.binary(max_size=300))
def test_any_header_is_checked_without_an_exception(body: bytes, header: bytes | None) -> None:
    """A malformed header is no signature."""
    assert not is_authentic(body, header, ["key"])


def test_the_signature_is_the_documented_hmac() -> None:
    """Hex HMAC-SHA256 of the body under the UTF-8 api key."""
    key, body = "schlüssel", b'{"id": 1}'
    documented = hmac.new(key.encode("utf-8"), body, hashlib.sha256).hexdigest()
    assert sign(body, [key]) == documented
    assert is_authentic(body, f"0000, {documented.upper()}".encode(), ["other", key])


@pytest.mark.parametrize("place", [0, MAX_SEGMENTS - 1])
def test_only_the_first_segments_are_compared(place: int) -> None:
    """A header with a thousand segments takes no extra time."""
    segments = ["0"] * 1000
    segments[place] = sign(b"x", ["key"])
    assert is_authentic(b"x", ",".join(segments).encode(), ["key"])
    segments = ["0"] * 1000
    segments[MAX_SEGMENTS] = sign(b"x", ["key"])
    assert not is_authentic(b"x", ",".join(segments).encode(), ["key"])


def test_without_keys_nothing_is_authentic() -> None:
    """No key, no trust."""
    assert not is_authentic(b"x", sign(b"x", [""]).encode(), [])
