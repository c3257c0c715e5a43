"""A host that takes over copies the target, and publishes at once: no comparison of all rows."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import targets
from publishing import CopySink, Mirror, agrees_with_feed, is_equal, published, publishing, until
from targets import Database

from syncd.core.publishing import Source
from syncd.core.timestamps import to_text
from syncd.publish import sources, take_over
from syncd.publish.batch import Batch
from syncd.publish.lease import Terms
from syncd.publish.rounds import Rounds
from syncd.publish.target import Target
from syncd.publish.turn import Turn
from syncd.store.publishing import Head

pytestmark = pytest.mark.long

VARIANTS = 60


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with targets.running(targets.Postgresql) as one:
        yield one


@pytest.fixture
def first(tmp_path: Path, target: Database) -> Iterator[Mirror]:
    """Give the mirror of a host that has published it, and has released the lease."""
    with closing(Mirror(tmp_path / "a")) as one:
        make_old(one)
        for item in range(1, 4):
            one.item(item)
        for variant in range(1, VARIANTS + 1):
            one.change(variant, "in_stock", item_id=1 + variant % 3)
        one.sweep()
        sink = CopySink(one)
        with publishing(target.target_url(), one.path, terms=Terms(sink=sink)) as publisher:
            until(lambda: published(publisher, one) and is_equal(one, target))
        yield one


class Begun:
    """The comparisons of the whole target that begin."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.count = 0
        begin = Rounds._begin_copy

        def counted(one: Rounds, source: Source, head: Head) -> Batch:
            self.count += 1
            return begin(one, source, head)

        patch.setattr(Rounds, "_begin_copy", counted)


@pytest.fixture
def begun(first: Mirror, monkeypatch: pytest.MonkeyPatch) -> Begun:
    del first  # its own first fill is no comparison after a copy
    return Begun(monkeypatch)


@pytest.fixture
def second(tmp_path: Path) -> Iterator[Mirror]:
    with closing(Mirror(tmp_path / "b", swept=False)) as one:
        make_old(one)
        yield one


def make_old(mirror: Mirror) -> None:
    """Confirm items long ago: a publisher compares those of the last minutes anyway."""
    mirror.at -= timedelta(hours=3)


def terms(sink: CopySink) -> Terms:
    return Terms(is_standby=lambda: True, sink=sink)


def waiting() -> Turn:
    turn = Turn()
    turn.doubt()
    return turn


def seen_at(target: Database) -> object:
    (row,) = target.rows("freshness", order="1")
    return row["daemon_seen_at"]


def test_the_target_is_fresh_at_once(target: Database, second: Mirror, begun: Begun) -> None:
    """Its own sweep does not begin a comparison either: no row can be missing in the mirror."""
    before = seen_at(target)
    sink = CopySink(second)
    with publishing(target.target_url(), second.path, terms=terms(sink), turn=waiting()) as one:
        until(lambda: seen_at(target) != before)
        assert is_equal(second, target)
        assert len(second.view("availability")) == VARIANTS
        second.sweep()
        second.change(1, "out_of_stock", item_id=2)
        until(lambda: published(one, second) and is_equal(second, target))
    assert begun.count == 0
    assert agrees_with_feed(target)


def test_rows_that_the_target_lacks_or_has_differently_are_published(
    target: Database, first: Mirror, second: Mirror, begun: Begun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that only the mirror has, times in the future, deliveries during the copy."""
    monkeypatch.setattr(take_over, "SLICE", 7)
    monkeypatch.setattr("syncd.publish.rows.MOST_STORED", 20)
    # The rolling comparison would find within seconds what the copy forgets.
    monkeypatch.setattr("syncd.publish.rounds.COMPARE_EVERY_S", 3600.0)
    first.at = first.at.replace(year=first.at.year + 1)
    first.change(5, "out_of_stock", item_id=3)
    first.item(2, "ahead")
    with publishing(target.target_url(), first.path, terms=Terms(sink=CopySink(first))) as one:
        until(lambda: published(one, first) and is_equal(first, target))
    second.item(4)
    for variant in (VARIANTS + 1, VARIANTS + 9, 1000):
        second.change(variant, "in_stock", item_id=4)
    sink = CopySink(second)

    def on_range(number: int) -> None:
        # The early variants are in a range that was copied already, the late ones are not.
        if number == 6:
            # Its time is old, so only the row of the feed shows that its item has changed too.
            second.item(1, "changed with a variant during the copy")
            second.change(3, "back_soon", item_id=1)
            second.change(VARIANTS, "back_soon", item_id=1)
            second.item(3, "read during the copy", at=to_text(datetime.now(UTC)))

    sink.on_range = on_range
    with publishing(target.target_url(), second.path, terms=terms(sink), turn=waiting()) as one:
        until(lambda: published(one, second) and is_equal(second, target))
    assert sink.ranges > 6
    assert begun.count == 0
    assert agrees_with_feed(target)


def test_an_interrupted_copy_begins_again(
    target: Database, second: Mirror, begun: Begun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is lost after each range of the first copy, and before its batch."""
    monkeypatch.setattr(take_over, "SLICE", 20)
    monkeypatch.setattr("syncd.publish.publisher.FIRST_WAIT_S", 0.01)
    sink = CopySink(second)
    lost: list[int] = []

    def on_range(number: int) -> None:
        if len(lost) < 3 and number % 4 == 0:
            lost.append(number)
            raise RuntimeError("the process ends here")

    sink.on_range = on_range
    with publishing(target.target_url(), second.path, terms=terms(sink), turn=waiting()) as one:
        until(lambda: published(one, second) and is_equal(second, target))
    assert len(lost) == 3
    assert begun.count == 0
    assert len(second.view("availability")) == VARIANTS


@pytest.mark.parametrize("cause", ["many differences", "an unfinished comparison", "a fill"])
def test_otherwise_the_whole_target_is_compared(
    target: Database, second: Mirror, begun: Begun, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    if cause == "many differences":
        monkeypatch.setattr(take_over, "MOST_UNEQUAL", 1)
        for variant in (1001, 1002):
            second.change(variant, "in_stock")
    else:
        is_fill = cause == "a fill"
        values = {"is_filled": False} if is_fill else {"copy_table": "items"}
        with closing(Target(target.target_url(), "syncd")) as one, one.transaction() as db:
            sources.update(db, one.tables, "default", values)
    sink = CopySink(second)
    with publishing(target.target_url(), second.path, terms=terms(sink), turn=waiting()) as one_:
        until(lambda: published(one_, second) and is_equal(second, target))
    assert begun.count == 1


def test_another_writer_after_the_copy_is_not_undone(
    target: Database, first: Mirror, second: Mirror, begun: Begun
) -> None:
    """The process stops after its copy; another host publishes a change meanwhile."""
    sink = CopySink(second)
    finished = threading.Event()
    goes_on = threading.Event()
    finish = sink.finish

    def held_finish(held: Source) -> None:
        finish(held)
        finished.set()
        goes_on.wait(30)

    sink.finish = held_finish  # type: ignore[method-assign]
    with publishing(target.target_url(), second.path, terms=terms(sink), turn=waiting()) as one:
        until(finished.is_set)
        with closing(Target(target.target_url(), "syncd")) as other, other.transaction() as db:
            sources.grant(db, other.tables, "default", first.id or "")
        with publishing(target.target_url(), first.path, terms=Terms(sink=CopySink(first))) as old:
            first.change(1, "out_of_stock", item_id=2)
            until(lambda: published(old, first))
            goes_on.set()
            until(lambda: one.state.state in {"standby", "fenced"})
            assert is_equal(first, target)
        until(lambda: published(one, second) and is_equal(second, target))
        (row,) = (row for row in second.view("availability") if row["variant_id"] == 1)
        assert row["availability"] == "out_of_stock"
    assert begun.count == 0
