"""`freshness` finds by index what `availability` would tell by reading all of it."""

from __future__ import annotations

import sqlite3

from hypothesis import given
from hypothesis import strategies as st

MOMENTS = st.sampled_from([f"2026-11-24T08:00:0{second}.000000Z" for second in range(6)])
ITEMS = range(1, 5)
VARIANT = st.tuples(
    st.sampled_from([None, *ITEMS]),
    st.sampled_from([None, "in_stock"]),
    st.sampled_from([None, None, '["out_of_stock"]']),
    MOMENTS,
    st.none() | MOMENTS,
)


@given(
    reads=st.lists(st.none() | MOMENTS, min_size=len(ITEMS), max_size=len(ITEMS)),
    variants=st.lists(VARIANT, max_size=10),
)
def test_the_oldest_confirmation_is_the_oldest_of_all(
    memory: sqlite3.Connection,
    reads: list[str | None],
    variants: list[tuple[int | None, str | None, str | None, str, str | None]],
) -> None:
    """Whatever is removed, doubted, absent, delivered since its read, or of no item."""
    memory.execute("DELETE FROM items")
    memory.execute("DELETE FROM variants")
    memory.executemany(
        "INSERT INTO items (item_id, confirmed_at) VALUES (?, ?)", zip(ITEMS, reads, strict=True)
    )
    memory.executemany(
        """INSERT INTO variants (item_id, value, conflicting_values, confirmed_at, missing_since,
               sellable, changed_at, source, rule, decided_at)
           VALUES (?, ?, ?, ?, ?, 0, '', 'read', 'settled', '')""",
        variants,
    )
    (found,) = memory.execute("SELECT oldest_confirmed_at FROM freshness").fetchone()
    (true,) = memory.execute(
        "SELECT min(confirmed_at) FROM availability WHERE removed = 0"
    ).fetchone()
    assert found == true


def test_no_part_of_it_reads_the_whole_mirror(memory: sqlite3.Connection) -> None:
    """A shop may ask as often as it likes, and a daemon does when it starts."""
    plan = memory.execute("EXPLAIN QUERY PLAN SELECT * FROM freshness").fetchall()
    scanned = {row[3] for row in plan if row[3].startswith("SCAN")}
    assert scanned <= {"SCAN CONSTANT ROW", "SCAN read", "SCAN freshness"}
