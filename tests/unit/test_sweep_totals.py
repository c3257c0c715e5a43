"""The items that a sweep counts as read, although a call of another kind has read them."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest
from simulation.days import Day, Shelves, lived

from syncd.core.jobs import SweepSummary
from syncd.core.model import ItemRead, Page, SourceItem, SourceVariant, VariantDetails
from syncd.core.pagination import Position
from syncd.core.policy import Policy
from syncd.store import reads, sweep_pages, sweep_results, sweeps

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
POLICY = Policy(frozenset({"in_stock"}), timedelta(minutes=1))


@pytest.fixture
def db(memory: sqlite3.Connection) -> sqlite3.Connection:
    """Give a mirror with items 1 to 3, and an open sweep of id 1 whose list is not read yet."""
    for table in ("sweep_items", "sweeps", "items", "variants", "refresh_queue", "change_log"):
        memory.execute(f"DELETE FROM {table}")  # noqa: S608 - constants
    for item_id in (1, 2, 3):
        read(memory, item_id, NOW - 600 * SECOND)
    return memory


def begin(db: sqlite3.Connection) -> int:
    """Begin a sweep that lists the catalogue."""
    return sweeps.begin(
        db,
        "operator",
        NOW,
        items=(),
        is_catalogue=True,
        position=Position(),
        accepts_removals=False,
    )


def read(db: sqlite3.Connection, item_id: int, at: datetime, value: str = "in_stock") -> None:
    """Apply a read of an item with two variants."""
    variants = tuple(
        SourceVariant(item_id * 10 + n, value if n else "in_stock", VariantDetails("M"))
        for n in (0, 1)
    )
    reads.apply(db, ItemRead(item_id, f"Item {item_id}", variants, at, at), POLICY, now=at)


def list_all(db: sqlite3.Connection, sweep_id: int) -> None:
    """Read the only page of the list."""
    at = NOW + 20 * SECOND
    shown = tuple(SourceItem(item_id, None, None) for item_id in (1, 2, 3))
    sweep_pages.apply(db, sweep_id, Page(shown, 3, False, at, at), Position(), ())  # noqa: FBT003


def ended(db: sqlite3.Connection) -> SweepSummary:
    """End the sweep, and return its totals."""
    (summary,) = sweep_results.finish(db, NOW + 60 * SECOND, POLICY, ())
    return summary


def test_an_item_that_was_read_before_the_list_shows_it_counts(db: sqlite3.Connection) -> None:
    """With its variants and changes; it needs no second read."""
    sweep_id = begin(db)
    read(db, 2, NOW + SECOND, "out_of_stock")
    list_all(db, sweep_id)
    for item_id in (1, 3):
        read(db, item_id, NOW + 30 * SECOND)
    summary = ended(db)
    assert (summary.items, summary.variants, summary.failed_items) == (3, 6, [])
    assert (summary.changed, summary.added, summary.removed, summary.missed) == (1, 0, 0, 1)


def test_a_read_counts_once(db: sqlite3.Connection) -> None:
    """Also if a second run of the list shows its item again, or the item is read again."""
    sweep_id = begin(db)
    read(db, 2, NOW + SECOND, "out_of_stock")
    list_all(db, sweep_id)
    sweep_pages.add_items(db, sweep_id, [1, 2, 3], run=2)
    for item_id in (1, 2, 3):
        read(db, item_id, NOW + 30 * SECOND, "out_of_stock" if item_id == 2 else "in_stock")
    assert (summary := ended(db)).items == 3
    assert (summary.variants, summary.changed) == (6, 1)


def test_a_read_that_began_before_the_sweep_does_not_count(db: sqlite3.Connection) -> None:
    """The item is still to be read, and its earlier changes are not those of the sweep."""
    read(db, 2, NOW - SECOND, "out_of_stock")
    sweep_id = begin(db)
    list_all(db, sweep_id)
    assert sweep_results.finish(db, NOW, POLICY, ()) == []
    for item_id in (1, 2, 3):
        read(db, item_id, NOW + 30 * SECOND, "out_of_stock" if item_id == 2 else "in_stock")
    summary = ended(db)
    assert (summary.items, summary.variants, summary.changed) == (3, 6, 0)


def test_an_operator_reads_the_whole_catalogue_beside_background_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While Dreamship answers the list slowly, a background call reads an item."""
    page = Shelves.page

    async def slow_page(source: Shelves, category_id: int | None, number: int) -> Page:
        await asyncio.sleep(6)
        return await page(source, category_id, number)

    monkeypatch.setattr(Shelves, "page", slow_page)

    async def script(day: Day) -> None:
        for _ in range(6):
            await asyncio.sleep(61.3)
            sweep_id, _ = await day.services.sweep_manager.request("operator")
            summary = await day.services.sweep_manager.wait(sweep_id)
            assert (summary.result, summary.items) == ("complete", 60)
            assert summary.variants == len(day.source.values)
            totals.append(summary)

    totals: list[SweepSummary] = []

    lived(script, items=60, background=15)
    # `calls` has only the calls that the sweep itself requested.
    assert all(50 <= summary.calls <= 61 for summary in totals)
    assert min(summary.calls for summary in totals) < 61
