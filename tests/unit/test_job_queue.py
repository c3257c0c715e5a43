"""The order of queued reads, and which items belong to a sweep."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from syncd.core.model import Page, SourceItem
from syncd.core.pagination import Position
from syncd.core.timestamps import to_text
from syncd.store import job_queue, sweep_pages, sweeps
from syncd.sync.read_order import Turns

INVENTED = range(5_000_000, 5_050_000)


@given(st.lists(st.tuples(st.integers(0, 60), st.booleans()), max_size=6), st.integers(0, 5))
def test_deliveries_are_read_before_any_sweep(
    memory: sqlite3.Connection, requests: list[tuple[int, bool]], delivered: int
) -> None:
    """Requests of any size and version, earlier or later; then the smallest request is first.

    Among requested items, the smallest request goes first.
    """
    now = datetime.now(UTC)
    for table in ("refresh_queue", "sweep_items", "sweeps", "items"):
        memory.execute(f"DELETE FROM {table}")  # noqa: S608
    first = 1_000_000
    for size, is_catalogue in requests:
        sweeps.begin(
            memory,
            "operator",
            now,
            items=range(first, first + size),
            is_catalogue=is_catalogue,
            position=None,
            accepts_removals=False,
        )
        first += size
    for item_id in range(delivered):
        memory.execute("INSERT INTO items (item_id) VALUES (?)", (item_id,))
        memory.execute(
            "INSERT INTO refresh_queue VALUES (?1, NULL, ?2, ?2)", (item_id, to_text(now))
        )
    job = job_queue.next_job(memory, now, (), Turns().order, listing=True)
    sizes = [size for size, is_catalogue in requests if size and not is_catalogue]
    if delivered:
        assert job is not None
        assert job.kind == "confirm"
    elif sizes:
        assert job is not None
        assert job.kind == "requested"
        (size,) = memory.execute(
            "SELECT count(*) FROM sweep_items WHERE sweep_id = ?", (job.sweep_id,)
        ).fetchone()
        assert size == min(sizes)


def test_requested_ids_do_not_join_the_catalogue(memory: sqlite3.Connection) -> None:
    """A catalogue sweep reads listed and known items, and not the ids of other requests."""
    now = datetime.now(UTC)
    for table in ("sweep_items", "sweeps", "items"):
        memory.execute(f"DELETE FROM {table}")  # noqa: S608
    how: dict[str, Any] = {"position": None, "accepts_removals": False}
    sweeps.begin(memory, "operator", now, items=INVENTED[:500], is_catalogue=False, **how)
    how["position"] = Position()
    sweep_id = sweeps.begin(memory, "schedule", now, items=(), is_catalogue=True, **how)
    page = Page((SourceItem(7, "Mug", None),), 1, has_next=False, began_at=now, source_at=None)
    sweep_pages.apply(memory, sweep_id, page, Position(), ())
    listed = memory.execute("SELECT item_id FROM sweep_items WHERE sweep_id = ?", (sweep_id,))
    assert listed.fetchall() == [(7,)]
