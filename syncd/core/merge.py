"""Decides which observation wins: two pure functions over one variant.

A delivery is applied at once and confirmed by a read; a settled read is the truth. The rule trusts
only the order of events on this host, and Dreamship's timestamps among themselves. The end state is
right even if every comparison between the two clocks is wrong (syncd/README.md, "Which observation
wins"; the numbers of the rules are those of its table).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

# A `Date` header has whole seconds: an event of the same second may be older or newer.
DATE_RESOLUTION = timedelta(seconds=1)
# An unsettled read confirms a delivery from this part of `settle` on. An earlier read may come from
# a copy that does not have the change yet, so its agreement proves nothing. Simulated with copies
# up to 20 s old, an earlier read put variants on sale wrongly for 26 s a run; this one for 0.3 s.
CONFIRM_SHARE = 3
# How far an event may lie in the future of Dreamship's clock. A later timestamp is an error.
FUTURE_TOLERANCE = timedelta(seconds=2)
# Dreamship repeats a delivery for this long. An older event is a stored body that was sent again,
# and it does not say what has changed since.
RETRIED_FOR = timedelta(hours=72)
# A stored timestamp further than this in the future of Dreamship's clock is an error. A smaller
# difference disappears by itself.
AHEAD_TOLERANCE = timedelta(hours=1)

Value = str | None
"""Availability as received. None: gone from the catalogue; as a conflicting value: not known."""

Rule = Literal[
    "first-word",  # a delivery adds a variant that the mirror does not have
    "first-word-doubted",  # the same, but its time is unknown: unsellable until a read confirms it
    "same",  # 1
    "newer",  # 2
    "contradicts",  # 3
    "settled",  # 4
    "agrees",  # 5
    "not-settled",  # 6
    "ambiguous",  # one answer has the variant with different values
    "absent",  # a settled read of a sweep does not have it; the end of the sweep decides
    "gone",  # the end of the sweep removed it
    "brake",  # the end of the sweep restored it: too many variants are missing at once
    "not-found",  # a whole sweep found no item that has it
    "taken-over",  # copied from the published rows of another host, which failed
    "policy",  # the configuration changed
]


class ValueState(Struct, frozen=True):
    """The stored value of one variant, with the evidence for it.

    `conflicting_values` contradict `value`, and no settled read has decided between them yet; the
    variant is *verifying* while there are any. `event_at` is the newest event timestamp that was
    applied or that agreed (Dreamship's clock). `read_at` is the `Date` of the last read
    (Dreamship's clock). `delivered_at` is when the last delivery arrived (this host's clock).
    """

    value: Value
    conflicting_values: tuple[Value, ...] = ()
    event_at: datetime | None = None
    read_at: datetime | None = None
    delivered_at: datetime | None = None

    @property
    def verifying(self) -> bool:
        """Whether a read has to decide between conflicting values."""
        return bool(self.conflicting_values)

    @property
    def candidates(self) -> tuple[Value, ...]:
        """Every value that the variant may have. It is sellable if all of them are."""
        return (self.value, *self.conflicting_values)


class Decision(Struct, frozen=True):
    """The effect of one observation: the new state, the rule, and whether to read the item soon."""

    value_state: ValueState
    rule: Rule
    read_soon: bool = False
    missed: bool = False


def on_delivery(
    stored: ValueState | None,
    *,
    value: Value,
    event_at: datetime | None,
    arrived_at: datetime,
    read_at: datetime | None,
    source_now: datetime,
) -> Decision:
    """Decide about one delivery that is no duplicate.

    `value` None: the delivery reports a change without its value. `read_at`: the last read of the
    item, for a variant that is not stored. `source_now`: the best estimate of Dreamship's clock.
    Whatever the rule, the caller queues a settled read that confirms the delivery.
    """
    if event_at is not None and event_at > source_now + FUTURE_TOLERANCE:
        event_at = None
    read_at = _unless_ahead(read_at, source_now)
    if stored is None:
        return _first_delivery(value, event_at, arrived_at, read_at, source_now)
    stored = replace(
        stored,
        event_at=_unless_ahead(stored.event_at, source_now),
        read_at=_unless_ahead(stored.read_at, source_now),
    )
    delivered = replace(stored, delivered_at=_latest(stored.delivered_at, arrived_at))
    if value is not None and value == stored.value:
        # An update that matches the stored value but has no timestamp may be as recent as now. An
        # event that is older than now must not count as newer than this one.
        newest = _latest(stored.event_at, source_now if event_at is None else event_at)
        return Decision(replace(delivered, event_at=newest), "same")
    if (
        value is not None
        and stored.value is not None  # only a read brings a removed variant back
        and event_at is not None
        and not is_replayed(event_at, source_now)
        and _is_after(event_at, stored.event_at)
        and _is_after_read(event_at, stored.read_at)
    ):
        # Other conflicting values remain: only a read can decide about them.
        others = tuple(other for other in stored.conflicting_values if other != value)
        applied = replace(delivered, value=value, conflicting_values=others, event_at=event_at)
        return Decision(applied, "newer", read_soon=applied.verifying)
    return Decision(with_conflict(delivered, value), "contradicts", read_soon=True)


def on_read(
    stored: ValueState | None,
    *,
    value: Value,
    began_at: datetime,
    source_at: datetime | None,
    settle: timedelta,
) -> Decision:
    """Decide about the value of one variant in one read; `value` None: the item does not have it.

    `began_at` is this host's time before the request left. Reads of one variant are applied in the
    order of their beginnings. `source_at` is the `Date` of the answer.
    """
    if stored is None:
        return Decision(ValueState(value=value, read_at=source_at), "settled")
    read = replace(stored, read_at=_latest(stored.read_at, source_at))
    if stored.delivered_at is None or began_at >= stored.delivered_at + settle:
        was_delivered = value in stored.candidates or None in stored.conflicting_values
        missed = not was_delivered and value is not None and stored.value is not None
        return Decision(replace(read, value=value, conflicting_values=()), "settled", missed=missed)
    if value == stored.value:
        can_confirm = began_at >= stored.delivered_at + settle / CONFIRM_SHARE
        if can_confirm or not stored.verifying:
            return Decision(replace(read, conflicting_values=()), "agrees")
        return Decision(read, "not-settled")
    return Decision(with_conflict(read, value), "not-settled")


def with_conflict(state: ValueState, value: Value) -> ValueState:
    """Return the state with one more conflicting value."""
    if value in state.conflicting_values:
        return state
    return replace(state, conflicting_values=(*state.conflicting_values, value))


def without_conflict(state: ValueState, value: Value) -> ValueState:
    """Return the state without this conflicting value."""
    others = tuple(other for other in state.conflicting_values if other != value)
    return replace(state, conflicting_values=others)


def is_replayed(event_at: datetime | None, source_now: datetime) -> bool:
    """Return whether an event is too old for Dreamship to repeat its delivery."""
    return event_at is not None and event_at < source_now - RETRIED_FOR


def _first_delivery(
    value: Value,
    event_at: datetime | None,
    arrived_at: datetime,
    read_at: datetime | None,
    source_now: datetime,
) -> Decision:
    is_placed = (
        value is not None
        and event_at is not None
        and not is_replayed(event_at, source_now)
        and _is_after_read(event_at, read_at)
    )
    state = ValueState(
        value=value or "",
        conflicting_values=() if is_placed else (None,),
        event_at=event_at if is_placed else None,
        read_at=read_at,
        delivered_at=arrived_at,
    )
    return Decision(state, "first-word" if is_placed else "first-word-doubted", read_soon=True)


def _unless_ahead(moment: datetime | None, source_now: datetime) -> datetime | None:
    """Return a timestamp of Dreamship's clock, or None if that clock has not reached it yet.

    Such a timestamp comes from a clock that was wrong for a while. It would outdate every honest
    event.
    """
    return None if moment is None or moment > source_now + AHEAD_TOLERANCE else moment


def _is_after(moment: datetime, other: datetime | None) -> bool:
    return other is None or moment > other


def _is_after_read(event_at: datetime, read_at: datetime | None) -> bool:
    return read_at is None or event_at > read_at + DATE_RESOLUTION


def _latest(one: datetime | None, other: datetime | None) -> datetime | None:
    if one is None or other is None:
        return other if one is None else one
    return max(one, other)
