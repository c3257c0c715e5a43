"""Why the mirror says what it says of a variant: its last decisions, in plain words."""

from __future__ import annotations

from msgspec import Struct

from syncd.core.merge import Rule
from syncd.core.model import JsonObject, Row
from syncd.core.plain_text import shortened

RULES: dict[Rule, str] = {
    "first-word": "the mirror did not have this variant; the delivery was taken, to be confirmed",
    "first-word-doubted": "the mirror did not have this variant and the delivery has no place in "
    "time; it is not sold before the source was asked",
    "same": "it said what the mirror said already",
    "newer": "it was newer than every delivery and read before it, and was applied at once",
    "contradicts": "it disagreed and was not surely newer, or it did not say what changed; the "
    "mirror kept its value and the source was asked",
    "settled": "a read that began long enough after the last delivery; what it says is the truth",
    "agrees": "a read soon after a delivery, and it agreed with the mirror; the doubt ended",
    "not-settled": "a read soon after a delivery, and it disagreed; the settled read decides",
    "ambiguous": "one answer had it with different values; it is sold only if all of them may be",
    "absent": "a sweep did not find it; it is not sold until the sweep ends and decides",
    "gone": "a sweep ended and had not found it; it was removed",
    "brake": "a sweep did not find it, nor too many others; none of it was believed",
    "not-found": "a whole sweep found no item that has it",
    "policy": "the configuration changed",
}


# Of a value or a name within a sentence.
_MAX_SAID_CHARS = 200
_UNLOCATED = (
    "A delivery named this variant, and the mirror does not know its item. A sweep of the "
    "catalogue finds it."
)


class VariantHistory(Struct, frozen=True):
    """What the mirror keeps about one variant.

    `row` is its row of view `availability`; `grounds` has `rule`, `decided_at`,
    `conflicting_values`, `item_read_at`, `item_is_gone`, `urgent_at` and `settle_at`; both None for
    an unknown variant.
    `deliveries` and `changes` are newest first.
    """

    variant_id: int
    row: Row | None
    grounds: Row | None
    deliveries: list[Row]
    changes: list[Row]
    is_unlocated: bool = False


def document(story: VariantHistory) -> JsonObject:
    """Return a story as `explain --json` prints it."""
    return {
        "variant_id": story.variant_id,
        "availability": story.row,
        "because": sentences(story),
        "grounds": story.grounds,
        "decisions": decisions(story),
    }


def sentences(story: VariantHistory) -> list[str]:
    """Return why the mirror says what it says, the most important first."""
    row, grounds = story.row, story.grounds
    if row is None or grounds is None:
        if story.is_unlocated:
            return [_UNLOCATED]
        return ["The mirror has never heard of this variant."]
    told = [_headline(row), _setter(story, row)]
    if row["verifying"]:
        against = ", ".join(
            "something else" if d is None else _said(d) for d in grounds["conflicting_values"]
        )
        told.append(f"It is being verified: set against it stands {shortened(against)}.")
        told += _doubter(story)
    told.append(
        f"Last known to be true at {row['confirmed_at']}; last judged at {grounds['decided_at']}: "
        f"{RULES[grounds['rule']]} ({grounds['rule']})."
    )
    if grounds["urgent_at"] is not None:
        told.append(f"The source is asked from {grounds['urgent_at']} on.")
    if grounds["settle_at"] is not None:
        told.append(f"A settled read of its item is due from {grounds['settle_at']} on.")
    return told


def decisions(story: VariantHistory) -> list[JsonObject]:
    """Return what deliveries and reads did, newest first; a read that changed nothing left none."""
    found: list[JsonObject] = [
        {
            "at": row["received_at"],
            "by": "delivery",
            "delivery_id": row["delivery_id"],
            "event_id": row["event_id"],
            "event_at": row["event_at"],
            "told": row["told"],
            "outcome": row["outcome"],
            "rule": row["rule"],
            "why": row["reason"] or RULES.get(row["rule"], ""),
        }
        for row in story.deliveries
    ]
    found += [
        {
            "at": row["recorded_at"],
            "by": row["cause"],
            "seq": row["seq"],
            "from": row["old_availability"],
            "to": row["availability"],
            "sellable": row["sellable"],
            "missed": row["missed"],
            "rule": row["rule"],
            "why": RULES.get(row["rule"], ""),
        }
        for row in story.changes
        if row["cause"] != "webhook"
    ]
    return sorted(found, key=lambda one: str(one["at"]), reverse=True)


def _headline(row: Row) -> str:
    names = (row[key] for key in ("item_name", "variant_name"))
    name = " ".join(shortened(str(one), _MAX_SAID_CHARS) for one in names if one)
    called = f" ({name})" if name else ""
    if row["removed"]:
        return f"Variant {row['variant_id']}{called} is gone from the catalogue, so not sellable."
    sold = "sellable" if row["sellable"] else "not sellable"
    return f"Variant {row['variant_id']}{called} is {_said(row['availability'])}, {sold}."


def _said(value: str) -> str:
    """Return a value in quotes; the sentence goes on after it, however long it is."""
    return repr(shortened(value, _MAX_SAID_CHARS))


def _doubter(story: VariantHistory) -> list[str]:
    """Name the newest delivery if it was not understood: nothing else shows why it is doubted."""
    newest = story.deliveries[0] if story.deliveries else None
    if newest is None or newest["outcome"] != "quarantined":
        return []
    told = (
        f"Delivery {newest['delivery_id']} was not understood and names this variant or its item; "
        "so Dreamship is asked."
    )
    return [told]


def _setter(story: VariantHistory, row: Row) -> str:
    change = next(
        (one for one in story.changes if one["old_availability"] != one["availability"]), None
    )
    if change is None:
        return f"A {row['source']} set that at {row['changed_at']}."
    if change["cause"] != "webhook":
        missed = "; no delivery had told it" if change["missed"] else ""
        by = "A changed configuration" if change["cause"] == "config" else "A read"
        return f"{by} set that at {change['recorded_at']} (change {change['seq']}){missed}."
    delivery = next(
        (d for d in story.deliveries if d["rule"] in {"newer", "first-word", "first-word-doubted"}),
        None,
    )
    by = "A delivery" if delivery is None else f"Delivery {delivery['delivery_id']}"
    return f"{by} set that at {change['recorded_at']} (change {change['seq']})."
