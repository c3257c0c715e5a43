"""Mirrors that fail or are set back under a running publisher, and a publisher that ends late."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import targets
from publishing import (
    CopySink,
    Mirror,
    is_equal,
    new_publisher,
    published,
    publishing,
    until,
    until_equal,
)
from targets import Database

from syncd.core.publishing import PlainRow
from syncd.errors import MirrorUnavailable
from syncd.publish import publisher, sources
from syncd.publish.lease import Terms
from syncd.publish.target import Target
from syncd.publish.turn import Turn
from syncd.store.take_over import Stored


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with targets.running(targets.Postgresql) as one:
        yield one


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
            until_equal(one, mirror, target)
            marks = ", ".join("?" * len(old))
            mirror.db.execute("BEGIN")
            mirror.db.execute("DELETE FROM change_log WHERE seq > 1")
            mirror.db.execute(f"REPLACE INTO variants VALUES ({marks})", old)  # noqa: S608
            mirror.db.execute("COMMIT")
            one.wake()
            until(lambda: is_equal(mirror, target))
            mirror.change(1, "in_stock", item_id=1)
            until_equal(one, mirror, target)
            assert one.state.epoch == 2


def test_a_publisher_that_ends_late_changes_no_turn(tmp_path: Path, target: Database) -> None:
    """A reload removes the target while a transaction waits; afterwards another has the lease."""
    turn = Turn()
    with (
        closing(Mirror(tmp_path)) as mirror,
        closing(Target(target.target_url(), "syncd")) as other,
    ):
        mirror.item(1)
        terms = Terms(is_standby=lambda: True, has_held=True, sink=CopySink(mirror))
        one = new_publisher(target.target_url(), mirror.path, terms=terms, turn=turn)
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


def test_a_host_serves_no_longer_soon_after_a_take_over(
    tmp_path: Path, target: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although it has nothing to publish: it must not take deliveries until its next round."""
    monkeypatch.setattr("syncd.publish.rounds.COMPARE_EVERY_S", 3600.0)
    turn = Turn()
    with (
        closing(Mirror(tmp_path)) as mirror,
        closing(Target(target.target_url(), "syncd")) as other,
    ):
        mirror.item(1)
        sink = CopySink(mirror)
        terms = Terms(is_standby=lambda: True, has_held=True, sink=sink, lease_s=3600.0)
        with publishing(target.target_url(), mirror.path, terms=terms, turn=turn) as one:
            until(lambda: published(one, mirror) and turn.is_active)
            with other.transaction() as db:
                sources.grant(db, other.tables, "default", "another")
            until(lambda: not turn.is_active)


def test_a_host_that_cannot_write_its_mirror_waits_in_its_turn(
    tmp_path: Path, target: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not take the lease before it can write, and not from a host that serves."""
    monkeypatch.setattr(publisher, "MIRROR_RETRY_S", 0.05)
    broken = Event()
    turns = Turn(), Turn()
    with closing(Mirror(tmp_path / "a")) as mirror, closing(Mirror(tmp_path / "b")) as other:
        mirror.item(1)
        mirror.change(1, "in_stock")
        sink = CopySink(mirror)

        def probe() -> None:
            if broken.is_set():
                raise MirrorUnavailable("the disk is full")

        sink.probe = probe  # type: ignore[method-assign]
        terms = Terms(
            is_standby=lambda: True,
            sink=sink,
            lease_s=2.0,
            unwritable_s=lambda: 1.5 * broken.is_set(),
        )
        waiting = Terms(is_standby=lambda: True, sink=CopySink(other), lease_s=2.0)
        url = target.target_url()
        with publishing(url, mirror.path, terms=terms, turn=turns[0]) as one:
            until(lambda: published(one, mirror))
            broken.set()
            until(lambda: not turns[0].is_active)
            until(lambda: "the disk is full" in (one.state.error or ""))
            broken.clear()
            until(lambda: turns[0].is_active and one.state.epoch == 2)
            broken.set()
            until(lambda: not turns[0].is_active)
            turns[1].doubt()
            with publishing(url, other.path, terms=waiting, turn=turns[1]) as second:
                until(lambda: turns[1].is_active and published(second, other))
                broken.clear()
                until(lambda: one.state.state == "fenced")
                assert [turn.is_active for turn in turns] == [False, True]
            until(lambda: turns[0].is_active)
            until_equal(one, mirror, target)


def test_a_host_whose_disk_is_full_during_the_copy_releases_the_lease(
    tmp_path: Path, target: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "MIRROR_RETRY_S", 0.05)
    with closing(Mirror(tmp_path / "a")) as mirror, closing(Mirror(tmp_path / "b")) as other:
        mirror.item(1)
        mirror.change(1, "in_stock")
        with publishing(
            target.target_url(), mirror.path, terms=Terms(sink=CopySink(mirror))
        ) as one:
            until(lambda: published(one, mirror))
        sink = CopySink(other)

        def probe() -> None:
            raise MirrorUnavailable("the disk is full")

        def put(*_: object) -> Stored:
            raise MirrorUnavailable("the disk is full")

        sink.probe = probe  # type: ignore[method-assign]
        sink.put = put  # type: ignore[method-assign, assignment]
        turn = Turn()
        turn.doubt()
        terms = Terms(is_standby=lambda: True, sink=sink)
        with publishing(target.target_url(), other.path, terms=terms, turn=turn) as second:
            until(lambda: "the disk is full" in (second.state.error or ""))
            assert not turn.is_active
            (row,) = target.query("SELECT holder, epoch FROM syncd.sources")
            assert (row["holder"], row["epoch"]) == (None, 2)


def _is_waiting(target: Database) -> bool:
    return bool(target.query("SELECT 1 AS one FROM pg_locks WHERE NOT granted"))
