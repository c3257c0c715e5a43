"""The queries of the status page: searches, and variants that went off sale."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing

import pytest

from syncd.store import off_sale
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
            [(sku, variant_id, AT) for sku, variant_id in (("1", 2), ("ab", 1), ("b", 2))],
        )
        yield db


def add_changes(db: sqlite3.Connection, rows: Iterable[tuple[int, int, int]]) -> None:
    """Append changes of variant 1: `seq`, `old_sellable`, `sellable`."""
    db.executemany(
        """INSERT INTO change_log (seq, variant_id, old_availability, availability, old_sellable,
               sellable, cause, rule, missed, during_downtime, occurred_at, recorded_at)
           VALUES (?1, 1, 'a', 'b', ?2, ?3, 'read', 'same', 0, 0, ?4, ?4)""",
        [(*row, AT) for row in rows],
    )


def seqs(db: sqlite3.Connection) -> list[int]:
    return [row["seq"] for row in off_sale.newest(db)]


@pytest.mark.parametrize(
    ("text", "explained"),
    [
        ("1", [1, 2]),  # the id of one variant, and the SKU of another
        ("2", [2]),
        ("ab", [1]),
        ("AB", [1]),  # the only match
        ("b", [2]),
        ("B", []),  # part of the SKUs of two variants
        ("black", []),
        ("77", [77]),  # a delivery may have named it
        ("nothing", []),
        ("reason:value", []),
        ("reason:unknown", []),
    ],
)
def test_a_search_explains_an_exact_or_single_match(
    mirror: sqlite3.Connection, text: str, explained: list[int]
) -> None:
    """An id, a SKU, or the only variant that matches."""
    assert find(mirror, text, 25).explained == explained


def test_a_search_is_bounded_and_begins_with_the_exact_sku(mirror: sqlite3.Connection) -> None:
    """Each list has at most as many rows as asked for."""
    assert [row["sku"] for row in find(mirror, "b", 25).skus] == ["b", "ab"]
    found = find(mirror, "b", 1)
    assert [row["sku"] for row in found.skus] == ["b"]
    assert len(found.variants) == 1
    assert [row["sku"] for row in find(mirror, "reason:value", 25).skus] == ["1", "ab", "b"]
    assert len(find(mirror, "reason:value", 2).skus) == 2
    # Only the reasons of the views are such a search.
    assert find(mirror, "reason:sellable", 25).skus == []


def test_ten_changes_of_the_newest_are_listed(mirror: sqlite3.Connection) -> None:
    """Of the newest 20,000 numbers: ten million older changes cost nothing."""
    assert seqs(mirror) == []
    add_changes(mirror, [(seq, 1, 0) for seq in range(1, 31)])
    assert seqs(mirror) == [*range(30, 20, -1)]
    # Other changes do not count.
    add_changes(mirror, [(31, 0, 1), (32, 0, 0), (33, 1, 1)])
    assert seqs(mirror) == [*range(30, 20, -1)]
    add_changes(mirror, [(20_025, 0, 0)])
    assert seqs(mirror) == [*range(30, 25, -1)]


def test_a_change_has_the_state_of_now_and_a_few_skus(mirror: sqlite3.Connection) -> None:
    """Both are empty if the mirror has lost the variant."""
    add_changes(mirror, [(1, 1, 0)])
    mirror.executemany(
        "INSERT INTO skus (sku, variant_id, listed_at) VALUES (?, 1, ?)",
        [(f"more {n}", AT) for n in range(9)],
    )
    (row,) = off_sale.newest(mirror)
    assert (row["skus"], row["more_skus"]) == (["ab", "more 0", "more 1"], 7)
    assert (row["sellable"], row["reason"], row["variant_name"]) == (0, "value", "Black / M")
    mirror.execute("UPDATE variants SET sellable = 1")
    assert off_sale.newest(mirror)[0]["sellable"] == 1
    mirror.execute("DELETE FROM variants")
    (row,) = off_sale.newest(mirror)
    assert (row["sellable"], row["reason"]) == (None, None)
