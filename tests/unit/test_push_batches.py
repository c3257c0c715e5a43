"""The batches of a push: each change once and in order, and a full copy when the feed has a gap."""

from __future__ import annotations

import contextlib
import functools
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pushing import state_after, state_of

from syncd.core.listings import Listing
from syncd.core.pushes import END, Cursor, Step
from syncd.core.timestamps import from_text
from syncd.store import listings, pushes
from syncd.store.history import dicts
from syncd.store.listings import VERSION_KEY
from syncd.store.migrations import migrate
from syncd.store.rows import get_state, put_state

AT = "2026-11-27T12:00:00.000000Z"


class Mirror:
    """A mirror in memory with a feed, and a receiver that takes its batches."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db
        self.taken: list[dict[str, Any]] = []
        self.only = "all"
        pushes.identify(db, 1)

    def change(self, variant_id: int, value: str | None, *, sellable: bool) -> int:
        old = self.db.execute(
            "SELECT value, sellable FROM variants WHERE variant_id = ?", (variant_id,)
        ).fetchone() or (None, 0)
        (seq,) = self.db.execute(
            """INSERT INTO change_log (variant_id, old_availability, availability, old_sellable,
                   sellable, cause, rule, missed, during_downtime, occurred_at, recorded_at)
               VALUES (?, ?, ?, ?, ?, 'read', 'x', 0, 0, ?, ?) RETURNING seq""",
            (variant_id, old[0], value, old[1], sellable, AT, AT),
        ).fetchone()
        self.db.execute("DELETE FROM variants WHERE variant_id = ?", (variant_id,))
        self.db.execute(
            """INSERT INTO variants (variant_id, value, sellable, confirmed_at, changed_at, source,
                   rule, decided_at, last_change_seq)
               VALUES (?, ?, ?, ?, ?, 'read', 'x', ?, ?)""",
            (variant_id, value, sellable, AT, AT, AT, seq),
        )
        return int(seq)

    def step(self, most: int = 3, name: str = "shop") -> Step:
        step = pushes.next_step(
            self.db, name, pushes.load(self.db, name), only=self.only, most=most
        )
        pushes.save(self.db, step.cursor)
        return step

    def take(self, step: Step) -> None:
        self.taken.append(step.document())

    def take_all(self, most: int = 3) -> None:
        while True:
            before = pushes.load(self.db, "shop")
            step = self.step(most)
            if step.changes is not None:
                self.take(step)
                pushes.save(self.db, step.cursor.taken)
            elif step.cursor == before:
                return

    @property
    def availability(self) -> list[dict[str, Any]]:
        return dicts(self.db.execute("SELECT * FROM availability"))


@contextlib.contextmanager
def emptied() -> Iterator[Mirror]:
    """Give an empty mirror; to copy one is faster than to migrate one."""
    with (
        closing(sqlite3.connect(":memory:", isolation_level=None)) as db,
        closing(sqlite3.connect(":memory:")) as source,
    ):
        source.deserialize(empty_mirror())
        source.backup(db)
        yield Mirror(db)


@functools.cache
def empty_mirror() -> bytes:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        migrate(db)
        return db.serialize()


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with emptied() as one:
        yield one


def fill(mirror: Mirror, number: int) -> None:
    for variant_id in range(1, number + 1):
        mirror.change(variant_id, "in_stock", sellable=True)


def test_a_new_push_begins_with_a_full_copy(mirror: Mirror) -> None:
    """Rows have the number of their last change, so that an older change is recognised."""
    fill(mirror, 7)
    mirror.take_all()
    assert [
        (body["begin"], body["end"], [one["variant_id"] for one in body["changes"]])
        for body in mirror.taken
    ] == [
        (True, False, [1, 2, 3]),
        (False, False, [4, 5, 6]),
        (False, False, [7]),
        (False, True, []),
    ]
    assert mirror.taken[0]["changes"][0] == {
        "seq": 1,
        "variant_id": 1,
        "item_id": None,
        "skus": [],
        "old_availability": None,
        "availability": "in_stock",
        "old_sellable": 0,
        "sellable": 1,
        "reason": None,
        "cause": None,
        "missed": 0,
        "occurred_at": AT,
        "recorded_at": None,
    }


def test_an_empty_mirror_is_one_batch(mirror: Mirror) -> None:
    """With its begin and its end."""
    mirror.take_all()
    assert [(body["begin"], body["end"], body["changes"]) for body in mirror.taken] == [
        (True, True, [])
    ]
    fill(mirror, 1)
    mirror.take_all()
    assert [body["full"] for body in mirror.taken] == [True, False]


def test_a_change_during_a_copy_comes_after_it(mirror: Mirror) -> None:
    """The copy goes on from the last change before it."""
    fill(mirror, 4)
    first = mirror.step()
    mirror.take(first)
    pushes.save(mirror.db, first.cursor.taken)
    mirror.change(1, "gone", sellable=False)
    mirror.change(4, "late", sellable=False)
    mirror.take_all()
    assert [one["seq"] for one in mirror.taken[-1]["changes"]] == [5, 6]
    # The row of the copy had this change already: the receiver skips it.
    assert mirror.taken[1]["changes"][0]["seq"] == 6
    assert state_after(mirror.taken) == state_of(mirror.availability)


def test_a_pending_batch_stays_the_same(mirror: Mirror) -> None:
    """With its id, also if more changes have come since."""
    fill(mirror, 2)
    mirror.take_all()
    mirror.change(1, "a", sellable=False)
    first = mirror.step()
    mirror.change(2, "b", sellable=False)
    again = mirror.step()
    assert again == first
    assert again.cursor.message_id == first.cursor.message_id
    pushes.save(mirror.db, again.cursor.taken)
    assert mirror.step().cursor.message_id != first.cursor.message_id


def test_a_pending_batch_of_a_copy_keeps_its_end(mirror: Mirror) -> None:
    """Also if a reload has changed the size of batches."""
    fill(mirror, 5)
    first = mirror.step(3)
    again = mirror.step(1)
    assert again == first
    assert again.cursor.message_id == first.cursor.message_id


def test_a_position_in_the_future_is_no_position(mirror: Mirror) -> None:
    """The change with this number comes later, and those before it must not be lost."""
    fill(mirror, 2)
    mirror.take_all()
    pushes.go_on_from(mirror.db, "shop", "all", 4)
    fill(mirror, 2)
    step = mirror.step()
    assert step.cursor.copied == 0


def test_each_change_of_the_listings_has_a_version(mirror: Mirror) -> None:
    """A push of the listings gets a full copy for it."""
    fill(mirror, 2)
    mirror.only = "listings"
    at = from_text(AT)
    for number in (1, 2):
        listings.save(mirror.db, [Listing(f"SKU-{number}", number, None)], at)
        mirror.take_all()
    listings.delete(mirror.db, ["SKU-1"])
    mirror.take_all()
    copies = [body["changes"] for body in mirror.taken if body["changes"]]
    assert [[one["skus"] for one in changes] for changes in copies] == [
        [["SKU-1"]],
        [["SKU-1"], ["SKU-2"]],
        [["SKU-2"]],
    ]


def test_each_reason_for_a_full_copy(mirror: Mirror) -> None:
    """A gap in the feed, another mirror, another choice of variants, and an operator."""
    fill(mirror, 5)
    db = mirror.db

    def is_copy() -> bool:
        run = pushes.load(db, "shop")
        step = mirror.step()
        assert run is None or step.cursor.run > run.run or step.cursor.copied is None
        begins = step.cursor.copied == 0
        mirror.take_all()
        return begins

    assert is_copy()
    assert not is_copy()
    mirror.change(1, "x", sellable=False)
    newest = mirror.change(1, "y", sellable=False)
    db.execute("DELETE FROM change_log WHERE seq < ?", (newest,))  # retention
    assert is_copy()
    pushes.identify(db, 1)
    assert not is_copy()
    pushes.identify(db, 2)  # another file
    assert is_copy()
    mirror.only = "listings"
    assert is_copy()
    put_state(db, VERSION_KEY, "1")
    assert is_copy()
    mirror.only = "all"
    assert is_copy()
    put_state(db, VERSION_KEY, "2")
    assert not is_copy()
    pushes.go_on_from(db, "shop", "all", 0)
    assert is_copy()
    pushes.go_on_from(db, "shop", "all", newest + 1)
    assert is_copy()
    pushes.go_on_from(db, "shop", "all", newest)
    assert not is_copy()


def test_only_listings_get_their_changes(mirror: Mirror) -> None:
    """The position passes all others, and a SKU without a variant is in the copy."""
    fill(mirror, 4)
    mirror.only = "listings"
    mirror.db.executemany(
        "INSERT INTO skus (sku, variant_id, listed_at) VALUES (?, ?, '')",
        [("B", 2), ("A", 2), ("X", 99)],
    )
    mirror.take_all()
    assert [
        (one["variant_id"], one["skus"], one["sellable"], one["reason"])
        for body in mirror.taken
        for one in body["changes"]
    ] == [(2, ["A", "B"], 1, None), (99, ["X"], 0, "unknown")]
    for _ in range(3):
        mirror.change(1, "x", sellable=False)
        mirror.change(1, "y", sellable=False)
    mirror.take_all()
    cursor = pushes.load(mirror.db, "shop")
    assert cursor is not None
    assert cursor.seq == 10
    assert all(body["full"] for body in mirror.taken)
    mirror.change(2, "x", sellable=False)
    mirror.take_all()
    (one,) = mirror.taken[-1]["changes"]
    assert (one["seq"], one["skus"], one["reason"]) == (11, ["A", "B"], "value")


def test_reasons_are_those_of_the_view(mirror: Mirror) -> None:
    """In a copy and in changes: removed, verifying, of a blocked item, by its value."""
    fill(mirror, 5)
    for variant_id in (2, 3, 4, 5):
        mirror.change(variant_id, None if variant_id == 2 else "x", sellable=False)
    db = mirror.db
    db.execute("UPDATE variants SET conflicting_values = '[]' WHERE variant_id = 3")
    db.execute("INSERT INTO items (item_id, is_blocked) VALUES (9, 1)")
    db.execute("UPDATE variants SET item_id = 9 WHERE variant_id = 4")
    expected = {row["variant_id"]: row["reason"] for row in mirror.availability}
    assert expected == {1: None, 2: "removed", 3: "verifying", 4: "item", 5: "value"}
    mirror.take_all()
    pushes.go_on_from(db, "shop", "all", 1)
    mirror.take_all()
    for is_full in (True, False):
        found = {
            one["variant_id"]: one["reason"]
            for body in mirror.taken
            if body["full"] is is_full
            for one in body["changes"]
        }
        assert found | {1: None} == expected


def test_a_batch_costs_the_same_in_a_large_mirror(mirror: Mirror) -> None:
    """No statement reads all variants, as one that joins the view would."""
    bounds = {"after": 1, "until": 9, "limit": 3, "only": "all"}
    for sql in (pushes._CHANGES, *pushes._COPIES.values()):
        plan = [row[3] for row in mirror.db.execute(f"EXPLAIN QUERY PLAN {sql}", bounds)]
        scans = [step for step in plan if step.startswith(("SCAN", "MATERIALIZE"))]
        # Only the rows of the batch and the SKUs of one variant.
        assert set(scans) <= {"SCAN ids", "SCAN (subquery-1)", "SCAN (subquery-2)"}
        assert not any("AUTOMATIC" in step for step in plan)


def test_a_batch_is_bounded_in_bytes(mirror: Mirror) -> None:
    """A value may be as long as a delivery."""
    fill(mirror, 1)
    mirror.take_all()
    for _ in range(6):
        mirror.change(1, "x" * (pushes.MAX_BATCH_BYTES // 2), sellable=False)
    mirror.take_all(most=1000)
    sizes = [len(body["changes"]) for body in mirror.taken if not body["full"]]
    assert sum(sizes) == 6
    assert max(sizes) <= 3


def test_the_state_keeps_the_id_of_the_mirror(mirror: Mirror) -> None:
    """Until the file is another one."""
    first = pushes.mirror_id(mirror.db)
    pushes.identify(mirror.db, 1)
    assert pushes.mirror_id(mirror.db) == first == get_state(mirror.db, pushes.MIRROR_ID)
    pushes.identify(mirror.db, 2)
    assert pushes.mirror_id(mirror.db) != first


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("change"), st.integers(1, 6), st.sampled_from(["a", "b", None])),
        st.tuples(st.just("send"), st.integers(1, 4), st.just(None)),
        st.tuples(st.just("crash"), st.integers(1, 4), st.just(None)),
        st.tuples(st.just("prune"), st.integers(1, 3), st.just(None)),
        st.tuples(st.just("from"), st.integers(0, 9), st.just(None)),
    ),
    max_size=40,
)


@given(OPERATIONS)
def test_any_sequence_ends_with_an_equal_receiver(
    operations: list[tuple[str, int, str | None]],
) -> None:
    """Changes, sends, crashes between a send and its position, retention, and operators."""
    with emptied() as mirror:
        db = mirror.db
        sent: dict[str, list[int]] = {}
        for name, number, value in operations:
            if name == "change":
                mirror.change(number, value, sellable=value == "a")
            elif name in {"send", "crash"}:
                step = mirror.step(number)
                if step.changes is None:
                    continue
                mirror.take(step)
                ids = [one["seq"] for one in step.changes]
                if step.cursor.copied is None:
                    assert sent.setdefault(step.cursor.message_id, ids) == ids
                if name == "send":
                    pushes.save(db, step.cursor.taken)
            elif name == "prune":
                # Like retention, which keeps the last change that is too old.
                db.execute(
                    """DELETE FROM change_log WHERE seq < (SELECT max(seq) FROM change_log) - ?""",
                    (number,),
                )
            elif 0 < number <= pushes.newest_seq(db):
                continue  # an operator may leave out changes, and then the receiver lacks them
            else:
                pushes.go_on_from(db, "shop", "all", number)
        mirror.take_all()
        assert state_after(mirror.taken) == state_of(mirror.availability)
        cursor = pushes.load(db, "shop")
        assert isinstance(cursor, Cursor)
        assert (cursor.seq, cursor.copied, cursor.pending) == (pushes.newest_seq(db), None, None)
        assert END not in {one["variant_id"] for body in mirror.taken for one in body["changes"]}
