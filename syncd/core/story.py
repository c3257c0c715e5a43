"""The story of a variant: its deliveries and changes as sentences, the oldest first. Pure."""

from __future__ import annotations

from msgspec import Struct

from syncd.core.explain import RULES, VariantHistory
from syncd.core.model import Row
from syncd.core.plain_text import shortened

_MAX_QUOTED_CHARS = 100


class Event(Struct, frozen=True):
    """One event: a moment in the format of the mirror, and sentences about it."""

    at: str
    text: str


def story(history: VariantHistory) -> list[Event]:
    """Return the stored events of a variant, the oldest first."""
    effects = _effects(history.changes)
    events = [(row["received_at"], 0, _delivery(row)) for row in history.deliveries]
    events += [
        (row["recorded_at"], 1, _change(row) + effects.get(row["seq"], ""))
        for row in history.changes
    ]
    merged: list[Event] = []
    for at, _, text in sorted(events):
        if text.startswith(" ") and merged:
            # The effect of a change that the delivery before it made.
            merged[-1] = Event(merged[-1].at, merged[-1].text + text)
        elif text:
            merged.append(Event(at, text.strip()))
    return merged


def _delivery(row: Row) -> str:
    name = f"Delivery {row['delivery_id']}"
    if row["outcome"] == "quarantined":
        return f"{name} was not understood. It names this variant or its item, so a read checks it."
    reported = "a change" if row["told"] is None else _quoted(row["told"])
    why = row["reason"] or RULES.get(row["rule"], "")
    return f"{name} reported {reported}{f': {why}' if why else ''}."


def _change(change: Row) -> str:
    """Describe a change, unless a delivery made it: the text of the delivery includes it."""
    if change["cause"] == "webhook":
        return ""
    if change["cause"] == "config":
        return "The configuration changed."
    before, after = change["old_availability"], change["availability"]
    if after is None:
        return "A read of the catalogue no longer found the variant, so syncd removed it."
    missed = " No delivery had reported that." if change["missed"] else ""
    if before is None:
        return f"A read found the variant: it was {_quoted(after)}.{missed}"
    if before == after:
        return f"A read confirmed {_quoted(after)}.{missed}"
    return f"A read found {_quoted(after)} instead of {_quoted(before)}.{missed}"


def _effects(changes: list[Row]) -> dict[int, str]:
    """Return the effect of each change on sales, by its number; `changes` has the newest first."""
    effects = {}
    sold: bool | None = None
    for change in reversed(changes):
        is_sold = bool(change["sellable"])
        if is_sold != sold and (sold is not None or change["old_availability"] is None):
            effects[change["seq"]] = (
                " From then on the shop could sell it."
                if is_sold
                else " From then on the shop could not sell it."
            )
        sold = is_sold
    return effects


def _quoted(value: str) -> str:
    return repr(shortened(value, _MAX_QUOTED_CHARS))
