"""What the status page asks of the mirror: searches."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from syncd.store.migrations import migrate
from syncd.store.search import find

AT = "2026-03-01T00:00:00.000000Z"


@pytest.fixture
def mirror() -> Iterator[sqlite3.Connection]:
    """Give a mirror with two variants that are not sellable, and some SKUs."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        migrate(db)
        db.executemany(
            """INSERT INTO variants (variant_id, name, value, sellable, confirmed_at, changed_at,
                   source, rule, decided_at)
               VALUES (?1, 'Black / M', 'out_of_stock', 0, ?2, ?2, 'read', 'settled', ?2)""",
            [(1, AT), (2, AT)],
        )
        db.executemany(
            "INSERT INTO skus (sku, variant_id, listed_at) VALUES (?, ?, ?)",
            [(sku, variant_id, AT) for sku, variant_id in (("1", 2), ("ab", 1), ("B", 2))],
        )
        yield db


@pytest.mark.parametrize(
    ("text", "explained"),
    [
        ("1", [1, 2]),  # the id of one variant, and the SKU of another
        ("2", [2]),
        ("ab", [1]),
        ("AB", [1]),  # the only match
        ("b", []),  # part of the SKUs of two variants
        ("B", [2]),
        ("black", []),
        ("77", [77]),  # a delivery may have named it
        ("nothing", []),
        ("reason:value", []),
        ("reason:unknown", []),
    ],
)
def test_a_search_explains_what_is_exact_or_single(
    mirror: sqlite3.Connection, text: str, explained: list[int]
) -> None:
    """An id, a SKU, or the only variant that matches."""
    assert find(mirror, text, 25).explained == explained


def test_a_search_is_bounded_and_begins_with_the_exact_sku(mirror: sqlite3.Connection) -> None:
    """Each list has at most as many rows as asked for."""
    assert [row["sku"] for row in find(mirror, "B", 25).skus] == ["B", "ab"]
    found = find(mirror, "b", 1)
    assert (len(found.skus), len(found.variants)) == (1, 1)
    assert [row["sku"] for row in find(mirror, "reason:value", 25).skus] == ["1", "B", "ab"]
    assert len(find(mirror, "reason:value", 2).skus) == 2
    # Only the reasons of the views are such a search.
    assert find(mirror, "reason:sellable", 25).skus == []
