"""The rule of the lease: in any history, at most one publisher can write."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec.structs import replace

from syncd.core.lease import LEASE_S, lease_step, pause_s, renewal_s, watch_s
from syncd.core.publishing import Freshness, Source
from syncd.publish.turn import Turn

FREE = Source(
    source="default",
    cursor=None,
    seq=0,
    is_filled=False,
    copy=None,
    is_swept=False,
    confirmed_until=None,
    listings_version=None,
    holder=None,
    epoch=0,
    is_granted=False,
    lease_seen_at=datetime(2026, 11, 28, tzinfo=UTC),
    freshness=Freshness(None, None, None, "unknown"),
    daemon_seen_at=None,
)
HELD = replace(FREE, holder="a", epoch=5)


def test_a_free_lease_is_taken() -> None:
    assert lease_step(FREE, "a", None, 0) == "take"
    # Released: at once, also by the one that had it.
    assert lease_step(replace(FREE, epoch=7), "b", 7, 0) == "take"


def test_the_holder_keeps_a_lease_of_any_age() -> None:
    assert lease_step(HELD, "a", 5, 1e6) == "keep"


@pytest.mark.parametrize(
    ("age_s", "step"),
    [(0, "wait"), (LEASE_S - 1, "wait"), (LEASE_S, "take"), (-LEASE_S, "take"), (None, "take")],
)
def test_another_publisher_takes_an_old_lease(age_s: float | None, step: str) -> None:
    """Also if the clock of the database was set back: then nobody knows how old it is."""
    assert lease_step(HELD, "b", None, age_s) == step


def test_an_old_lease_stays_while_the_holder_could_not_renew_it() -> None:
    assert lease_step(HELD, "b", None, 1e6, may_take_old=False) == "wait"


def test_a_restart_takes_its_own_lease_and_a_clone_does_not() -> None:
    assert lease_step(HELD, "a", None, 1) == "take"
    assert lease_step(HELD, "a", 4, 1) == "wait"
    assert lease_step(replace(HELD, is_granted=True), "a", 4, 1) == "take"


def test_the_times_of_the_lease_fit_together() -> None:
    """A holder that works renews in time, and a pause that could lose the lease is noticed."""
    assert renewal_s(LEASE_S) * 3 < LEASE_S
    assert pause_s(LEASE_S) + renewal_s(LEASE_S) < LEASE_S
    assert watch_s(LEASE_S) > renewal_s(LEASE_S)


class Leases(RuleBasedStateMachine):
    """Three publishers that start, stop, pause, and take the lease, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.source = FREE
        self.now_s = 0.0
        self.seen_s = 0.0
        self.known: dict[str, int | None] = {"a": None, "b": None, "c": None}
        self.epochs: list[int] = []

    who = st.sampled_from("abc")

    @rule(who=who)
    def look(self, who: str) -> None:
        """One transaction: read the row, decide, and write."""
        age_s = self.now_s - self.seen_s
        before = self.source
        step = lease_step(before, who, self.known[who], age_s)
        if step == "wait":
            assert before.holder is not None
            assert abs(age_s) < LEASE_S
        elif step == "keep":
            self.seen_s = self.now_s
        else:
            self.source = replace(before, holder=who, epoch=before.epoch + 1, is_granted=False)
            self.known[who] = self.source.epoch
            self.seen_s = self.now_s
            self.epochs.append(self.source.epoch)

    @rule(who=who)
    def release(self, who: str) -> None:
        if self.may_write(who):
            self.source = replace(self.source, holder=None)

    @rule(who=who)
    def restart(self, who: str) -> None:
        self.known[who] = None

    @rule(who=who)
    def grant(self, who: str) -> None:
        """Run take-over, as an operator does."""
        epoch = self.source.epoch + 1
        self.source = replace(self.source, holder=who, epoch=epoch, is_granted=True)
        self.seen_s = self.now_s

    @rule(seconds=st.sampled_from([1.0, 30.0, 61.0, -3600.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass; the clock of the database may be set back."""
        self.now_s += seconds

    def may_write(self, who: str) -> bool:
        """Return whether the fence in a transaction lets a publisher pass."""
        return (self.source.holder, self.source.epoch) == (who, self.known[who])

    @invariant()
    def at_most_one_writes(self) -> None:
        assert sum(map(self.may_write, "abc")) <= 1
        assert self.epochs == sorted(set(self.epochs))


TestLeases = Leases.TestCase


def test_only_a_turn_that_is_not_active_may_copy() -> None:
    """A copy would undo deliveries that were answered."""
    turn = Turn()
    assert not turn.begin_copy()
    assert turn.doubt()
    assert turn.begin_copy()
    assert not turn.serve_unless_decided()
    turn.serve()
    assert not turn.begin_copy()
    turn.wait()
    assert not turn.doubt()
    assert turn.state == "waiting"


def test_each_change_of_the_turn_is_reported() -> None:
    turn = Turn()
    seen: list[str] = []
    turn.on_change = lambda: seen.append(turn.state)
    turn.wait()
    turn.wait()
    turn.begin_copy()
    turn.serve()
    turn.doubt()
    turn.until_decided(0)
    turn.serve_unless_decided()
    assert seen == ["waiting", "copying", "active", "undecided", "active"]
