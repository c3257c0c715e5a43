"""The rule of merging: each rule by example, and the promise over random histories."""

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


def look(known: ValueState | None, value: str | None, *, began: float, date: float = 0) -> Decision:
    return on_read(known, value=value, began_at=at(began), source_at=at(date), settle=SETTLE)


KNOWN = ValueState("in_stock", event_at=at(10), read_at=at(20), delivered_at=at(11))


def test_same_value_remembers_the_newest_event() -> None:
    """Rule 1: nothing changes but what is known of the event's time."""
    decision = deliver(KNOWN, "in_stock", 50)
    assert decision.rule == "same"
    assert decision.value_state.event_at == at(50)
    assert decision.value_state.value == "in_stock"
    assert not decision.ask_soon


def test_a_newer_event_is_applied_at_once() -> None:
    """Rule 2: newer than every event and read, so it stands until a read confirms it."""
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
def test_a_disagreement_is_asked_never_discarded(event_at: float | None) -> None:
    """Rule 3: the mirror's value stays, the doubt is kept, and the source is asked now."""
    decision = deliver(KNOWN, "out_of_stock", event_at)
    assert decision.rule == "contradicts"
    assert decision.ask_soon
    assert decision.value_state.value == "in_stock"
    assert decision.value_state.candidates == ("in_stock", "out_of_stock")


def test_a_delivery_without_a_value_asks() -> None:
    """A delivery that tells of a change, not to what, is a doubt about everything."""
    decision = deliver(KNOWN, None, 50)
    assert decision.ask_soon
    assert decision.value_state.candidates == ("in_stock", None)


def test_what_is_gone_comes_back_only_by_the_sources_word() -> None:
    """A late delivery must not put on sale what a read found gone."""
    gone = ValueState(None, read_at=at(20))
    decision = deliver(gone, "in_stock", 90)
    assert decision.rule == "contradicts"
    assert decision.value_state.value is None


def test_a_newer_delivery_does_not_answer_an_older_doubt() -> None:
    """Two claims against the mirror stay two until a read judged both."""
    doubted = deliver(KNOWN, "discontinued", None).value_state
    decision = deliver(doubted, "out_of_stock", 60)
    assert decision.value_state.candidates == ("out_of_stock", "discontinued")
    assert decision.ask_soon


def test_a_variant_first_heard_of_is_taken_when_it_can_be_placed() -> None:
    """A new variant is applied when its event has a place in time, and doubted otherwise."""
    placed = deliver(None, "in_stock", 50)
    assert (placed.rule, placed.value_state.verifying, placed.ask_soon) == (
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
def test_what_is_older_than_the_last_try_of_the_sender_is_a_doubt(
    hours: float, is_old: bool
) -> None:
    """Somebody kept it and sends it again: it is no first word, and newer than nothing."""
    event_at = 100 - hours * 3600
    first = deliver(None, "in_stock", event_at)
    assert first.rule == ("first-word-doubted" if is_old else "first-word")
    assert (first.value_state.verifying, first.ask_soon) == (is_old, True)
    known = ValueState("out_of_stock", event_at=at(event_at - 1), read_at=at(event_at - 3600))
    later = deliver(known, "in_stock", event_at)
    assert later.rule == ("contradicts" if is_old else "newer")
    assert (later.value_state.verifying, later.ask_soon) == (is_old, is_old)


def test_a_settled_read_is_the_truth() -> None:
    """Rule 4: whatever was believed or doubted, the settled read decides."""
    doubted = deliver(KNOWN, "discontinued", None).value_state
    decision = look(doubted, "out_of_stock", began=160)
    assert (decision.rule, decision.value_state.value) == ("settled", "out_of_stock")
    assert not decision.value_state.verifying


def test_an_unsettled_read_that_agrees_ends_the_doubt() -> None:
    """Rule 5: two witnesses agree, and the second may be one of its own."""
    doubted = deliver(KNOWN, "discontinued", None).value_state
    decision = look(doubted, "in_stock", began=120)
    assert (decision.rule, decision.value_state.verifying) == ("agrees", False)


@pytest.mark.parametrize("began", [99, 100, 119.9])
def test_a_read_too_soon_may_be_a_copy_and_ends_no_doubt(began: float) -> None:
    """It began before the delivery, or before every copy of the source had heard of the change."""
    doubted = deliver(KNOWN, "discontinued", None).value_state
    decision = look(doubted, "in_stock", began=began)
    assert (decision.rule, decision.value_state.candidates) == ("not-settled", doubted.candidates)


def test_a_word_that_agrees_and_has_no_place_in_time_is_as_new_as_now() -> None:
    """Else an event that is older than it would pass for newer."""
    told = deliver(KNOWN, "in_stock", None).value_state
    assert told.event_at == at(100)
    assert deliver(told, "out_of_stock", 90).rule == "contradicts"


def test_an_unsettled_read_that_differs_is_one_more_doubt() -> None:
    """Rule 6: the source may lag behind itself; the settled read decides."""
    applied = deliver(KNOWN, "out_of_stock", 50).value_state
    decision = look(applied, "in_stock", began=101)
    assert (decision.rule, decision.value_state.value) == ("not-settled", "out_of_stock")
    assert decision.value_state.verifying


def test_a_missed_delivery_is_a_change_nobody_told() -> None:
    """Found by a settled read: missed unless a delivery had claimed just that."""
    assert look(KNOWN, "out_of_stock", began=200).missed
    told = deliver(KNOWN, "out_of_stock", None).value_state
    assert not look(told, "out_of_stock", began=200).missed
    assert not look(None, "out_of_stock", began=200).missed
    assert not look(KNOWN, None, began=200).missed


# --- the promise ---------------------------------------------------------------------------------

VALUES = ["in_stock", "out_of_stock", "low_stock"]
MAX_LAG_S = 20.0


class History(Struct, frozen=True):
    """One life of one variant: what happened at the source and what became of each telling."""

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
        seen: set[int] = set()
        for index, arrives, form in self.history.tellings:
            self._push(arrives, "delivery", (index, form))
        while self._todo:
            now, _, kind, what = heapq.heappop(self._todo)
            if kind == "delivery":
                index, form = what  # type: ignore[misc]
                if index not in seen:  # each event id is applied once
                    seen.add(index)
                    self._deliver(now, index, form)
            elif kind == "ask":
                self._ask(now)
            else:
                self._answer(now, *what)  # type: ignore[misc]

    def sweep(self) -> None:
        self._ask(10_000.0)
        self.play_rest()

    def play_rest(self) -> None:
        while self._todo:
            now, _, kind, what = heapq.heappop(self._todo)
            if kind == "ask":
                self._ask(now)
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
        self._push(self._settle_at, "ask")
        if decision.ask_soon:
            self._push(now, "ask")

    def _ask(self, now: float) -> None:
        if self._reading:
            # One read of an item at a time: what is asked meanwhile is asked after it.
            self._push(now + 1, "ask")
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
    """Late, doubled, reordered, whatever the clocks: equal when the queue is empty."""
    replay = Replay(history)
    replay.play()
    event(f"applied {min(replay.applied, 3)}")
    assert replay.value_state is not None
    assert replay.value_state.value == history.changes[-1][1]
    assert not replay.value_state.verifying


@given(histories(drops=True))
def test_with_some_dropped_one_more_sweep_makes_it_equal(history: History) -> None:
    """Lost deliveries cost until the next sweep, no longer."""
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
def test_no_delivery_makes_a_doubt_disappear_unless_it_says_the_same(
    value: str | None,
    conflicting_values: tuple[str | None, ...],
    update: str | None,
    event_at: float | None,
) -> None:
    """Only a read ends a doubt; a delivery may turn the doubted value into the believed one."""
    known = ValueState(value, conflicting_values=conflicting_values, event_at=at(0))
    after = deliver(known, update, event_at).value_state
    assert set(conflicting_values) <= set(after.candidates)
    if update not in after.candidates:
        assert update is None
