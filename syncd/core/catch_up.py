"""How fast syncd reads after a lost delivery. Pure.

A read that finds a change which no delivery reported is evidence: other deliveries may be lost too,
and the items that were read before it may be out of date. A catch-up reads these items again:
at full rate if its credit is enough, else at a raised rate. The credit bounds the calls, also those
of a sender that loses something all day.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

# Of each background call, this share is added to the credit: with 15 background calls a minute,
# catch-ups add 4.5 calls a minute at most, on average.
CREDIT_SHARE = 0.3
# A new mirror begins with the credit of three hours. That of three days lasts for a long outage of
# a large catalogue.
FIRST_CREDIT = timedelta(hours=3)
MOST_CREDIT = timedelta(days=3)
# A catch-up that is not at full rate spends what it earns, and its credit as if that were to last
# for so long. So in a long outage the rate falls slowly. Full rate with pauses would cost as many
# calls, but an item that is read just before a pause would then wait for longest.
CREDIT_LASTS = timedelta(hours=8)
# For so long after a delivery that arrived later than `settle`, evidence waits for `missed_grace`.
LATENESS_LASTS = timedelta(days=1)


class CatchUp(Struct, frozen=True):
    """The state of catching up; the mirror stores it.

    `evidence_at`: a change without a delivery was found then, and items that were read earlier are
    still to be read; None: there are none. `is_at_full_rate`: its calls were taken from
    the credit at its beginning. `ended_at`: of the last catch-up; changes found until its end are
    no new evidence. `credit`: at `credit_at`.
    """

    evidence_at: datetime | None = None
    is_at_full_rate: bool = False
    ended_at: datetime | None = None
    credit: float = 0.0
    credit_at: datetime | None = None


def credit(state: CatchUp, now: datetime, background_per_minute: float) -> float:
    """Return how many calls are left for catch-ups."""
    earned_per_minute = background_per_minute * CREDIT_SHARE
    if state.credit_at is None:
        return _minutes(FIRST_CREDIT) * earned_per_minute
    minutes = max(0.0, _minutes(now - state.credit_at))
    if state.evidence_at is not None and not state.is_at_full_rate:
        return state.credit * math.exp(-minutes / _minutes(CREDIT_LASTS))
    most = _minutes(MOST_CREDIT) * earned_per_minute
    return min(most, state.credit + minutes * earned_per_minute)


def extra_rate(
    state: CatchUp, now: datetime, background_per_minute: float, calls_per_minute: float
) -> float:
    """Return how many calls a minute the catch-up that runs adds to the background."""
    if state.evidence_at is None:
        return 0.0
    if state.is_at_full_rate:
        return calls_per_minute - background_per_minute
    left = credit(state, now, background_per_minute)
    return background_per_minute * CREDIT_SHARE + left / _minutes(CREDIT_LASTS)


def evidence_since(state: CatchUp) -> datetime | None:
    """Return the moment after which a missed change is new evidence; None: at any moment.

    While a catch-up runs it finds the other changes of the same loss.
    """
    moments = (state.evidence_at, state.ended_at)
    return max((at for at in moments if at is not None), default=None)


def evidence_wait(
    late_at: datetime | None, now: datetime, settle: timedelta, missed_grace: timedelta
) -> timedelta:
    """Return for how long a missed change waits for its delivery before it is evidence.

    `late_at`: when a delivery last arrived later than `settle` after a read had found its change.
    """
    is_late = late_at is not None and timedelta() <= now - late_at < LATENESS_LASTS
    return max(settle, missed_grace) if is_late else settle


def add_evidence(
    state: CatchUp, found_at: datetime, now: datetime, background_per_minute: float
) -> CatchUp:
    """Begin a catch-up, because a change was found at `found_at` that no delivery reported."""
    since = evidence_since(state)
    if state.evidence_at is not None or (since is not None and found_at <= since):
        return state
    left = credit(state, now, background_per_minute)
    return replace(state, evidence_at=found_at, credit=left, credit_at=now)


def hurry(
    state: CatchUp, outdated: int, background_per_minute: float, calls_per_minute: float
) -> CatchUp:
    """Use the full rate for the catch-up that begins, if its credit is enough.

    `outdated`: the number of items that were read before the evidence. `background_per_minute`: the
    rate at which items are read without a catch-up. Background calls would have read a part of the
    items in the same time, so only the rest is taken from the credit.
    """
    cost = outdated * max(0.0, 1 - background_per_minute / calls_per_minute)
    if cost > state.credit:
        return state
    return replace(state, is_at_full_rate=True, credit=state.credit - cost)


def proceed(state: CatchUp, outdated: int, now: datetime, background_per_minute: float) -> CatchUp:
    """End the catch-up that runs when no item is outdated."""
    left = credit(state, now, background_per_minute)
    if state.credit_at is None:
        state = replace(state, credit=left, credit_at=now)
    state = _clamped(state, now)
    if state.evidence_at is None or outdated:
        return state
    return replace(
        state, evidence_at=None, is_at_full_rate=False, ended_at=now, credit=left, credit_at=now
    )


def _clamped(state: CatchUp, now: datetime) -> CatchUp:
    """Limit the times to now: the clock may have been set back since."""

    def clamped(at: datetime | None) -> datetime | None:
        return None if at is None else min(at, now)

    return replace(
        state,
        evidence_at=clamped(state.evidence_at),
        ended_at=clamped(state.ended_at),
        credit_at=clamped(state.credit_at),
    )


def repeat(
    before: CatchUp, after: CatchUp, missed_at: datetime | None, last_delivery_at: datetime | None
) -> CatchUp:
    """Return the state after a catch-up that has ended, if deliveries have stopped: with another.

    `missed_at`: when the last change without a delivery was found. If no delivery has arrived since
    the evidence, changes that the catch-up found may be newer than it.
    """
    if before.evidence_at is None or after.evidence_at is not None:
        return after
    has_stopped = last_delivery_at is None or last_delivery_at < before.evidence_at
    if has_stopped and missed_at is not None and missed_at > before.evidence_at:
        return replace(after, evidence_at=missed_at)
    return after


def _minutes(span: timedelta) -> float:
    return span / timedelta(minutes=1)
