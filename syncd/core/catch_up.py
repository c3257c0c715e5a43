"""When a lost delivery makes syncd read everything again at full rate. Pure.

A read that finds a change which no delivery reported is evidence: other deliveries may be lost too,
and the items that were read before it may be out of date. A catch-up reads these items first and
fast. Its calls come from a credit, so that a sender that loses something all day costs a bounded
number of calls.
"""

from __future__ import annotations

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
# In a long outage one catch-up follows another. They are spread so that the credit would last for
# so long: at once after another, a catch-up finds little, and later there is no credit left.
CREDIT_LASTS = timedelta(hours=4)
# A catch-up that costs at most this share of the credit needs no pause: a small catalogue.
SMALL_SHARE = 0.15
# For so long after a delivery that arrived later than `settle`, evidence waits for `missed_grace`.
LATENESS_LASTS = timedelta(days=1)


class CatchUp(Struct, frozen=True):
    """The state of catching up; the mirror stores it.

    `evidence_at`: a change without a delivery was found then, and items that were read earlier are
    still to be read; None: there are none. `is_running`: they are read at full rate.
    `began_at`, `ended_at`: of the last catch-up; changes found until its end are no new evidence.
    """

    evidence_at: datetime | None = None
    is_running: bool = False
    ended_at: datetime | None = None
    credit: float = 0.0
    credit_at: datetime | None = None
    began_at: datetime | None = None


def credit(state: CatchUp, now: datetime, background_per_minute: float) -> float:
    """Return how many calls a catch-up may make now."""
    earned_per_minute = background_per_minute * CREDIT_SHARE
    if state.credit_at is None:
        return _minutes(FIRST_CREDIT) * earned_per_minute
    earned = max(0.0, _minutes(now - state.credit_at)) * earned_per_minute
    return min(_most_credit(background_per_minute), state.credit + earned)


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


def add_evidence(state: CatchUp, found_at: datetime) -> CatchUp:
    """Return the state after a change was found at `found_at` that no delivery reported."""
    since = evidence_since(state)
    if state.is_running or (since is not None and found_at <= since):
        return state
    return replace(state, evidence_at=found_at)


def proceed(
    state: CatchUp,
    outdated: int,
    now: datetime,
    *,
    background_per_minute: float,
    calls_per_minute: float,
) -> CatchUp:
    """Begin a catch-up if its credit is enough, and end it when no item is outdated.

    `outdated`: the number of items that were read before the evidence. `background_per_minute`: the
    rate at which items are read without a catch-up, and `calls_per_minute` that of a catch-up.
    Background calls would have read a part of the items in the same time, so only
    the rest is taken from the credit.
    """
    left = credit(state, now, background_per_minute)
    if state.credit_at is None:
        state = replace(state, credit=left, credit_at=now)
    state = _clamped(state, now)
    if state.evidence_at is None:
        return state
    if not outdated:
        return replace(
            state, evidence_at=None, is_running=False, ended_at=now, credit=left, credit_at=now
        )
    cost = outdated * max(0.0, 1 - background_per_minute / max(1.0, calls_per_minute))
    cost = min(cost, _most_credit(background_per_minute))
    if state.is_running or cost > min(left, _spendable(state, left, now, background_per_minute)):
        return state
    return replace(state, is_running=True, credit=left - cost, credit_at=now, began_at=now)


def _spendable(state: CatchUp, left: float, now: datetime, background_per_minute: float) -> float:
    """Return how many calls of the credit `left` a catch-up may make, so soon after the last."""
    if state.began_at is None:
        return left
    per_minute = left / _minutes(CREDIT_LASTS) + background_per_minute * CREDIT_SHARE
    return max(left * SMALL_SHARE, _minutes(now - state.began_at) * per_minute)


def _clamped(state: CatchUp, now: datetime) -> CatchUp:
    """Limit the times to now: the clock may have been set back since."""

    def clamped(at: datetime | None) -> datetime | None:
        return None if at is None else min(at, now)

    return replace(
        state,
        evidence_at=clamped(state.evidence_at),
        ended_at=clamped(state.ended_at),
        credit_at=clamped(state.credit_at),
        began_at=clamped(state.began_at),
    )


def repeat(
    before: CatchUp, after: CatchUp, missed_at: datetime | None, last_delivery_at: datetime | None
) -> CatchUp:
    """Return the state after a catch-up that has ended, if deliveries have stopped: with another.

    `missed_at`: when the last change without a delivery was found. If no delivery has arrived since
    the evidence, changes that the catch-up found may be newer than it.
    """
    if not before.is_running or after.is_running or before.evidence_at is None:
        return after
    has_stopped = last_delivery_at is None or last_delivery_at < before.evidence_at
    if has_stopped and missed_at is not None and missed_at > before.evidence_at:
        return replace(after, evidence_at=missed_at)
    return after


def _most_credit(background_per_minute: float) -> float:
    return _minutes(MOST_CREDIT) * background_per_minute * CREDIT_SHARE


def _minutes(span: timedelta) -> float:
    return span / timedelta(minutes=1)
