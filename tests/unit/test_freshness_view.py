"""The `freshness` view finds by index the result of a scan of `availability`."""

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
def test_oldest_confirmed_at_equals_the_minimum_of_availability(
    memory: sqlite3.Connection,
    reads: list[str | None],
    variants: list[tuple[int | None, str | None, str | None, str, str | None]],
) -> None:
    """Removed, verifying, missing, newly delivered and unplaced variants included."""
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


def test_freshness_scans_no_table(memory: sqlite3.Connection) -> None:
    """Shops may read it often, and the daemon reads it when it starts."""
    plan = memory.execute("EXPLAIN QUERY PLAN SELECT * FROM freshness").fetchall()
    scanned = {row[3] for row in plan if row[3].startswith("SCAN")}
    assert scanned <= {"SCAN CONSTANT ROW", "SCAN read", "SCAN freshness"}
