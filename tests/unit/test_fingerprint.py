"""Equal rows of a list have equal fingerprints, on pages of any size."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec import json

from syncd.core.fingerprint import fingerprint
from syncd.dreamship.catalogue_answers import listing_in

ROW: dict[str, Any] = {
    "id": 7,
    "name": "Mug",
    "colors": [{"id": 1, "availability": "in_stock"}],
    "image": "https://images.example/7.png?signature=abc&expires=1",
}
texts = st.text(st.characters(codec="utf-8"), max_size=20)
documents = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def test_a_changed_availability_changes_the_fingerprint() -> None:
    """Anywhere in the row."""
    changed = ROW | {"colors": [{"id": 1, "availability": "out_of_stock"}]}
    assert fingerprint(ROW) != fingerprint(changed)


def test_the_order_of_names_and_signed_urls_do_not_matter() -> None:
    """Each answer may have others."""
    other = dict(reversed(ROW.items()))
    other["image"] = "https://images.example/7.png?signature=xyz&expires=2"
    assert fingerprint(ROW) == fingerprint(other)


def test_a_fingerprint_fits_a_column_of_sqlite() -> None:
    """64 bits with a sign."""
    assert all(-(2**63) <= (fingerprint({"id": n}) or 0) < 2**63 for n in range(200))


@given(rows=st.lists(st.dictionaries(texts, documents, max_size=4), min_size=1, max_size=4))
def test_a_large_page_has_the_same_fingerprints_as_a_small_one(rows: list[dict[str, Any]]) -> None:
    """A row may move between them as the catalogue grows."""
    named = [row | {"id": number} for number, row in enumerate(rows, 1)]
    body = bytearray(json.encode({"paging": {"count": len(rows)}, "data": named}))
    whole, sliced = listing_in(body), listing_in(body, whole_bytes=0)
    assert [one.fingerprint for one in whole.items] == [one.fingerprint for one in sliced.items]
    assert None not in [one.fingerprint for one in whole.items]
