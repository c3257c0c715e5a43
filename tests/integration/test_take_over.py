"""A take-over: a mirror copies the rows of the target, and goes on from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace
from publishing import Mirror

from syncd.core.merge import ValueState, on_delivery
from syncd.core.policy import Policy
from syncd.core.publishing import PlainRow, Slice
from syncd.store import publishing, rows, take_over
from syncd.store.take_over import Origin

POLICY = Policy(sellable=frozenset({"in_stock"}), settle=timedelta(seconds=60))
NOW = datetime.now(UTC)
EVENT_AT = NOW - timedelta(hours=2)


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    with closing(Mirror(tmp_path / "m")) as one:
        one.item(1, read_at="2026-11-01T00:00:00.000000Z")
        one.change(1, "in_stock")
        one.change(2, "out_of_stock")
        one.change(3, "in_stock", conflicting_values='["out_of_stock"]')
        one.db.execute("UPDATE variants SET event_at = '2026-11-01T00:00:00.000000Z'")
        yield one


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Mirror]:
    with closing(Mirror(tmp_path / "other")) as one:
        yield one


def copy(
    source: Mirror, into: Mirror, change: Callable[[PlainRow], PlainRow] = lambda row: row
) -> None:
    newest = datetime(2026, 11, 1, tzinfo=UTC)
    origin = Origin(POLICY, NOW, newest)
    into.db.execute("BEGIN IMMEDIATE")
    for table in ("items", "variants"):
        found = publishing.range_of(source.db, table, None, 100).rows
        if table == "variants":
            found = [change(row) for row in found]
        take_over.put(into.db, Slice(table, found, is_range=True), origin)
    into.db.execute("COMMIT")


def test_the_rows_and_the_feed_are_those_of_the_target(mirror: Mirror, other: Mirror) -> None:
    """A row that the mirror has in another state is replaced; one that the target lacks stays."""
    other.change(1, "out_of_stock")
    other.change(9, "in_stock")
    copy(mirror, other)
    found = {row["variant_id"]: row for row in other.view("availability")}
    assert {key: row["availability"] for key, row in found.items()} == {
        1: "in_stock",
        2: "out_of_stock",
        3: "in_stock",
        9: "in_stock",
    }
    assert found[1]["sellable"]
    # The target does not have the conflicting value, so the variant is not sold.
    assert (found[3]["verifying"], found[3]["sellable"]) == (True, False)
    feed = {
        row[0]: row[1:]
        for row in other.db.execute("SELECT variant_id, availability, sellable FROM changes")
    }
    assert feed == {key: (row["availability"], row["sellable"]) for key, row in found.items()}


def test_a_second_copy_writes_nothing(mirror: Mirror, other: Mirror) -> None:
    """A standby that has waited for long copies a mirror that is almost its own."""
    mirror.db.execute("UPDATE variants SET event_at = NULL, conflicting_values = NULL")
    copy(mirror, other)
    before = list(other.db.execute("SELECT * FROM variants"))
    seqs = list(other.db.execute("SELECT count(*) FROM change_log"))
    copy(mirror, other)
    assert list(other.db.execute("SELECT * FROM variants")) == before
    assert list(other.db.execute("SELECT count(*) FROM change_log")) == seqs


def test_an_older_event_stays_older(mirror: Mirror, other: Mirror) -> None:
    """Dreamship repeats a delivery that the failed host had answered with an error."""
    copy(mirror, other)
    state = rows.variants_by_id(other.db, [1])[1].value_state
    assert state.event_at == datetime(2026, 11, 1, tzinfo=UTC)
    late = on_delivery(
        state,
        value="out_of_stock",
        event_at=datetime(2026, 10, 31, tzinfo=UTC),
        arrived_at=NOW,
        read_at=None,
        source_now=NOW,
    )
    assert late.rule == "contradicts"
    without = on_delivery(
        replace(ValueState("in_stock")),
        value="out_of_stock",
        event_at=NOW - timedelta(hours=1),
        arrived_at=NOW,
        read_at=None,
        source_now=NOW,
    )
    assert without.rule == "newer"


def test_a_recent_delivery_is_confirmed_again(mirror: Mirror, other: Mirror) -> None:
    """Its read may have been lost with the failed host."""
    copy(mirror, other)
    (row,) = other.db.execute("SELECT item_id, urgent_at IS NOT NULL FROM refresh_queue")
    assert row == (1, 1)
    assert rows.variants_by_id(other.db, [1])[1].value_state.delivered_at == NOW


def test_no_time_is_in_the_future(mirror: Mirror, other: Mirror) -> None:
    """The clock of the failed host was ahead by hours."""
    ahead = NOW + timedelta(hours=3)
    copy(mirror, other, lambda row: (*row[:9], ahead, ahead, *row[11:]))
    state = rows.variants_by_id(other.db, [1])[1]
    assert state.changed_at == NOW
    assert state.confirmed_at <= NOW
