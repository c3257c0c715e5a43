"""Which observation wins. The heart of the product, as two pure functions over one variant.

A delivery is applied at once and confirmed by a read; a settled read is the truth. Only this
host's order of events, and Dreamship's own timestamps among themselves, are trusted: no comparison
between two clocks has to be right for the end state to be right (syncd/README.md, "Which
observation wins"; the rules below have the numbers of its table).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

# A `Date` header has whole seconds: what happened in the same second may be before or after it.
DATE_RESOLUTION = timedelta(seconds=1)
# A read this part of `settle` after a delivery is a witness of its own. One that is sooner may come
# from a copy that has not heard of the change either, and its agreement proves nothing: simulated
# with copies up to 20 s old, that put variants on sale wrongly for 26 s a run, this for 0.3 s.
WITNESS_SHARE = 3
# How far ahead of Dreamship's clock an event may claim to be; more is no moment but a mistake.
FUTURE_TOLERANCE = timedelta(seconds=2)
# Dreamship repeats a delivery for so long. Somebody stored an older event and sent it again, and
# nothing says what has changed since.
RETRIED_FOR = timedelta(hours=72)
# What was learned earlier is a mistake when it is further ahead of Dreamship's clock than the
# estimate of that clock may be wrong. Less than this passes by itself.
AHEAD_TOLERANCE = timedelta(hours=1)

Value = str | None
"""Availability as received; None means gone from the catalogue (or, in a doubt, not known)."""

Rule = Literal[
    "first-word",  # a variant not known before, from a delivery that can be placed in time
    "first-word-doubted",  # the same, but it cannot be placed: not sold until the source says
    "same",  # 1
    "newer",  # 2
    "contradicts",  # 3
    "settled",  # 4
    "agrees",  # 5
    "not-settled",  # 6
    "ambiguous",  # one answer has it with different values
    "absent",  # a sweep's settled read does not find it; its end decides
    "gone",  # that end: removed
    "brake",  # that end: too many at once to be believed
    "not-found",  # a whole sweep found no item that has it
    "policy",  # the configuration changed
]


class ValueState(Struct, frozen=True):
    """What the mirror holds of one variant, and on what grounds.

    `doubts` are values that witnesses set against `value` and no settled read has judged yet; the
    variant is *verifying* while there are any. `event_at` is the newest event timestamp applied or
    agreed with (Dreamship's clock). `read_at` is the `Date` of the last read (Dreamship's clock).
    `delivered_at` is when the last delivery arrived here (this host's clock).
    """

    value: Value
    doubts: tuple[Value, ...] = ()
    event_at: datetime | None = None
    read_at: datetime | None = None
    delivered_at: datetime | None = None

    @property
    def verifying(self) -> bool:
        """Whether the source is being asked."""
        return bool(self.doubts)

    @property
    def candidates(self) -> tuple[Value, ...]:
        """Every value the variant may truly have; it is sellable when all of them are."""
        return (self.value, *self.doubts)


class Decision(Struct, frozen=True):
    """What an observation does: the belief from now on, by which rule, and whether to ask soon."""

    value_state: ValueState
    rule: Rule
    ask_soon: bool = False
    missed: bool = False


def on_delivery(
    known: ValueState | None,
    *,
    value: Value,
    event_at: datetime | None,
    arrived_at: datetime,
    read_at: datetime | None,
    source_now: datetime,
) -> Decision:
    """Judge one delivery that is no duplicate.

    `value` None: it tells of a change, not to what. `read_at`: the last read of the item, for a
    variant that is not known. `source_now`: Dreamship's clock as well as it is known. Whatever the
    rule, the caller queues a confirming read for when it can be settled.
    """
    if event_at is not None and event_at > source_now + FUTURE_TOLERANCE:
        event_at = None
    read_at = _not_ahead(read_at, source_now)
    if known is None:
        return _first_word(value, event_at, arrived_at, read_at, source_now)
    known = replace(
        known,
        event_at=_not_ahead(known.event_at, source_now),
        read_at=_not_ahead(known.read_at, source_now),
    )
    told = replace(known, delivered_at=_latest(known.delivered_at, arrived_at))
    if value is not None and value == known.value:
        # A word that agrees and has no place in time may be as new as now: what is older than now
        # must not be taken for newer than it.
        newest = _latest(known.event_at, source_now if event_at is None else event_at)
        return Decision(replace(told, event_at=newest), "same")
    if (
        value is not None
        and known.value is not None  # what was found gone comes back only by the source's word
        and event_at is not None
        and not is_replayed(event_at, source_now)
        and _is_after(event_at, known.event_at)
        and _is_after_read(event_at, known.read_at)
    ):
        # Older doubts are still unjudged: a newer word of one witness does not answer another.
        doubts = tuple(doubt for doubt in known.doubts if doubt != value)
        return Decision(
            replace(told, value=value, doubts=doubts, event_at=event_at), "newer", bool(doubts)
        )
    return Decision(
        replace(told, doubts=with_doubt(known.doubts, value)), "contradicts", ask_soon=True
    )


def on_read(
    known: ValueState | None,
    *,
    value: Value,
    began_at: datetime,
    source_at: datetime | None,
    settle: timedelta,
) -> Decision:
    """Judge what one read says of one variant; `value` None: the source no longer has it.

    `began_at` is this host's moment before the request left; reads of one variant are judged in
    the order of their beginnings.
    """
    if known is None:
        return Decision(ValueState(value=value, read_at=source_at), "settled")
    seen = replace(known, read_at=_latest(known.read_at, source_at))
    if known.delivered_at is None or began_at >= known.delivered_at + settle:
        untold = value != known.value and value not in known.doubts and None not in known.doubts
        missed = untold and value is not None and known.value is not None
        return Decision(replace(seen, value=value, doubts=()), "settled", missed=missed)
    if value == known.value:
        is_witness = began_at >= known.delivered_at + settle / WITNESS_SHARE
        if is_witness or not known.doubts:
            return Decision(replace(seen, doubts=()), "agrees")
        return Decision(seen, "not-settled")
    return Decision(replace(seen, doubts=with_doubt(known.doubts, value)), "not-settled")


def with_doubt(doubts: tuple[Value, ...], value: Value) -> tuple[Value, ...]:
    """Return the doubts with one more witness's value."""
    return doubts if value in doubts else (*doubts, value)


def is_replayed(event_at: datetime | None, source_now: datetime) -> bool:
    """Tell whether an event is older than any that the sender still tries to deliver."""
    return event_at is not None and event_at < source_now - RETRIED_FOR


def _first_word(
    value: Value,
    event_at: datetime | None,
    arrived_at: datetime,
    read_at: datetime | None,
    source_now: datetime,
) -> Decision:
    placed = (
        value is not None
        and event_at is not None
        and not is_replayed(event_at, source_now)
        and _is_after_read(event_at, read_at)
    )
    value_state = ValueState(
        value=value or "",
        doubts=() if placed else (None,),
        event_at=event_at if placed else None,
        read_at=read_at,
        delivered_at=arrived_at,
    )
    return Decision(value_state, "first-word" if placed else "first-word-doubted", ask_soon=True)


def _not_ahead(moment: datetime | None, source_now: datetime) -> datetime | None:
    """Return a moment of Dreamship's clock, None for one that its clock has yet to reach.

    It was learned from a clock that was wrong for a while, and would outdate every honest event.
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
