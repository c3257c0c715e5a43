"""What waits to be asked is the same whether it was told in one batch or in many."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.observations.noting import ask
from syncd.state import Writes
from syncd.store import rows
from syncd.store.migrations import migrate

NOW = datetime(2026, 3, 1, 12, 1, tzinfo=UTC)
moments = st.integers(0, 5).map(lambda seconds: NOW + timedelta(seconds=seconds))


@pytest.fixture(scope="module")
def mirror() -> Iterator[sqlite3.Connection]:
    """Give an empty mirror in memory."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrate(connection)
        yield connection


@given(told=st.lists(st.tuples(st.sampled_from([7, 8]), st.none() | moments, moments), max_size=6))
def test_questions_of_many_batches_are_asked_as_those_of_one(
    mirror: sqlite3.Connection, told: list[tuple[int, datetime | None, datetime]]
) -> None:
    """The first says when, a doubt hurries it, the last says until when; clocks may be set back."""
    together = Writes()
    mirror.execute("DELETE FROM refresh_queue")
    for question in told:
        ask(together, *question)
        apart = Writes()
        ask(apart, *question)
        rows.write_observed(mirror, apart, NOW)
    waiting = mirror.execute("SELECT * FROM refresh_queue").fetchall()
    mirror.execute("DELETE FROM refresh_queue")
    rows.write_observed(mirror, together, NOW)
    assert sorted(waiting) == sorted(mirror.execute("SELECT * FROM refresh_queue"))
