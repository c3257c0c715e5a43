"""A mirror that is set back under a running publisher, and a publisher that ends late."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import targets
from publishing import Mirror, is_equal, published, publishing, until
from targets import Database

from syncd.core.publishing import PlainRow, Source
from syncd.publish import sources
from syncd.publish.lease import Terms
from syncd.publish.publisher import Publisher
from syncd.publish.target import Target
from syncd.publish.turn import Turn


@pytest.fixture
def target() -> Iterator[Database]:
    with targets.running(targets.Postgresql) as server:
        yield server.database()


class _Sink:
    def put(self, *_: object) -> None:
        """Store nothing."""

    def note_held(self) -> None:
        """Store nothing."""

    def finish(self, held: Source) -> None:
        """Store nothing."""


def test_a_mirror_set_back_under_a_running_publisher_is_published(
    tmp_path: Path, target: Database
) -> None:
    """A machine goes back to a snapshot with its memory: the process keeps its epoch."""
    with closing(Mirror(tmp_path)) as mirror:
        mirror.item(1)
        mirror.change(1, "out_of_stock", item_id=1)
        old: PlainRow = mirror.db.execute("SELECT * FROM variants").fetchone()
        with publishing(target.target_url(), mirror.path) as one:
            until(lambda: published(one, mirror))
            for value in ("in_stock", "out_of_stock", "in_stock"):
                mirror.change(1, value, item_id=1)
            until(lambda: published(one, mirror) and is_equal(mirror, target))
            marks = ", ".join("?" * len(old))
            mirror.db.execute("BEGIN")
            mirror.db.execute("DELETE FROM change_log WHERE seq > 1")
            mirror.db.execute(f"REPLACE INTO variants VALUES ({marks})", old)  # noqa: S608
            mirror.db.execute("COMMIT")
            one.wake()
            until(lambda: is_equal(mirror, target))
            mirror.change(1, "in_stock", item_id=1)
            until(lambda: published(one, mirror) and is_equal(mirror, target))
            assert one.state.epoch == 2


def test_a_publisher_that_ends_late_changes_no_turn(tmp_path: Path, target: Database) -> None:
    """A reload removes the target while a transaction waits; afterwards another has the lease."""
    turn = Turn()
    with (
        closing(Mirror(tmp_path)) as mirror,
        closing(Target(target.target_url(), "syncd")) as other,
    ):
        mirror.item(1)
        terms = Terms(is_standby=lambda: True, has_held=True, sink=_Sink())
        one = Publisher(
            target.target_url(),
            schema="syncd",
            source="default",
            mirror=mirror.path,
            keep_changes_s=9e6,
            terms=terms,
            turn=turn,
        )
        one.start()
        until(lambda: published(one, mirror))
        with other.transaction() as db:
            sources.grant(db, other.tables, "default", "another")
            mirror.change(1, "in_stock", item_id=1)
            one.wake()
            until(lambda: _is_waiting(target))
            one.stop()
            one.join(0.1)
        one.join(30)
        assert one.state.state == "fenced"
        assert turn.is_active


def _is_waiting(target: Database) -> bool:
    return bool(target.query("SELECT 1 AS one FROM pg_locks WHERE NOT granted"))
