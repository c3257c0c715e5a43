"""Any sequence of changes, batches, crashes and other mirrors: the target equals the mirror."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import targets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from publishing import CopySink, Mirror, agrees_with_feed, target_view
from targets import Database

from syncd.core.publishing import Source
from syncd.core.timestamps import to_text
from syncd.errors import TargetFenced
from syncd.publish import batch, rounds, sources
from syncd.publish.mirror import MirrorReader
from syncd.publish.rounds import Rounds
from syncd.publish.rows import TargetRows
from syncd.publish.take_over import Copy, copy_rows
from syncd.publish.target import Target
from syncd.store.pushes import mirror_id

pytestmark = pytest.mark.long

VALUES = ("in_stock", "out_of_stock", "backorder", None)
NUMBERS = count()

changes = st.tuples(
    st.just("change"), st.integers(0, 1), st.integers(1, 9), st.sampled_from(VALUES)
)
events = st.one_of(
    changes,
    changes,
    st.tuples(st.just("publish"), st.integers(0, 1), st.integers(1, 4)),
    st.tuples(st.just("crash"), st.integers(0, 1), st.booleans()),
    st.tuples(st.just("confirm"), st.integers(0, 1), st.integers(1, 3)),
    st.tuples(st.just("list"), st.integers(0, 1), st.sets(st.integers(1, 9), max_size=4)),
    st.tuples(st.just("prune"), st.integers(0, 1)),
    st.tuples(st.just("restore"), st.integers(0, 1)),
    st.tuples(st.just("sweep"), st.integers(0, 1)),
    st.tuples(st.just("grant"), st.integers(0, 1)),
    st.tuples(
        st.just("take over"),
        st.integers(0, 1),
        st.integers(1, 9),
        st.sampled_from(VALUES),
        st.integers(1, 30),
    ),
)


@pytest.fixture(scope="module", params=[targets.Postgresql, targets.Mariadb], ids=["pg", "maria"])
def target(request: pytest.FixtureRequest) -> Iterator[Database]:
    with targets.running(request.param) as server:
        database = server.database()
        with closing(Target(database.target_url(), "syncd")) as connection:
            connection.prepare()
        yield database


class Process:
    """One syncd that publishes a mirror, one transaction at a time."""

    def __init__(self, target: Target, mirror: Mirror, source: str) -> None:
        self.mirror = mirror
        self._target = target
        self._source = source
        self._rows = TargetRows(target.tables, source)
        self.start()

    def start(self) -> None:
        """Start again, without any memory of the last process."""
        self._epoch: int | None = None
        self._held: Source | None = None
        self._rounds = self._new_rounds(None)

    def _new_rounds(self, copy: Copy | None) -> Rounds:
        return Rounds(time.monotonic, lambda: datetime.now(UTC), copy=copy)

    def take_over(self, change: tuple[int, str | None], stops_at: int) -> None:
        """Take the lease and copy the rows of the target, while a late delivery is stored.

        The process ends after the range `stops_at`; most copies have fewer ranges.
        """
        self.start()
        with self._target.transaction() as db:
            tables = self._target.tables
            sources.grant(db, tables, self._source, self.mirror.id or "")
            held = sources.acquire(db, tables, self._source, self.mirror.id or "", None)
        cursor = held.cursor
        if cursor is None or cursor.mirror == held.holder:
            return
        sink = CopySink(self.mirror)

        def on_range(number: int) -> None:
            if number == 2:
                self.mirror.change(*change, item_id=1 + change[0] % 3)
            if number == stops_at:
                raise KeyboardInterrupt

        sink.on_range = on_range
        with contextlib.suppress(KeyboardInterrupt):
            copy = copy_rows(self._target, self._rows, held, sink)
            self._held, self._epoch = held, held.epoch
            is_usable = held.is_filled and held.copy is None
            self._rounds = self._new_rounds(copy if is_usable else None)

    def step(self, *, fails: bool = False, is_committed: bool = False) -> bool:
        """Publish one batch; return whether there was one.

        `fails`: the process ends before the commit, or, `is_committed`, just after it.
        """
        with closing(MirrorReader(self.mirror.path)) as reader:
            if self._held is None:
                mirror = reader.run(mirror_id) or ""
                with self._target.transaction() as db:
                    self._held = sources.acquire(
                        db, self._target.tables, self._source, mirror, self._epoch
                    )
                self._epoch = self._held.epoch
            held = self._held
            made = reader.run(lambda db: self._rounds.next(db, held))
        if made is None:
            return False
        try:
            with self._target.transaction() as db:
                written = batch.write(db, self._target.tables, self._rows, held, made)
                if fails and not is_committed:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            self.start()
            return True
        except (TargetFenced, batch.Moved):
            self._held = None
            raise
        if fails:
            self.start()
            return True
        self._rounds.written(written)
        self._held = written.source
        return True

    def drain(self) -> None:
        """Publish everything."""
        for _ in range(60):
            with contextlib.suppress(batch.Moved):
                if not self.step():
                    return
        raise AssertionError("there is always something to publish")


def happen(event: tuple[Any, ...], processes: list[Process], target: Target, source: str) -> None:
    name, number, *values = event
    process = processes[number]
    mirror = process.mirror
    if name == "publish":
        with contextlib.suppress(TargetFenced, batch.Moved):
            for _ in range(values[0]):
                process.step()
    elif name == "crash":
        with contextlib.suppress(TargetFenced, batch.Moved):
            process.step(fails=True, is_committed=values[0])
    elif name == "take over":
        process.take_over((values[0], values[1]), values[2])
    elif name == "restore":
        mirror.become_another()
        process.start()
    elif name == "grant":
        with target.transaction() as db:
            sources.grant(db, target.tables, source, mirror.id or "")
    else:
        write(mirror, name, values)


def write(mirror: Mirror, name: str, values: list[Any]) -> None:
    if name == "change":
        mirror.change(values[0], values[1], item_id=1 + values[0] % 3)
    elif name == "confirm":
        now = to_text(datetime.now(UTC))
        mirror.item(values[0], f"name {next(NUMBERS)}", at=now)
    elif name == "list":
        mirror.replace_skus(*((f"S{one}", one) for one in values[0]))
    elif name == "prune":
        mirror.db.execute(
            "DELETE FROM change_log WHERE seq < (SELECT max(seq) - 1 FROM change_log)"
        )
    else:
        assert name == "sweep"
        mirror.sweep()


def there(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if not row["removed"]]


@given(st.lists(events, max_size=25), st.integers(0, 1), st.integers(2, 4))
@settings(
    max_examples=20,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_history_ends_equal(
    target: Database, history: list[tuple[Any, ...]], last: int, size: int
) -> None:
    """With small ranges, so that a copy has many of them."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(rounds, "MOST_ROWS", size)
        patch.setattr(rounds, "MOST_CHANGES", size)
        patch.setattr(rounds, "MOST_ITEMS", 1)
        patch.setattr("syncd.publish.rows.MOST_STORED", size)
        patch.setattr(rounds, "COMPARE_EVERY_S", 1000.0)
        source = f"s{next(NUMBERS)}"
        with (
            closing(Target(target.target_url(), "syncd")) as connection,
            closing(Mirror(Path(folder) / "a")) as first,
            closing(Mirror(Path(folder) / "b", swept=False)) as second,
        ):
            mirrors = (first, second)
            for mirror in mirrors:
                # A publisher compares the items of the last minutes anyway.
                mirror.at -= timedelta(hours=3)
                for item in range(1, 4):
                    mirror.item(item)
            processes = [Process(connection, mirror, source) for mirror in mirrors]
            for event in history:
                happen(event, processes, connection, source)
            mirrors[last].sweep()
            with connection.transaction() as db:
                sources.grant(db, connection.tables, source, mirrors[last].id or "")
            processes[last].start()
            processes[last].drain()
            assert there(target_view(target, "availability", source)) == there(
                mirrors[last].view("availability")
            )
            # A mirror that never had listings leaves those of the target alone.
            if "list" in {event[0] for event in history if event[1] == last}:
                assert target_view(target, "listings", source) == mirrors[last].view("listings")
            (freshness,) = (
                row for row in target.rows("freshness", order="1") if row["source"] == source
            )
            assert freshness["daemon_seen_at"] is not None
    assert agrees_with_feed(target, source)
