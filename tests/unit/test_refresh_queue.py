"""The refresh queue is the same whether requests arrive in one batch or in many."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from syncd.core.changes import request_refresh
from syncd.core.records import ChangeSet
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
    waiting = memory.execute("SELECT * FROM refresh_queue").fetchall()
    memory.execute("DELETE FROM refresh_queue")
    rows.save(memory, together, NOW)
    assert sorted(waiting) == sorted(memory.execute("SELECT * FROM refresh_queue"))
