"""The pure rules of the publication: the differences, the rows of the feed, and the lease."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from syncd.core.lease import lease_step
from syncd.core.publishing import (
    COLUMNS,
    COPIED,
    ORDER,
    Change,
    Cursor,
    Freshness,
    PlainRow,
    Position,
    Slice,
    Source,
    Table,
    clean,
    compare,
    feed,
    freshness_to_show,
    needs_copy,
    next_position,
    removed,
)

ONE: tuple[Table, ...] = ("variants",)
AT = datetime(2026, 11, 28, tzinfo=UTC)
SOURCE = Source(
    source="default",
    cursor=Cursor("m", 7, AT),
    seq=3,
    is_filled=True,
    copy=None,
    is_swept=True,
    confirmed_until=AT,
    listings_version=1,
    holder="m",
    epoch=5,
    is_granted=False,
    lease_seen_at=AT,
    freshness=Freshness(None, None, AT, "unknown"),
    daemon_seen_at=AT,
)


def variant(variant_id: int, value: str | None, *, sellable: bool = False) -> PlainRow:
    values: dict[str, Any] = dict.fromkeys(COLUMNS["variants"])
    values |= {"variant_id": variant_id, "availability": value, "sellable": sellable}
    values |= {"changed_at": AT, "verifying": False, "follows_item": True}
    return tuple(values.values())


def change(seq: int, old: str | None, new: str | None) -> Change:
    sold = old == "in", new == "in"
    return Change(
        seq, 1, None, old, new, *sold, "webhook", missed=True, occurred_at=AT, recorded_at=AT
    )


def test_a_comparison_finds_the_differences() -> None:
    """Changed, added and lacking rows; the end is that of the range."""
    part = Slice(
        "variants", [variant(1, "a"), variant(2, "b"), variant(3, "c")], is_range=True, end=3
    )
    stored = [variant(1, "a"), variant(2, "x"), variant(4, "d")]
    found = compare(part, stored[:2], is_truncated=False)
    assert [row[0] for row in found.changed] == [2, 3]
    assert (found.gone, found.end) == ([], 3)
    assert compare(part, stored, is_truncated=False).gone == [stored[2]]
    assert compare(replace(part, is_range=False), stored, is_truncated=False).gone == []


@given(
    st.sets(st.integers(1, 60)), st.sets(st.integers(1, 60)), st.integers(1, 7), st.integers(2, 9)
)
def test_ranges_compare_every_row_once(
    ours: set[int], theirs: set[int], most: int, most_stored: int
) -> None:
    """With any rows on both sides, and with any number of rows read at one time."""
    mirror = {one: variant(one, "new") for one in ours}
    target = {one: variant(one, "old") for one in theirs}
    position: Position | None = Position("variants")
    for _ in range(200):
        assert position is not None
        after = position.after if isinstance(position.after, int) else 0
        rows = [mirror[one] for one in sorted(mirror) if one > after][: most + 1]
        end = rows[most - 1][0] if len(rows) > most else None
        rows = rows[:most]
        there = [target[o] for o in sorted(target) if o > after and (end is None or o <= end)]
        part = Slice("variants", rows, is_range=True, after=after, end=end)
        found = compare(part, there[:most_stored], is_truncated=len(there) >= most_stored)
        # A row after the end was not compared: its row in the target is not known.
        assert all(found.end is None or row[0] <= found.end for row in found.changed)
        target |= {row[0]: row for row in found.changed}
        for row in found.gone:
            del target[row[0]]
        position = next_position(position, found.end, ONE)
        if position is None:
            break
    assert target == mirror


def test_the_feed_gets_each_change_that_leads_from_one_row_to_the_other() -> None:
    """Also if the last one takes the first one back."""
    changes = [change(8, "in", "out"), change(9, "out", "in")]
    row = variant(1, "in", sellable=True)
    assert feed(row, row, changes, None) == changes
    assert feed(None, row, [change(8, None, "in")], None) == [change(8, None, "in")]


def test_otherwise_the_feed_gets_the_difference() -> None:
    """With the cause and the times of the last change of the mirror, if it has one."""
    old, new = variant(1, "in", sellable=True), variant(1, "out")
    last = change(9, "other", "out")
    (found,) = feed(old, new, [last], last)
    assert (found.old_availability, found.availability) == ("in", "out")
    assert (found.old_sellable, found.sellable) == (True, False)
    assert (found.seq, found.cause, found.missed) == (9, "webhook", True)
    (found,) = feed(old, new, [], None)
    assert (found.seq, found.cause, found.occurred_at) == (0, "read", AT)
    assert feed(old, old, [], last) == []
    assert feed(None, variant(1, None), [], None) == []


def test_a_variant_that_the_mirror_lacks_is_removed() -> None:
    """The row stays, as in the mirror."""
    later = AT + timedelta(1)
    row = dict(
        zip(COLUMNS["variants"], removed(variant(1, "in", sellable=True), later), strict=True)
    )
    assert (row["availability"], row["sellable"], row["confirmed_at"]) == (None, False, later)


def test_a_copy_goes_through_its_tables() -> None:
    """Items first, because the views join them."""
    position: Position | None = Position(COPIED[0])
    seen = []
    while position is not None:
        seen.append(position.table)
        position = next_position(position, None, COPIED)
    assert seen == ["items", "variants"]
    assert next_position(Position("variants", 5), 9, ORDER) == Position("variants", 9)
    assert next_position(Position("variants", 5), None, ORDER) == Position("skus")


@pytest.mark.parametrize(
    ("changes", "epoch", "age_s", "step"),
    [
        ({}, 5, 0, "keep"),
        ({"holder": None}, None, None, "take"),
        ({}, None, 0, "take"),  # its own, after a start
        ({}, 4, 0, "wait"),  # another process with the same mirror
        ({"is_granted": True}, 4, 0, "take"),
        ({"holder": "x"}, None, 59, "wait"),
        ({"holder": "x"}, 5, 60, "take"),
        ({"holder": "x", "is_granted": True}, None, 1, "wait"),
        ({"holder": "x"}, None, -3600, "take"),  # the clock of the target was set back
        ({"holder": "x"}, None, None, "take"),
    ],
)
def test_the_next_step_of_a_publisher(
    changes: dict[str, Any], epoch: int | None, age_s: float | None, step: str
) -> None:
    """One at a time."""
    assert lease_step(replace(SOURCE, **changes), "m", epoch, age_s) == step


def test_when_the_whole_target_is_compared() -> None:
    """At the start, after a gap, and once the mirror has completed a sweep of its own."""
    copying = replace(SOURCE, copy=Position("items"), is_swept=False)

    def needs(source: Source, mirror: str = "m", **states: bool) -> bool:
        return needs_copy(source, mirror, **{"has_change": True, "is_swept": True} | states)

    assert needs(replace(SOURCE, cursor=None))
    assert needs(SOURCE, "another")
    assert needs(SOURCE, has_change=False)
    assert needs(replace(SOURCE, is_swept=False))
    assert not needs(SOURCE)
    assert not needs(copying)
    assert not needs(replace(SOURCE, is_swept=False), is_swept=False)


def test_rows_of_an_earlier_mirror_keep_their_age() -> None:
    """Until this mirror has completed a sweep of its own."""
    now = Freshness(None, AT, AT + timedelta(1), "healthy")
    assert freshness_to_show(SOURCE, now).oldest_confirmed_at == AT + timedelta(1)
    assert freshness_to_show(replace(SOURCE, is_swept=False), now).oldest_confirmed_at == AT


def test_text_that_a_server_refuses_is_replaced() -> None:
    """PostgreSQL takes no NUL, and no server takes any length."""
    assert len(clean("x" * 10**7) or "") < 100_100
    assert clean("a\0b") == "a\ufffdb"
    assert clean(None) is None


def test_a_daemon_without_a_target_imports_no_driver() -> None:
    """Neither SQLAlchemy nor psycopg nor PyMySQL."""
    code = (
        "import sys, syncd.daemon.app, syncd.cli.doctor, syncd.cli.publish; "
        "print([name for name in ('sqlalchemy', 'psycopg', 'pymysql') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
