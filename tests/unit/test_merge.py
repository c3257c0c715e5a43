"""The merge rules: each by example, and their promise over random histories."""

from __future__ import annotations

import heapq
import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from msgspec import Struct

from syncd.core.merge import Decision, ValueState, on_delivery, on_read

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SETTLE = timedelta(seconds=60)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def deliver(
    known: ValueState | None, value: str | None, event_at: float | None, *, arrived: float = 100
) -> Decision:
    return on_delivery(
        known,
        value=value,
        event_at=None if event_at is None else at(event_at),
        arrived_at=at(arrived),
        read_at=None,
        source_now=at(arrived),
    )


def decide_read(
    known: ValueState | None, value: str | None, *, began: float, date: float = 0
) -> Decision:
    return on_read(known, value=value, began_at=at(began), source_at=at(date), settle=SETTLE)


KNOWN = ValueState("in_stock", event_at=at(10), read_at=at(20), delivered_at=at(11))


def test_rule_1_an_equal_value_updates_only_the_event_time() -> None:
    """Nothing else changes."""
    decision = deliver(KNOWN, "in_stock", 50)
    assert decision.rule == "same"
    assert decision.value_state.event_at == at(50)
    assert decision.value_state.value == "in_stock"
    assert not decision.read_soon


def test_rule_2_a_newer_event_is_applied_at_once() -> None:
    """It is newer than every event and read, so it stands until a read confirms it."""
    decision = deliver(KNOWN, "out_of_stock", 50)
    assert (decision.rule, decision.value_state.value) == ("newer", "out_of_stock")
    assert not decision.value_state.verifying


@pytest.mark.parametrize(
    "event_at",
    [
        pytest.param(9, id="older than the last event"),
        pytest.param(10, id="equal to the last event"),
        pytest.param(20.9, id="within the second of the last read's Date"),
        pytest.param(None, id="missing or malformed"),
        pytest.param(102.1, id="in the future of Dreamship's clock"),
    ],
)
def test_rule_3_a_conflicting_older_event_is_verified(event_at: float | None) -> None:
    """The value stays, the conflict is stored, and the item is read soon."""
    decision = deliver(KNOWN, "out_of_stock", event_at)
    assert decision.rule == "contradicts"
    assert decision.read_soon
    assert decision.value_state.value == "in_stock"
    assert decision.value_state.candidates == ("in_stock", "out_of_stock")


def test_a_delivery_without_a_value_is_verified() -> None:
    """It says that something changed, and not to which value."""
    decision = deliver(KNOWN, None, 50)
    assert decision.read_soon
    assert decision.value_state.candidates == ("in_stock", None)


def test_only_a_read_restores_a_removed_variant() -> None:
    """A late delivery must not make it sellable."""
    gone = ValueState(None, read_at=at(20))
    decision = deliver(gone, "in_stock", 90)
    assert decision.rule == "contradicts"
    assert decision.value_state.value is None


def test_an_older_conflict_survives_a_newer_delivery() -> None:
    """Both conflicting values stay until a read decides."""
    conflicting = deliver(KNOWN, "discontinued", None).value_state
    decision = deliver(conflicting, "out_of_stock", 60)
    assert decision.value_state.candidates == ("out_of_stock", "discontinued")
    assert decision.read_soon


def test_a_new_variant_is_applied_if_its_event_has_a_valid_time() -> None:
    """Else it is verified."""
    placed = deliver(None, "in_stock", 50)
    assert (placed.rule, placed.value_state.verifying, placed.read_soon) == (
        "first-word",
        False,
        True,
    )
    unplaced = deliver(None, "in_stock", None)
    assert (unplaced.value_state.verifying, unplaced.value_state.candidates) == (
        True,
        ("in_stock", None),
    )


@pytest.mark.parametrize(("hours", "is_old"), [(71.9, False), (72.1, True), (180 * 24, True)])
def test_an_event_older_than_the_senders_last_retry_is_verified(hours: float, is_old: bool) -> None:
    """It may be a stored body that was sent again; also for a new variant."""
    event_at = 100 - hours * 3600
    first = deliver(None, "in_stock", event_at)
    assert first.rule == ("first-word-doubted" if is_old else "first-word")
    assert (first.value_state.verifying, first.read_soon) == (is_old, True)
    known = ValueState("out_of_stock", event_at=at(event_at - 1), read_at=at(event_at - 3600))
    later = deliver(known, "in_stock", event_at)
    assert later.rule == ("contradicts" if is_old else "newer")
    assert (later.value_state.verifying, later.read_soon) == (is_old, is_old)


def test_rule_4_a_settled_read_decides() -> None:
    """With any stored value and any stored conflicts."""
    conflicting = deliver(KNOWN, "discontinued", None).value_state
    decision = decide_read(conflicting, "out_of_stock", began=160)
    assert (decision.rule, decision.value_state.value) == ("settled", "out_of_stock")
    assert not decision.value_state.verifying


def test_rule_5_an_agreeing_unsettled_read_ends_the_conflict() -> None:
    """Delivery and read agree."""
    conflicting = deliver(KNOWN, "discontinued", None).value_state
    decision = decide_read(conflicting, "in_stock", began=120)
    assert (decision.rule, decision.value_state.verifying) == ("agrees", False)


@pytest.mark.parametrize("began", [99, 100, 119.9])
def test_a_read_too_soon_after_the_delivery_ends_no_conflict(began: float) -> None:
    """It began before the delivery, or before every replica had the change."""
    conflicting = deliver(KNOWN, "discontinued", None).value_state
    decision = decide_read(conflicting, "in_stock", began=began)
    assert (decision.rule, decision.value_state.candidates) == (
        "not-settled",
        conflicting.candidates,
    )


def test_an_agreeing_update_without_a_timestamp_counts_as_recent() -> None:
    """Else a later event that is older than it would count as newer."""
    delivered = deliver(KNOWN, "in_stock", None).value_state
    assert delivered.event_at == at(100)
    assert deliver(delivered, "out_of_stock", 90).rule == "contradicts"


def test_rule_6_a_conflicting_unsettled_read_is_verified() -> None:
    """A replica of the source may lag behind; the settled read decides."""
    applied = deliver(KNOWN, "out_of_stock", 50).value_state
    decision = decide_read(applied, "in_stock", began=101)
    assert (decision.rule, decision.value_state.value) == ("not-settled", "out_of_stock")
    assert decision.value_state.verifying


def test_a_change_found_by_a_settled_read_is_missed() -> None:
    """Unless a delivery had reported exactly this value."""
    assert decide_read(KNOWN, "out_of_stock", began=200).missed
    delivered = deliver(KNOWN, "out_of_stock", None).value_state
    assert not decide_read(delivered, "out_of_stock", began=200).missed
    assert not decide_read(None, "out_of_stock", began=200).missed
    assert not decide_read(KNOWN, None, began=200).missed


# --- the promise ---------------------------------------------------------------------------------

VALUES = ["in_stock", "out_of_stock", "low_stock"]
MAX_LAG_S = 20.0


class History(Struct, frozen=True):
    """One life of one variant: its changes at the source and the result of each delivery."""

    changes: list[tuple[float, str]]
    tellings: list[tuple[int, float, str]]
    event_skew_s: float
    host_skew_s: float
    early_s: float
    lags_s: list[float]
    latencies_s: list[float]


@st.composite
def histories(draw: st.DrawFn, *, drops: bool) -> History:
    seconds = st.floats(0.001, 120).map(lambda gap: round(gap, 3))
    gaps = draw(st.lists(seconds, min_size=1, max_size=8))
    times = list(itertools.accumulate(gaps))
    changes = [(time, draw(st.sampled_from(VALUES))) for time in times]
    tellings = []
    for index in range(len(changes)):
        copies = draw(st.integers(0 if drops else 1, 3))
        for _ in range(copies):
            delay = draw(st.one_of(st.floats(0, 5), st.floats(0, 400)))
            form = draw(st.sampled_from(["fraction", "fraction", "whole", "missing"]))
            tellings.append((index, times[index] + delay, form))
    return History(
        changes=changes,
        tellings=tellings,
        event_skew_s=draw(st.floats(-240, 240)),
        host_skew_s=draw(st.floats(-240, 240)),
        early_s=draw(st.floats(0, 10)),
        lags_s=draw(st.lists(st.floats(0, MAX_LAG_S), min_size=1, max_size=5)),
        latencies_s=draw(st.lists(st.floats(0, 30), min_size=1, max_size=5)),
    )


class Replay:
    """Plays a history against the rule, with the queue of confirming reads around it."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.value_state: ValueState | None = ValueState("in_stock")
        self._lags = itertools.cycle(history.lags_s)
        self._latencies = itertools.cycle(history.latencies_s)
        self._todo: list[tuple[float, int, str, object]] = []
        self._order = itertools.count()
        self._settle_at: float | None = None
        self._reading = False
        self.applied = 0

    def _push(self, time: float, kind: str, what: object = None) -> None:
        heapq.heappush(self._todo, (time, next(self._order), kind, what))

    def truth(self, time: float) -> str:
        value = "in_stock"
        for changed_at, changed_to in self.history.changes:
            if changed_at <= time:
                value = changed_to
        return value

    def play(self) -> None:
        found: set[int] = set()
        for index, arrives, form in self.history.tellings:
            self._push(arrives, "delivery", (index, form))
        while self._todo:
            now, _, kind, what = heapq.heappop(self._todo)
            if kind == "delivery":
                index, form = what  # type: ignore[misc]
                if index not in found:  # each event id is applied once
                    found.add(index)
                    self._deliver(now, index, form)
            elif kind == "read":
                self._read(now)
            else:
                self._answer(now, *what)  # type: ignore[misc]

    def sweep(self) -> None:
        self._read(10_000.0)
        self.play_rest()

    def play_rest(self) -> None:
        while self._todo:
            now, _, kind, what = heapq.heappop(self._todo)
            if kind == "read":
                self._read(now)
            else:
                self._answer(now, *what)  # type: ignore[misc]

    def _host(self, time: float) -> datetime:
        return at(time + self.history.host_skew_s)

    def _deliver(self, now: float, index: int, form: str) -> None:
        time, value = self.history.changes[index]
        event_at: datetime | None = at(time - self.history.early_s + self.history.event_skew_s)
        if form == "whole" and event_at is not None:
            event_at = event_at.replace(microsecond=0)
        if form == "missing":
            event_at = None
        decision = on_delivery(
            self.value_state,
            value=value,
            event_at=event_at,
            arrived_at=self._host(now),
            read_at=None,
            source_now=at(now),
        )
        self.applied += decision.rule == "newer"
        self.value_state = decision.value_state
        self._settle_at = now + SETTLE.total_seconds()
        self._push(self._settle_at, "read")
        if decision.read_soon:
            self._push(now, "read")

    def _read(self, now: float) -> None:
        if self._reading:
            # One read of an item at a time: a request during a read waits for its end.
            self._push(now + 1, "read")
            return
        self._reading = True
        took = next(self._latencies)
        value = self.truth(now + took / 2 - min(next(self._lags), MAX_LAG_S))
        self._push(now + took, "answer", (now, value, now + took / 2))

    def _answer(self, now: float, began: float, value: str, source_time: float) -> None:
        del now
        self._reading = False
        self.value_state = on_read(
            self.value_state,
            value=value,
            began_at=self._host(began),
            source_at=at(int(source_time)),
            settle=SETTLE,
        ).value_state
        if self._settle_at is not None and began < self._settle_at:
            return
        self._settle_at = None


@given(histories(drops=False))
def test_with_nothing_dropped_the_mirror_equals_the_source(history: History) -> None:
    """With late, doubled and reordered deliveries and wrong clocks, once the queue is empty."""
    replay = Replay(history)
    replay.play()
    event(f"applied {min(replay.applied, 3)}")
    assert replay.value_state is not None
    assert replay.value_state.value == history.changes[-1][1]
    assert not replay.value_state.verifying


@given(histories(drops=True))
def test_after_lost_deliveries_one_sweep_restores_equality(history: History) -> None:
    """Lost deliveries have no effect after the next sweep."""
    replay = Replay(history)
    replay.play()
    replay.sweep()
    assert replay.value_state is not None
    assert replay.value_state.value == history.changes[-1][1]
    assert not replay.value_state.verifying


@given(
    value=st.sampled_from([*VALUES, None]),
    conflicting_values=st.lists(st.sampled_from([*VALUES, None]), unique=True).map(tuple),
    update=st.sampled_from([*VALUES, None]),
    event_at=st.none() | st.floats(-300, 300),
)
def test_no_delivery_ends_a_conflict(
    value: str | None,
    conflicting_values: tuple[str | None, ...],
    update: str | None,
    event_at: float | None,
) -> None:
    """A delivery may make the conflicting value the stored one; only a read ends a conflict."""
    known = ValueState(value, conflicting_values=conflicting_values, event_at=at(0))
    after = deliver(known, update, event_at).value_state
    assert set(conflicting_values) <= set(after.candidates)
    if update not in after.candidates:
        assert update is None
