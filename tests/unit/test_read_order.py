"""Which kind of call goes first while several kinds always have work."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core.jobs import JobKind
from syncd.sync.read_order import CATALOGUE, DELIVERIES, HINTS, SWEEP_TURN, Turns

# The kinds that nobody waits for come after all these.
KINDS: tuple[JobKind, ...] = get_args(JobKind)[:-3]
CALLS = 960


def calls(waiting: frozenset[JobKind]) -> list[JobKind]:
    """Return the order of calls if these kinds always wait, and the others never."""
    requested: list[JobKind] = []
    turns = Turns()
    for _ in range(CALLS):
        assert sorted(turns.order) == sorted(KINDS)
        kind = next(kind for kind in turns.order if kind in waiting)
        turns = turns.after(kind)
        requested.append(kind)
    return requested


@given(st.sets(st.sampled_from(KINDS), min_size=1).map(frozenset))
def test_each_kind_of_call_gets_its_share(
    waiting: frozenset[JobKind],
) -> None:
    """Deliveries get three calls of four, sweeps the fourth, shared among their kinds."""
    requested = calls(waiting)
    counted = Counter(requested)
    assert set(counted) == waiting
    assert min(counted.values()) >= CALLS / 96, counted
    of_deliveries = sum(counted[kind] for kind in DELIVERIES)
    if waiting & set(DELIVERIES) and waiting - set(DELIVERIES):
        assert of_deliveries == CALLS * (SWEEP_TURN - 1) / SWEEP_TURN
    if waiting >= set(DELIVERIES):
        assert counted["conflict"] > counted["confirm"] >= of_deliveries / 8


@given(st.sets(st.sampled_from(KINDS), min_size=1).map(frozenset))
def test_every_window_of_twelve_calls_has_each_group(waiting: frozenset[JobKind]) -> None:
    """At most every fourth call is not for deliveries, and no group is left out."""
    requested = calls(waiting)
    for begin in range(len(requested) - 12):
        window = requested[begin : begin + 12]
        if waiting & set(DELIVERIES):
            assert sum(kind in DELIVERIES for kind in window) >= 12 - 12 / SWEEP_TURN
        for group in (set(DELIVERIES), {"requested"}, {"dry_run"}, set(CATALOGUE)):
            assert not waiting & group or set(window) & group, window


@pytest.mark.parametrize("other", ["unread", "stale"])
def test_an_endless_list_gets_every_other_catalogue_call_only(other: JobKind) -> None:
    """An item follows each page as long as one waits."""
    requested = calls(frozenset({"page", other}))
    assert "page page" not in " ".join(requested)


def test_requested_items_do_not_wait_for_a_catalogue_sweep() -> None:
    """The catalogue does not wait for them either."""
    counted = Counter(calls(frozenset({"requested", *CATALOGUE})))
    assert counted["requested"] >= CALLS / 4
    assert sum(counted[kind] for kind in CATALOGUE) >= CALLS / 4


@pytest.mark.parametrize("waiting", [{"hinted"}, {"list", "hinted", "stale"}, {"page", "hinted"}])
def test_hints_leave_every_other_background_call_to_the_sweep(waiting: set[JobKind]) -> None:
    """The rows of a list may change with each reading, and the sweep must end."""
    turns, counted = Turns(), Counter[JobKind]()
    for _ in range(CALLS):
        rest = turns.rest(is_background_due=True)
        kind = next(kind for kind in rest if kind in {*waiting, "background"})
        turns = turns.after(kind, is_background=True)
        counted[kind] += 1
    of_sweep = sum(counted[kind] for kind in CATALOGUE)
    assert of_sweep == (CALLS / 2 if waiting & set(CATALOGUE) else 0)
    assert sum(counted[kind] for kind in HINTS) >= CALLS / 2


@pytest.mark.parametrize("calls_before", range(12))
def test_hints_have_their_turns_after_the_last_call_that_somebody_waited_for(
    calls_before: int,
) -> None:
    """While deliveries are lost, nothing but background calls leaves, perhaps for days."""
    turns, counted = Turns(), Counter[JobKind]()
    for _ in range(calls_before):
        turns = turns.after("confirm")
    for _ in range(CALLS):
        # As the queue does: a sweep in the background also takes the turn of sweeps.
        due = turns.order if turns.is_for_sweeps else turns.rest(is_background_due=True)
        kind = next(kind for kind in due if kind in {"stale", "hinted"})
        turns = turns.after(kind, is_background=True)
        counted[kind] += 1
    assert counted["hinted"] >= CALLS / 2 - 1


def test_a_sweep_in_the_background_leaves_turns_of_sweeps_to_the_others() -> None:
    """Deliveries always wait, and a background call is due at each turn of sweeps."""
    turns, counted = Turns(), Counter[JobKind]()
    for _ in range(CALLS):
        kind = next(kind for kind in turns.order if kind in {"confirm", "requested", "stale"})
        turns = turns.after(kind, is_background=kind == "stale")
        counted[kind] += 1
    assert counted["requested"] >= CALLS / 16
    assert counted["stale"] >= CALLS / 16


def test_background_calls_do_not_move_the_turns_of_the_others() -> None:
    """A confirming read waits for no more calls because of them."""
    turns = Turns()
    assert turns.after("background", is_background=True).order == turns.order
    assert turns.after("stale", is_background=True).order[:2] == turns.order[:2]


def test_nothing_that_nobody_waits_for_is_read_between_two_background_calls() -> None:
    """A catch-up raises their rate."""
    assert Turns().rest(is_background_due=False) == ()
