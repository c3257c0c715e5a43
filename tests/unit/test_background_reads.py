"""Which reads nobody waits for: hints of the list, catch-ups, and the item not read for longest."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

from syncd.core.catch_up import CatchUp
from syncd.core.jobs import Job, SweepCause
from syncd.core.list_hints import HintCounts
from syncd.core.model import (
    Delivery,
    ItemRead,
    SourceItem,
    SourceVariant,
    VariantDetails,
    VariantUpdate,
)
from syncd.core.policy import Policy
from syncd.core.timestamps import to_text
from syncd.store import catch_up, deliveries, job_queue, list_rows, reads, reapply_policy, sweeps
from syncd.store.job_queue import Choice
from syncd.sync.read_order import Turns

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
ORDER = Turns().order
POLICY = Policy(frozenset({"in_stock"}), MINUTE)
TABLES = (
    "sweep_items",
    "sweeps",
    "items",
    "variants",
    "refresh_queue",
    "list_rows",
    "state",
    "change_log",
)


@pytest.fixture
def db(memory: sqlite3.Connection) -> sqlite3.Connection:
    """Give a mirror with items 1 to 4, of which 1 was not read for longest."""
    for table in TABLES:
        memory.execute(f"DELETE FROM {table}")  # noqa: S608 - constants
    for item_id in range(1, 5):
        read(memory, item_id, NOW - (10 - item_id) * MINUTE)
    return memory


def read(db: sqlite3.Connection, item_id: int, at: datetime, value: str = "in_stock") -> None:
    """Apply a read of an item with one variant."""
    variant = SourceVariant(item_id * 10, value, VariantDetails("M"))
    one = ItemRead(item_id, f"Item {item_id}", (variant,), at, at)
    reads.apply(db, one, POLICY, now=at)
    list_rows.item_was_read(db, item_id, at)


def deliver(db: sqlite3.Connection, item_id: int, value: str, at: datetime) -> None:
    """Deliver a value of the variant of an item."""
    update = VariantUpdate(item_id * 10, item_id, value, at, VariantDetails())
    one = Delivery(f"{item_id} {at}", b"{}", at, "item-variant-availability-updated", update)
    deliveries.apply(db, [one], POLICY, now=at, source_now=at, missed_grace=10 * MINUTE)


def gone(db: sqlite3.Connection, item_id: int) -> None:
    """Apply a read of an item that does not exist any more."""
    at = NOW - 9 * MINUTE
    reads.apply(db, ItemRead(item_id, None, None, at, at), POLICY, now=at)


def sweep(db: sqlite3.Connection, cause: SweepCause = "schedule", *, is_paced: bool = True) -> int:
    """Begin a sweep of all items, without a list."""
    return sweeps.begin(
        db,
        cause,
        NOW,
        items=range(1, 5),
        is_catalogue=True,
        position=None,
        accepts_removals=False,
        is_paced=is_paced,
    )


def rows(db: sqlite3.Connection, at: datetime, **fingerprints: int) -> None:
    """Store the rows of the list: `_1=7` is the fingerprint 7 of item 1."""
    shown = [
        SourceItem(int(name[1:]), None, None, fingerprint=one) for name, one in fingerprints.items()
    ]
    list_rows.save(db, shown, at)


def next_job(
    db: sqlite3.Connection,
    *,
    due: bool = True,
    turns: Turns = Turns(),  # noqa: B008 - immutable
) -> Job | None:
    """Return the next job."""
    rest = turns.rest(is_background_due=due)
    return job_queue.next_job(
        db, NOW, (), turns.order, listing=True, rest=rest, choice=Choice(NOW - MINUTE)
    )


# The item that was not read for longest


def test_the_item_that_was_not_read_for_longest_is_next(db: sqlite3.Connection) -> None:
    """One after the other, and none before its turn."""
    for item_id in range(1, 5):
        assert next_job(db) == Job("background", item_id=item_id, is_background=True)
        read(db, item_id, NOW - 2 * MINUTE)


def test_between_two_background_calls_nothing_is_read(db: sqlite3.Connection) -> None:
    """Unless somebody waits for it."""
    assert next_job(db, due=False) is None
    sweep(db)
    assert next_job(db, due=False) is None
    sweeps.hurry(db)
    job = next_job(db, due=False)
    assert job is not None
    assert (job.kind, job.item_id, job.is_background) == ("stale", 1, False)


def test_a_small_catalogue_is_not_read_over_and_over(db: sqlite3.Connection) -> None:
    """Each item at most once a minute."""
    for item_id in range(1, 5):
        read(db, item_id, NOW - MINUTE + SECOND)
    assert next_job(db) is None


def test_items_that_are_gone_or_postponed_are_left_out(db: sqlite3.Connection) -> None:
    """Sweeps read them, and failed reads are repeated ever more rarely."""
    gone(db, 1)
    job_queue.postpone(db, 2, NOW + MINUTE)
    job = next_job(db)
    assert job is not None
    assert job.item_id == 3


def test_confirming_reads_go_first(db: sqlite3.Connection) -> None:
    """They keep to no background rate."""
    db.execute("INSERT INTO refresh_queue VALUES (4, NULL, ?1, ?1)", (to_text(NOW),))
    assert next_job(db) == Job("confirm", item_id=4)


def test_an_item_with_partial_answers_is_left_to_sweeps(db: sqlite3.Connection) -> None:
    """It would stay the one that was not read for longest, and outdated for ever."""
    rows(db, NOW - 5 * MINUTE, _1=1)
    rows(db, NOW - 4 * MINUTE, _1=2)
    variant = SourceVariant(10, "in_stock", VariantDetails("M"))
    for minutes in (3, 2):
        at = NOW - minutes * MINUTE
        part = ItemRead(1, "Item 1", (variant,), at, at, is_whole=False)
        reads.apply(db, part, POLICY, now=at)
        list_rows.item_was_read(db, 1, at)
        job = next_job(db)
        assert job is not None
        assert (job.kind, job.item_id) == ("background", 2)
    assert catch_up.count_outdated(db, NOW - 8 * MINUTE) == 0
    sweep_id = sweep(db)
    of_sweep = job_queue.next_job(db, NOW, (2, 3, 4), ORDER, listing=True, paced=True)
    assert of_sweep == Job("stale", item_id=1, sweep_id=sweep_id, is_background=True)


def test_named_items_are_the_only_ones_that_are_read(db: sqlite3.Connection) -> None:
    """Items that the configuration no longer names stay in the mirror."""
    rest = Turns().rest(is_background_due=True)
    job = job_queue.next_job(
        db, NOW, (), ORDER, listing=True, rest=rest, choice=Choice(only=[3, 4])
    )
    assert job is not None
    assert job.item_id == 3
    assert catch_up.count_outdated(db, NOW, [3, 4]) == 2


def test_a_sweep_in_the_background_has_its_turn_beside_confirming_reads(
    db: sqlite3.Connection,
) -> None:
    """One call of four, if a background call is due."""
    sweep(db)
    db.execute("INSERT INTO refresh_queue VALUES (4, NULL, ?1, ?1)", (to_text(NOW),))
    turns, kinds = Turns(), []
    for _ in range(8):
        paced = turns.is_for_sweeps
        job = job_queue.next_job(db, NOW, (), turns.order, listing=True, paced=paced)
        assert job is not None
        turns = turns.after(job.kind, is_background=False)
        kinds.append(job.kind)
    assert kinds.count("stale") == 2


# Catching up


def test_a_catch_up_lasts_until_everything_was_read_again(db: sqlite3.Connection) -> None:
    """Background calls repeat the reads that are older than the evidence."""
    evidence_at = NOW - 7 * MINUTE - SECOND
    assert catch_up.count_outdated(db, evidence_at) == 2
    for item_id in (1, 2):
        assert next_job(db) == Job("background", item_id=item_id, is_background=True)
        read(db, item_id, NOW - 3 * MINUTE)
    assert catch_up.count_outdated(db, evidence_at) == 0


def test_a_broken_item_does_not_keep_a_catch_up_open(db: sqlite3.Connection) -> None:
    """Its reads are repeated by other rules."""
    job_queue.postpone(db, 1, NOW)
    assert catch_up.count_outdated(db, NOW - 8 * MINUTE - SECOND) == 0


def test_a_change_without_a_delivery_is_evidence(db: sqlite3.Connection) -> None:
    """Not one while deliveries could not arrive, and not one that is too new."""
    read(db, 1, NOW - 5 * MINUTE, "out_of_stock")
    assert catch_up.newest_missed(db, None, NOW) == NOW - 5 * MINUTE
    assert catch_up.newest_missed(db, NOW - 5 * MINUTE, NOW) is None
    assert catch_up.newest_missed(db, None, NOW - 6 * MINUTE) is None
    db.execute("UPDATE change_log SET during_downtime = 1")
    assert catch_up.newest_missed(db, None, NOW) is None


def test_the_state_of_catching_up_survives_a_restart(db: sqlite3.Connection) -> None:
    """Also a state without times."""
    for state in (CatchUp(), CatchUp(NOW, True, NOW - MINUTE, 12.5, NOW)):  # noqa: FBT003
        catch_up.save(db, state)
        assert catch_up.load(db) == state


def test_a_late_delivery_is_remembered(db: sqlite3.Connection) -> None:
    """It was late only if a read had found its change `settle` before."""
    read(db, 1, NOW - 5 * MINUTE, "out_of_stock")
    seqs = [row[0] for row in db.execute("SELECT seq FROM change_log WHERE missed = 1")]
    catch_up.note_late(db, seqs, NOW - 5 * MINUTE + 59 * SECOND, MINUTE)
    assert catch_up.late_at(db) is None
    catch_up.note_late(db, seqs, NOW, MINUTE)
    assert catch_up.late_at(db) == NOW


# Hints


def test_an_item_whose_row_has_changed_is_read_first(db: sqlite3.Connection) -> None:
    """Once."""
    rows(db, NOW - 3 * MINUTE, _1=1, _3=3)
    assert next_job(db) == Job("background", item_id=1, is_background=True)
    rows(db, NOW - 2 * MINUTE, _1=1, _3=33)
    assert next_job(db) == Job("hinted", item_id=3, is_background=True)
    read(db, 3, NOW - 2 * MINUTE - SECOND)  # it began before the list was read
    assert next_job(db) == Job("hinted", item_id=3, is_background=True)
    read(db, 3, NOW - MINUTE)
    assert next_job(db) == Job("background", item_id=1, is_background=True)


def test_a_sweep_has_its_turn_beside_hints(db: sqlite3.Connection) -> None:
    """Every other background call."""
    sweep(db)
    rows(db, NOW - 3 * MINUTE, _3=3)
    rows(db, NOW - 2 * MINUTE, _3=33)
    first = next_job(db)
    assert first is not None
    assert first.kind == "hinted"
    second = next_job(db, turns=Turns().after("hinted", is_background=True))
    assert second is not None
    assert (second.kind, second.is_background) == ("stale", True)


def test_a_change_that_its_row_had_shown_was_predicted(db: sqlite3.Connection) -> None:
    """The row changed before the read."""
    rows(db, NOW - 5 * MINUTE, _1=1)
    rows(db, NOW - 4 * MINUTE, _1=2)
    read(db, 1, NOW - 3 * MINUTE, "out_of_stock")
    assert list_rows.counts(db) == HintCounts(checked=1, predicted=1, listed=1, flagged=1)


@pytest.mark.parametrize(("after", "predicted"), [(2, 1), (1, 0)])
def test_the_next_list_shows_whether_the_row_has_changed_too(
    db: sqlite3.Connection, after: int, predicted: int
) -> None:
    """If the read was faster than the list."""
    rows(db, NOW - 5 * MINUTE, _1=1)
    read(db, 1, NOW - 4 * MINUTE, "out_of_stock")
    assert list_rows.counts(db) == HintCounts()
    rows(db, NOW - 3 * MINUTE, _1=after)
    assert list_rows.counts(db) == HintCounts(1, predicted, listed=1, flagged=predicted)
    rows(db, NOW - 2 * MINUTE, _1=after)
    assert list_rows.counts(db) == HintCounts(1, predicted, listed=1, flagged=predicted)


@pytest.mark.parametrize("is_listed_first", [True, False])
def test_a_delivered_change_is_compared_with_its_row_once(
    db: sqlite3.Connection, is_listed_first: bool
) -> None:
    """The read that confirms it finds no change, and may come after a read of a changed row."""
    rows(db, NOW - 9 * MINUTE, _1=1)
    deliver(db, 1, "out_of_stock", NOW - 8 * MINUTE)
    if is_listed_first:
        rows(db, NOW - 7 * MINUTE, _1=2)
    for minutes in (6, 5, 4):
        read(db, 1, NOW - minutes * MINUTE, "out_of_stock")
    rows(db, NOW - 3 * MINUTE, _1=2)
    assert list_rows.counts(db) == HintCounts(1, 1, listed=1, flagged=1)


def test_a_new_policy_and_changes_before_the_first_list_are_not_compared(
    db: sqlite3.Connection,
) -> None:
    """A row cannot show them."""
    deliver(db, 1, "out_of_stock", NOW - 8 * MINUTE)
    rows(db, NOW - 7 * MINUTE, _1=1)
    sells_more = Policy(frozenset({"out_of_stock"}), MINUTE)
    assert reapply_policy.apply_slice(db, after=0, policy=sells_more, now=NOW) is not None
    read(db, 1, NOW - 6 * MINUTE, "out_of_stock")
    rows(db, NOW - 5 * MINUTE, _1=1)
    assert list_rows.counts(db) == HintCounts()


def test_rows_of_items_that_are_gone_are_deleted(db: sqlite3.Connection) -> None:
    """Their ids never come back."""
    rows(db, NOW, _1=1, _2=2)
    gone(db, 1)
    list_rows.prune(db)
    assert db.execute("SELECT item_id FROM list_rows").fetchall() == [(2,)]
