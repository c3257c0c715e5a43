"""The refresh queue is the same whether requests arrive in one batch or in many."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from syncd.core.changes import request_refresh
from syncd.core.records import ChangeSet
from syncd.core.timestamps import from_text, to_text
from syncd.store import rows

NOW = datetime(2026, 3, 1, 12, 1, tzinfo=UTC)
moments = st.integers(0, 5).map(lambda seconds: NOW + timedelta(seconds=seconds))


@given(
    requests=st.lists(st.tuples(st.sampled_from([7, 8]), st.none() | moments, moments), max_size=6)
)
def test_requests_of_many_batches_merge_as_those_of_one(
    memory: sqlite3.Connection, requests: list[tuple[int, datetime | None, datetime]]
) -> None:
    """The first sets the start, a conflict hurries it, the last sets the end; clocks may jump."""
    together = ChangeSet()
    memory.execute("DELETE FROM refresh_queue")
    for request in requests:
        request_refresh(together, *request)
        apart = ChangeSet()
        request_refresh(apart, *request)
        rows.save(memory, apart, NOW)
    apart_rows = _queue(memory)
    memory.execute("DELETE FROM refresh_queue")
    rows.save(memory, together, NOW)
    together_rows = _queue(memory)
    assert apart_rows.keys() == together_rows.keys()
    for item_id, (urgent_at, settle_at, final_at) in apart_rows.items():
        assert (urgent_at, settle_at) == together_rows[item_id][:2]
        at_least = from_text(together_rows[item_id][2])
        spare = rows.SPARE_SHARE * (at_least - NOW)
        assert at_least <= from_text(final_at) <= at_least + spare


def test_one_request_has_no_spare_time(memory: sqlite3.Connection) -> None:
    """A single delivery is confirmed by a single read."""
    memory.execute("DELETE FROM refresh_queue")
    settle_at = NOW + timedelta(seconds=60)
    _request(memory, settle_at)
    assert _queue(memory)[7] == (None, to_text(settle_at), to_text(settle_at))


def test_deliveries_of_a_busy_item_rarely_write_the_queue(memory: sqlite3.Connection) -> None:
    """The last read is always late enough, and a quarter of `settle` later at most."""
    memory.execute("DELETE FROM refresh_queue")
    written = 0
    for second in range(30):
        settle_at = NOW + timedelta(seconds=60 + second)
        before = memory.total_changes
        _request(memory, settle_at, now=NOW + timedelta(seconds=second))
        written += memory.total_changes > before
        final_at = from_text(_queue(memory)[7][2])
        assert settle_at <= final_at <= settle_at + timedelta(seconds=15)
    assert written <= 4


def _request(memory: sqlite3.Connection, settle_at: datetime, now: datetime = NOW) -> None:
    change_set = ChangeSet()
    request_refresh(change_set, 7, None, settle_at)
    rows.save(memory, change_set, now)


def _queue(memory: sqlite3.Connection) -> dict[int, tuple[str | None, str, str]]:
    return {row[0]: row[1:] for row in memory.execute("SELECT * FROM refresh_queue")}
