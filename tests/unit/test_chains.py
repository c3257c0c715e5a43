"""The chains of a variant have all its deliveries and changes, in the order of their ids."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core import explain
from syncd.core.model import Delivery, VariantDetails, VariantUpdate
from syncd.core.policy import Policy
from syncd.core.timestamps import to_text
from syncd.store import chains, deliveries, replay, time_ranges
from syncd.store.history import deliveries as stored_deliveries
from syncd.store.history import variant_history
from syncd.store.migrations import migrate

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
POLICY = Policy(frozenset({"in_stock"}), settle=timedelta(seconds=60))


OPENED = ExitStack()


@pytest.fixture(autouse=True)
def closed_mirrors() -> Iterator[None]:
    """Close every mirror of a test: a property test opens one for each example."""
    with OPENED:
        yield


def mirror() -> sqlite3.Connection:
    db = OPENED.enter_context(closing(sqlite3.connect(":memory:", isolation_level=None)))
    migrate(db)
    return db


def delivery(variant_id: int, event_id: str, value: str | None, at: datetime) -> Delivery:
    update = VariantUpdate(variant_id, 70, value, at, VariantDetails())
    return Delivery(event_id, event_id.encode(), at, "item-variant-availability-updated", update)


def apply(db: sqlite3.Connection, batch: list[Delivery], now: datetime) -> list[str]:
    done = deliveries.apply(
        db, batch, POLICY, now=now, source_now=now, missed_grace=timedelta(minutes=10)
    )
    return [one.outcome for one in done]


def chain(db: sqlite3.Connection, variant_id: int) -> list[int]:
    """Follow the deliveries of a variant, the newest first."""
    found: list[int] = []
    (next_id,) = db.execute(
        "SELECT last_delivery_id FROM variants WHERE variant_id = ?", (variant_id,)
    ).fetchone()
    while next_id is not None:
        found.append(next_id)
        (next_id,) = db.execute(
            "SELECT previous_delivery_id FROM deliveries WHERE delivery_id = ?", (next_id,)
        ).fetchone()
    return found


EVENTS = st.lists(
    st.tuples(st.sampled_from([1, 2, 3]), st.sampled_from(["in_stock", "out_of_stock", None])),
    max_size=30,
)


@given(EVENTS, st.integers(1, 7))
def test_a_chain_has_every_delivery_and_change_of_its_variant(
    events: list[tuple[int, str | None]], size: int
) -> None:
    """However the deliveries are spread over batches."""
    db = mirror()
    batch = [
        delivery(variant_id, f"e{number}", value, NOON + timedelta(seconds=number))
        for number, (variant_id, value) in enumerate(events)
    ]
    for start in range(0, len(batch), size):
        apply(db, batch[start : start + size], NOON + timedelta(minutes=1))
    for variant_id in {variant_id for variant_id, _ in events}:
        stored = db.execute(
            "SELECT delivery_id FROM deliveries WHERE variant_id = ? ORDER BY 1 DESC",
            (variant_id,),
        ).fetchall()
        assert chain(db, variant_id) == [row[0] for row in stored]
        changes = db.execute(
            """SELECT seq, lag(seq) OVER (ORDER BY seq), previous_seq FROM change_log
               WHERE variant_id = ? ORDER BY seq""",
            (variant_id,),
        ).fetchall()
        assert all(before == previous for _, before, previous in changes)
        (last,) = db.execute(
            "SELECT last_change_seq FROM variants WHERE variant_id = ?", (variant_id,)
        ).fetchone()
        assert last == (changes[-1][0] if changes else None)


def test_the_history_has_the_delivery_that_set_the_value_and_the_rejected_ones() -> None:
    """However many newer deliveries only repeat the value."""
    db = mirror()
    apply(db, [delivery(1, "first", "in_stock", NOON)], NOON)
    apply(db, [delivery(1, "late", "out_of_stock", NOON - timedelta(hours=1))], NOON)
    db.execute("UPDATE deliveries SET received_at = ?", (to_text(NOON),))
    for number in range(20):
        at = NOON + timedelta(seconds=number + 1)
        apply(db, [delivery(1, f"e{number}", "in_stock", at)], at)
    history = variant_history(db, 1)
    assert [row["delivery_id"] for row in history.deliveries] == [*range(22, 12, -1), 2, 1]
    assert any(line.startswith("Delivery 1 set that at") for line in explain.sentences(history))
    rejected = [row for row in explain.decisions(history) if row["rule"] == "contradicts"]
    assert [row["told"] for row in rejected] == ["out_of_stock"]


def test_the_history_has_the_change_that_set_the_value() -> None:
    """However often the variant was verified since."""
    db = mirror()
    apply(db, [delivery(1, "first", "in_stock", NOON)], NOON)
    for seq in range(2, 30):
        db.execute(
            """INSERT INTO change_log (seq, previous_seq, variant_id, old_availability,
                   availability, old_sellable, sellable, cause, rule, missed, during_downtime,
                   occurred_at, recorded_at)
               VALUES (?1, ?1 - 1, 1, 'in_stock', 'in_stock', 0, 1, 'read', 'agrees', 0, 0, '', '')
            """,
            (seq,),
        )
    db.execute("UPDATE variants SET last_change_seq = 29")
    history = variant_history(db, 1)
    assert [row["seq"] for row in history.changes] == [*range(29, 19, -1), 1]
    assert any("(change 1)" in line for line in explain.sentences(history))


@pytest.mark.parametrize("others", [0, 1, chains.COPY_DEPTH - 1, chains.COPY_DEPTH])
def test_a_copy_is_found_within_a_bounded_depth(others: int) -> None:
    """Beyond it the rule of merging decides, and the end state is the same."""
    db = mirror()
    first = delivery(1, "first", "in_stock", NOON)
    apply(db, [first], NOON)
    for number in range(others):
        at = NOON + timedelta(seconds=number + 1)
        apply(db, [delivery(1, f"e{number}", "in_stock", at)], at)
    (outcome,) = apply(db, [first], NOON + timedelta(minutes=5))
    assert outcome == ("duplicate" if others < chains.COPY_DEPTH else "unchanged")


def test_a_copy_of_a_delivery_without_a_rule_is_found() -> None:
    """As of a variant that the configuration excludes: it is in no chain."""
    db = mirror()
    policy = Policy(frozenset(), settle=timedelta(seconds=60), items=frozenset({5}))
    one = delivery(1, "e", "in_stock", NOON)
    outcomes = [
        deliveries.apply(
            db, [one], policy, now=NOON, source_now=NOON, missed_grace=timedelta(minutes=10)
        )[0].outcome
        for _ in range(2)
    ]
    assert outcomes == ["ignored", "duplicate"]


@given(st.permutations(range(6)))
def test_a_delivery_gets_its_place_in_the_chain_by_its_id(order: list[int]) -> None:
    """A replay adds deliveries that were stored before those in the chain."""
    db = mirror()
    db.execute(
        """INSERT INTO variants (variant_id, value, sellable, confirmed_at, changed_at, source,
               rule, decided_at) VALUES (1, 'in_stock', 1, '', '', '', '', '')"""
    )
    db.executemany(
        """INSERT INTO deliveries (delivery_id, event_id, content_key, received_at, outcome)
           VALUES (?, '', '', '', 'quarantined')""",
        [(number + 1,) for number in range(6)],
    )
    for number in order:
        chains.insert_delivery(db, 1, number + 1)
        chains.insert_delivery(db, 1, number + 1)
    assert chain(db, 1) == [6, 5, 4, 3, 2, 1]


def test_a_replayed_delivery_joins_the_chain_of_its_variant() -> None:
    db = mirror()
    apply(db, [delivery(1, "a", "in_stock", NOON)], NOON)
    body = (
        b'{"id": 1, "object": "item_variant", "event": {"uuid": "u", "object_id": 1, '
        b'"action": "item-variant-availability-updated", "timestamp": "2026-03-01T12:00:05Z"}, '
        b'"data": {"id": 1, "item": 70, "availability": "out_of_stock"}}'
    )
    db.execute(
        """INSERT INTO deliveries (event_id, content_key, received_at, outcome, reason, body)
           VALUES ('?', '!', ?, 'quarantined', 'an older version did not understand it', ?)""",
        (to_text(NOON + timedelta(seconds=6)), body),
    )
    apply(db, [delivery(1, "b", "in_stock", NOON + timedelta(seconds=1))], NOON)
    replay.apply(
        db,
        [2],
        POLICY,
        now=NOON,
        source_now=NOON + timedelta(seconds=10),
        missed_grace=timedelta(minutes=10),
    )
    assert chain(db, 1) == [3, 2, 1]


@given(
    st.lists(st.integers(0, 50), max_size=40),
    st.sets(st.integers(0, 39)),
    st.integers(-1, 52),
)
def test_a_range_begins_at_the_first_row_of_its_time(
    seconds: list[int], deleted: set[int], since: int
) -> None:
    """With any rows deleted before it."""
    db = mirror()
    rows = [(number + 1, second) for number, second in enumerate(sorted(seconds))]
    db.executemany(
        """INSERT INTO deliveries (delivery_id, event_id, content_key, received_at, outcome)
           VALUES (?, '', '', ?, 'applied')""",
        [
            (delivery_id, to_text(NOON + timedelta(seconds=second)))
            for delivery_id, second in rows
            if delivery_id not in deleted
        ],
    )
    found = time_ranges.first_id_since(db, "deliveries", NOON + timedelta(seconds=since))
    remaining = [one for one in rows if one[0] not in deleted]
    assert [one for one in remaining if one[0] >= found] == [
        one for one in remaining if one[1] >= since
    ]


def test_finding_a_time_or_a_history_does_not_scan_a_table() -> None:
    """The number of steps of SQLite's machine stays small in a table of 10,000 rows."""
    db = mirror()
    at = [to_text(NOON + timedelta(seconds=number)) for number in range(10_000)]
    db.executemany(
        """INSERT INTO deliveries (delivery_id, event_id, content_key, received_at, outcome)
           VALUES (?, '', '', ?, 'applied')""",
        list(enumerate(at, 1)),
    )
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 100

    db.set_progress_handler(count, 100)
    assert time_ranges.first_id_since(db, "deliveries", NOON + timedelta(seconds=5000)) == 5001
    variant_history(db, 1)
    assert stored_deliveries(db, "quarantined", 10, with_body=True) == []
    assert steps < 2_000
