"""The publication on real servers: the target equals the mirror in the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import targets
from publishing import (
    Mirror,
    agrees_with_feed,
    feed_state,
    is_equal,
    new_publisher,
    published,
    publishing,
    target_view,
    until,
    until_equal,
)
from targets import Database

from syncd.core.timestamps import to_text
from syncd.errors import TargetError, TargetFenced, TargetIncompatible
from syncd.publish import batch, rounds, sources
from syncd.publish.publisher import Publisher
from syncd.publish.rows import TargetRows
from syncd.publish.target import Target

pytestmark = pytest.mark.long


@pytest.fixture(scope="module", params=[targets.Postgresql, targets.Mariadb], ids=["pg", "maria"])
def server(request: pytest.FixtureRequest) -> Iterator[Any]:
    with targets.running(request.param) as one:
        yield one


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    with closing(Mirror(tmp_path / "m")) as one:
        one.item(1)
        one.item(2, "Mug", is_blocked=1, release_status="x")
        for variant in range(1, 21):
            one.change(variant, "in_stock", item_id=1 + variant % 2)
        yield one


def freshness(target: Database) -> dict[str, Any]:
    (row,) = target.rows("freshness", order="1")
    return row


# A name or a value may have any of these. JSON, SQL and the drivers treat some of them specially.
TEXT = "b ✓ 😀 'quoted' \"twice\" %s %% :rows ::text {x} $1 \\ \\u0041 \x01 \x7f \t\n \u2028 \uffff"


def test_the_views_of_the_target_are_those_of_the_mirror(mirror: Mirror, target: Database) -> None:
    """Every row with every column, while variants, items and SKUs change in every way."""
    mirror.replace_skus(("TEE-1", 1), ("gone", 999), ("Ünï ✓ 👕", 3))
    with publishing(target.target_url(), mirror.path) as one:
        until_equal(one, mirror, target)
        assert target.rows("changes") == []
        mirror.change(1, "out_of_stock")
        mirror.change(2, None, item_id=2)
        mirror.change(21, "in_stock", item_id=None)
        mirror.change(3, f"a\0{TEXT}", conflicting_values='["x"]')
        mirror.replace_skus(("TEE-1", 2), ("new", 21))
        until_equal_except_nul(one, mirror, target)
        mirror.change(3, "back")
        until_equal(one, mirror, target)
        state = {row["variant_id"]: row for row in target_view(target, "availability")}
        assert state[2]["reason"] == "removed"
        assert feed_state(target)[1] == ("out_of_stock", False)
        assert agrees_with_feed(target)
    assert [row["seq"] for row in target.rows("changes")] == [1, 2, 3, 4, 5]


def until_equal_except_nul(one: Publisher, mirror: Mirror, target: Database) -> None:
    """No column of PostgreSQL takes a NUL."""
    until(lambda: published(one, mirror) and len(target.rows("listings")) == 2)
    rows = {row["variant_id"]: row for row in target_view(target, "availability")}
    assert rows[3]["availability"] == f"a\ufffd{TEXT}"


def test_every_change_is_in_the_feed_once(mirror: Mirror, target: Database) -> None:
    """Also one that a later change of the same batch takes back."""
    with publishing(target.target_url(), mirror.path) as one:
        until_equal(one, mirror, target)
        mirror.db.execute("BEGIN")
        mirror.db.execute("COMMIT")
        for number in range(40):
            mirror.change(1 + number % 3, ("in_stock", "out_of_stock")[number // 3 % 2])
        until_equal(one, mirror, target)
    feed = target.rows("changes")
    wanted = mirror.db.execute(
        """SELECT seq, variant_id, availability, old_availability, cause FROM change_log
           WHERE seq > 20 ORDER BY seq"""
    ).fetchall()
    keys = ("mirror_seq", "variant_id", "availability", "old_availability", "cause")
    assert [tuple(row[key] for key in keys) for row in feed] == wanted
    assert [row["seq"] for row in feed] == list(range(1, 41))


def test_the_first_fill_is_no_freshness_until_it_is_whole(
    mirror: Mirror, target: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fail-safe of shops sells nothing meanwhile; after a kill, it goes on from there."""
    monkeypatch.setattr(rounds, "MOST_ROWS", 3)
    mirror.put(1, "in_stock", sellable=True)
    with closing(Target(target.target_url(), "syncd")) as connection:
        connection.prepare()
        one = new_publisher(target.target_url(), mirror.path)
        held = one._lease.acquire(connection, one._reader)
        made = rounds.Rounds(time.monotonic, lambda: datetime.now(UTC))
        rows = TargetRows(connection.tables, "default")
        seen = set()
        for number in range(100):
            if number % 3 == 2:
                # Another process with the same mirror.
                made = rounds.Rounds(time.monotonic, lambda: datetime.now(UTC))
            one_batch = one._reader.run(lambda db: made.next(db, held))  # noqa: B023
            if one_batch is None or (held.is_filled and not held.copy and number > 30):
                break
            with connection.transaction() as db:
                written = batch.write(db, connection.tables, rows, held, one_batch)
            made.written(written)
            held = written.source
            row = freshness(target)
            seen.add(held.is_filled)
            if not held.is_filled:
                times = ("oldest_confirmed_at", "last_sweep_finished_at", "daemon_seen_at")
                assert all(row[name] is None for name in times)
        assert seen == {False, True}
        one._reader.close()
    assert is_equal(mirror, target)
    assert freshness(target)["oldest_confirmed_at"] is not None
    assert target.rows("changes") == []


def test_the_sign_of_life_is_by_the_clock_of_the_database(
    mirror: Mirror, target: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes also if nothing changes, and if more items were confirmed than fit in a round."""
    monkeypatch.setattr(rounds, "CONFIRM_EVERY_S", 0.2)
    monkeypatch.setattr(rounds, "MOST_ITEMS", 1)
    with publishing(target.target_url(), mirror.path) as one:
        until(lambda: published(one, mirror) and freshness(target)["daemon_seen_at"])
        first = freshness(target)["daemon_seen_at"]
        until(lambda: freshness(target)["daemon_seen_at"] > first)
    now = "clock_timestamp()" if target.server.kind == "postgresql" else "utc_timestamp(6)"
    (row,) = target.query(f"SELECT {now} AS now")
    age = row["now"] - freshness(target)["daemon_seen_at"]
    assert timedelta() <= age < timedelta(seconds=10)


def test_an_unchanged_read_updates_one_row(
    mirror: Mirror, target: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The item; its variants follow in the view. A late commit and a changed clock lose nothing."""
    monkeypatch.setattr(rounds, "CONFIRM_EVERY_S", 0.1)
    monkeypatch.setattr(rounds, "COMPARE_EVERY_S", 1000.0)
    with publishing(target.target_url(), mirror.path) as one:
        until_equal(one, mirror, target)
        time.sleep(0.5)
        rows = one.state.rows
        mirror.item(1)
        until_equal(one, mirror, target)
        assert one.state.rows == rows + 1
        # A read that began five minutes ago, and was stored now.
        mirror.item(2, "Mug", at=to_text(datetime.now(UTC) - timedelta(minutes=5)))
        until(lambda: is_equal(mirror, target))
        # The clock was set back: this time is before the others.
        mirror.item(1, at=to_text(datetime.now(UTC) - timedelta(minutes=9)))
        until(lambda: is_equal(mirror, target))
        # The feed has no change for a detail of an item.
        mirror.put(5, "in_stock", sellable=True, item_id=2)
        mirror.db.execute("UPDATE variants SET color = 'blue' WHERE variant_id = 5")
        mirror.item(2, "Mug", at=to_text(datetime.now(UTC)))
        until(lambda: is_equal(mirror, target))


def test_an_edited_row_of_the_target_is_repaired(
    mirror: Mirror, target: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the rolling comparison; the feed gets a row for a change that matters to readers."""
    monkeypatch.setattr(rounds, "COMPARE_EVERY_S", 0.05)
    mirror.replace_skus(("A", 1), ("B", 2))
    with publishing(target.target_url(), mirror.path) as one:
        until_equal(one, mirror, target)
        target.execute(
            """UPDATE {at}variants SET sellable = false, color = 'x' WHERE variant_id = 3;
            DELETE FROM {at}variants WHERE variant_id = 4;
            UPDATE {at}items SET name = 'x';
            UPDATE {at}skus SET variant_id = 9; DELETE FROM {at}skus WHERE sku = 'A';
            INSERT INTO {at}skus (source, sku, variant_id, epoch, mirror_seq)
                VALUES ('default', 'zzz', 1, 1, 1), ('another', 'zzz', 1, 1, 1)"""
        )
        until(lambda: is_equal(mirror, target))
        assert {row["variant_id"] for row in target.rows("changes")} == {3, 4}
        assert agrees_with_feed(target)
    assert [row for row in target.rows("skus") if row["source"] == "another"]


def test_another_mirror_takes_over(
    mirror: Mirror, target: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its feed begins again; the target's goes on. Only its own sweep removes missing variants."""
    monkeypatch.setattr(rounds, "COMPARE_EVERY_S", 0.05)
    with publishing(target.target_url(), mirror.path) as one:
        until_equal(one, mirror, target)
        mirror.change(1, "out_of_stock")
        until_equal(one, mirror, target)
    with closing(Mirror(tmp_path / "other", swept=False)) as other:
        other.item(1)
        other.change(1, "in_stock")
        other.change(50, "in_stock")
        with publishing(target.target_url(), other.path) as second:
            # The lease of the first one is still fresh.
            until(lambda: second.state.state == "fenced")
            assert len(target.rows("availability")) == 20
            with (
                closing(Target(target.target_url(), "syncd")) as operator,
                operator.transaction() as db,
            ):
                sources.grant(db, operator.tables, "default", other.id or "")
            second.retry_now()
            until(lambda: published(second, other))
            state = {row["variant_id"]: row for row in target_view(target, "availability")}
            assert state[1]["sellable"]
            assert len(state) == 21
            assert not any(row["removed"] for row in state.values())
            other.sweep()
            other.change(51, "in_stock")
            until(
                lambda: (
                    published(second, other)
                    and sum(row["removed"] for row in target_view(target, "availability")) == 19
                )
            )
            assert second.state.epoch == 3
    assert agrees_with_feed(target)
    feed = target.rows("changes")
    assert [row["seq"] for row in feed] == list(range(1, len(feed) + 1))


def test_a_gap_in_the_feed_leads_to_a_comparison(mirror: Mirror, target: Database) -> None:
    """Retention has deleted the position, or the mirror was set back with its machine."""
    # No read confirms these items, which would repair their variants too.
    mirror.db.execute("UPDATE items SET confirmed_at = '2026-01-01T00:00:00.000000Z'")
    with publishing(target.target_url(), mirror.path) as one:
        until_equal(one, mirror, target)
    for variant in range(1, 6):
        mirror.change(variant, "out_of_stock")
    mirror.db.execute("DELETE FROM change_log WHERE seq < 24")
    with publishing(target.target_url(), mirror.path) as one:
        until_equal(one, mirror, target)
    assert agrees_with_feed(target)
    assert len(target.rows("changes")) == 5
    mirror.db.execute("UPDATE change_log SET recorded_at = ?", (mirror.tick(),))
    mirror.put(7, "other", sellable=False)
    with publishing(target.target_url(), mirror.path) as one:
        until_equal(one, mirror, target)
    assert agrees_with_feed(target)


def test_only_one_publisher_writes(mirror: Mirror, target: Database) -> None:
    """The fence is inside each transaction: the second process with the lease stops the first."""
    first = Target(target.target_url(), "syncd")
    with closing(first), publishing(target.target_url(), mirror.path) as one:
        until_equal(one, mirror, target)
        with first.transaction() as db:
            sources.grant(db, first.tables, "default", "another")
        mirror.change(1, "out_of_stock")
        until(lambda: one.state.state == "fenced")
        with pytest.raises(TargetFenced), first.transaction() as db:
            sources.locked(db, first.tables, "default", mirror.id or "", one.state.epoch or 0)
        assert feed_state(target) == {}


def test_the_lease_is_not_taken_inside_of_a_transaction(
    mirror: Mirror, target: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock of the row: the lease that was checked at the beginning holds until the commit."""
    monkeypatch.setattr("syncd.publish.target.LOCK_LIMIT_S", 0.3)
    with publishing(target.target_url(), mirror.path) as one:
        until_equal(one, mirror, target)
        epoch = one.state.epoch or 0
    first, second = (Target(target.target_url(), "syncd") for _ in range(2))
    with closing(first), closing(second), first.transaction() as db:
        sources.locked(db, first.tables, "default", mirror.id or "", epoch)
        with pytest.raises(TargetError) as caught, second.transaction() as other:
            sources.grant(other, second.tables, "default", "another")
        assert caught.value.is_conflict


def test_a_lease_that_is_old_is_taken(mirror: Mirror, target: Database) -> None:
    """By the clock of the database; its own is taken at once after a restart."""
    for epoch in (1, 2):
        with publishing(target.target_url(), mirror.path) as one:
            until_equal(one, mirror, target)
            assert one.state.epoch == epoch
    with closing(Target(target.target_url(), "syncd")) as connection:
        connection.prepare()
        for age, is_free in ((50, False), (70, True)):
            sql = "UPDATE {at}sources SET holder = 'x', lease_seen_at = {past}"
            target.execute(sql, past=age)
            with publishing(target.target_url(), mirror.path) as one:
                if is_free:
                    until_equal(one, mirror, target)
                else:
                    until(lambda: one.state.state == "fenced")


def test_an_older_row_never_replaces_a_newer_one(mirror: Mirror, target: Database) -> None:
    """The guard of each row by epoch and sequence, below the lock."""
    with publishing(target.target_url(), mirror.path) as one:
        until_equal(one, mirror, target)
    with closing(Target(target.target_url(), "syncd")) as connection:
        rows = TargetRows(connection.tables, "default")
        for epoch, seq, name, wanted in (
            (0, 999, "old epoch", "Tee"),
            (1, 0, "old sequence", "Tee"),
            (1, 999, "newer", "newer"),
            (2, 0, "newer epoch", "newer epoch"),
        ):
            row = (1, name, None, None, None, None, False, None)
            with connection.transaction() as db:
                rows.write(db, "items", [row], epoch=epoch, mirror_seq=seq)
            assert target.rows("items")[0]["name"] == wanted


def test_a_batch_for_another_position_is_refused(mirror: Mirror, target: Database) -> None:
    """If its commit had no answer, the same batch again would add its changes twice."""
    with closing(Target(target.target_url(), "syncd")) as connection:
        connection.prepare()
        one = new_publisher(target.target_url(), mirror.path)
        held = one._lease.acquire(connection, one._reader)
        made = rounds.Rounds(time.monotonic, lambda: datetime.now(UTC))
        first = one._reader.run(lambda db: made.next(db, held))
        assert first is not None
        rows = TargetRows(connection.tables, "default")
        with connection.transaction() as db:
            batch.write(db, connection.tables, rows, held, first)
        with pytest.raises(batch.Moved), connection.transaction() as db:
            batch.write(db, connection.tables, rows, held, first)
        one._reader.close()


def test_old_changes_are_deleted_and_the_newest_old_one_stays(
    mirror: Mirror, target: Database
) -> None:
    """As in the mirror: who finds the row of their position has missed nothing."""
    with publishing(target.target_url(), mirror.path) as one:
        until_equal(one, mirror, target)
        for variant in range(1, 11):
            mirror.change(variant, "out_of_stock")
        until_equal(one, mirror, target)
    sql = "UPDATE {at}change_log SET published_at = {past} WHERE seq <= 6"
    target.execute(sql, past=2 * 86_400)
    with publishing(target.target_url(), mirror.path, keep_changes_s=86_400):
        until(lambda: [row["seq"] for row in target.rows("changes")] == [6, 7, 8, 9, 10])


def test_a_newer_schema_is_refused(mirror: Mirror, target: Database) -> None:
    """Nothing is written into it."""
    with closing(Target(target.target_url(), "syncd")) as connection:
        connection.prepare()
        target.execute("INSERT INTO {at}schema_version VALUES (99)")
        with pytest.raises(TargetIncompatible, match="newer"):
            connection.prepare()
    with publishing(target.target_url(), mirror.path) as one:
        until(lambda: "a newer syncd made the tables" in (one.state.error or ""))
    assert target.rows("sources", order="1") == []


def test_two_sources_share_a_schema(mirror: Mirror, target: Database, tmp_path: Path) -> None:
    """Each has its own rows, its own feed and its own lease."""
    with closing(Mirror(tmp_path / "b")) as other:
        other.item(1)
        other.change(1, "in_stock")
        with (
            publishing(target.target_url(), mirror.path) as one,
            publishing(target.target_url(), other.path, source="b") as two,
        ):
            until_equal(one, mirror, target)
            until(lambda: published(two, other) and is_equal(other, target, "b"))
            other.change(1, None)
            mirror.change(1, "x")
            until(lambda: is_equal(mirror, target) and is_equal(other, target, "b"))
