"""The order of queued reads, and which items belong to a sweep."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from syncd.core.model import ItemRead, Page, SourceItem, SourceVariant, VariantDetails
from syncd.core.pagination import Position
from syncd.core.policy import Policy
from syncd.core.timestamps import to_text
from syncd.store import job_queue, reads, sweep_pages, sweeps
from syncd.sync.read_order import Turns

INVENTED = range(5_000_000, 5_050_000)
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
POLICY = Policy(frozenset({"in_stock"}), timedelta(minutes=1))


def _read(item_id: int, at: datetime) -> ItemRead:
    variants = (SourceVariant(item_id, "in_stock", VariantDetails("M")),)
    return ItemRead(item_id, f"Item {item_id}", variants, at, at)


def _steps_of_a_job(db: sqlite3.Connection, items: int) -> int:
    """Return how many steps SQLite takes to find a job and to apply its read."""
    for table in ("refresh_queue", "sweep_items", "sweeps", "items", "variants"):
        db.execute(f"DELETE FROM {table}")  # noqa: S608
    for item_id in range(1, items + 1):
        at = NOW - timedelta(hours=2) + timedelta(seconds=item_id)
        reads.apply(db, _read(item_id, at), POLICY, now=at)
    sweeps.begin(
        db,
        "schedule",
        NOW,
        items=range(1, items + 1),
        is_catalogue=True,
        position=None,
        accepts_removals=False,
        is_paced=True,
    )
    for item_id in range(1, items // 2):
        reads.apply(db, _read(item_id, NOW), POLICY, now=NOW)
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    db.set_progress_handler(count, 10)
    rest = Turns().rest(is_background_due=True)
    job = job_queue.next_job(
        db, NOW, (), Turns().order, listing=True, rest=rest, choice=job_queue.Choice(NOW)
    )
    assert job is not None
    assert (job.kind, job.item_id) == ("stale", items // 2)
    reads.apply(db, _read(items // 2, NOW), POLICY, now=NOW)
    db.set_progress_handler(None, 0)
    return steps


def test_a_job_of_a_large_catalogue_takes_no_longer(memory: sqlite3.Connection) -> None:
    """With 10,000 items, each search for a job read all items of the sweep, three times a call."""
    # A deeper tree of an index costs some steps more, by the version of SQLite.
    assert _steps_of_a_job(memory, 2000) <= 2 * _steps_of_a_job(memory, 200)


def test_items_whose_last_read_failed_come_last(memory: sqlite3.Connection) -> None:
    """But before the end of the sweep."""
    _steps_of_a_job(memory, 8)
    job_queue.postpone(memory, 5, NOW)
    order: list[int] = []
    while job := job_queue.next_job(memory, NOW, order, Turns().order, listing=True, paced=True):
        order.append(job.item_id or 0)
    assert order == [6, 7, 8, 5]


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
