"""Explains the state of a variant in the mirror: its last decisions, in plain language."""

from __future__ import annotations

from msgspec import Struct

from syncd.core.merge import Rule
from syncd.core.model import JsonObject, Row
from syncd.core.plain_text import shortened

RULES: dict[Rule, str] = {
    "first-word": "the mirror did not have this variant; the delivery was applied, and a read "
    "confirms it",
    "first-word-doubted": "the mirror did not have this variant, and the delivery has no usable "
    "timestamp; the variant is unsellable until a read confirms the delivery",
    "same": "the delivery has the same value as the mirror",
    "newer": "the delivery is newer than all earlier deliveries and reads; it was applied at once",
    "contradicts": "the delivery disagrees and is not certainly newer, or it has no value; the "
    "mirror did not change its value, and a read decides",
    "settled": "the read began long enough after the last delivery, so its value is final",
    "agrees": "the read began soon after a delivery and agrees with the mirror; the verification "
    "ended",
    "not-settled": "the read began soon after a delivery and disagrees; the settled read decides",
    "ambiguous": "one answer has the variant with different values; the variant is sellable only "
    "if all of them are",
    "absent": "a sweep did not find the variant; it is unsellable until the end of the sweep",
    "gone": "a sweep that has ended did not find the variant, and removed it",
    "brake": "a sweep did not find the variant and too many others, so it removed none of them",
    "not-found": "a whole sweep found no item with this variant",
    "taken-over": "this host went on from the published rows of the host that was active before",
    "policy": "the configuration changed",
}


class Reason(Struct, frozen=True):
    """Why a variant is not sold: in a few words for a table, and as a sentence."""

    short: str
    sentence: str


# The first that applies, in this order, is the column `reason` of the views.
REASONS: dict[str, Reason] = {
    "unknown": Reason("leads to no variant", "The mirror has no such variant."),
    "removed": Reason(
        "removed", "Dreamship's catalogue no longer has it, or [catalog] excludes it."
    ),
    "verifying": Reason(
        "verifying", "Its value is in doubt, and one of the possible values may not be sold."
    ),
    "item": Reason(
        "status of its item", "availability.blocked_item_statuses lists a status of its item"
    ),
    "value": Reason(
        "value not sellable", "availability.sellable of the configuration does not list its value."
    ),
}


# The longest value or name in a sentence.
_MAX_QUOTED_CHARS = 200
_UNPLACED = (
    "A delivery named this variant, and the mirror does not know its item. A sweep of the "
    "catalogue finds it."
)


class VariantHistory(Struct, frozen=True):
    """The information of the mirror about one variant.

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
    is_unplaced: bool = False


# Keys of `explain --json` that stay although the columns have other names: scripts read them.
_STABLE_KEYS = {
    "decided_at": "judged_at",
    "conflicting_values": "doubts",
    "missing_since": "absent_at",
    "urgent_at": "asked_at",
}


def document(history: VariantHistory) -> JsonObject:
    """Return the history of a variant as `explain --json` prints it."""
    grounds = history.grounds
    return {
        "variant_id": history.variant_id,
        "availability": history.row,
        "because": sentences(history),
        "grounds": None
        if grounds is None
        else {_STABLE_KEYS.get(key, key): value for key, value in grounds.items()},
        "decisions": decisions(history),
    }


def sentences(history: VariantHistory) -> list[str]:
    """Return the reasons for the state of the variant, the most important first."""
    row, grounds = history.row, history.grounds
    if row is None or grounds is None:
        if history.is_unplaced:
            return [_UNPLACED]
        return ["The mirror does not have this variant."]
    lines = [_headline(row), *_reason(row), _setter(history, row)]
    if row["verifying"]:
        against = ", ".join(
            "another value" if d is None else _quoted(d) for d in grounds["conflicting_values"]
        )
        lines.append(f"A read verifies it; the conflicting values are {shortened(against)}.")
        lines += _quarantined_delivery(history)
    lines.append(
        f"Last known to be true at {row['confirmed_at']}; "
        f"last decision at {grounds['decided_at']}: {RULES[grounds['rule']]} ({grounds['rule']})."
    )
    if grounds["urgent_at"] is not None:
        lines.append(f"An urgent read of its item is due from {grounds['urgent_at']} on.")
    if grounds["settle_at"] is not None:
        lines.append(f"A settled read of its item is due from {grounds['settle_at']} on.")
    return lines


def decisions(history: VariantHistory) -> list[JsonObject]:
    """Return the decisions about deliveries and reads, newest first, without reads that agreed."""
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
        for row in history.deliveries
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
        for row in history.changes
        if row["cause"] != "webhook"
    ]
    return sorted(found, key=lambda one: str(one["at"]), reverse=True)


def _headline(row: Row) -> str:
    names = (row[key] for key in ("item_name", "variant_name"))
    name = " ".join(shortened(str(one), _MAX_QUOTED_CHARS) for one in names if one)
    called = f" ({name})" if name else ""
    if row["removed"]:
        return f"Variant {row['variant_id']}{called} is gone from the catalogue, so not sellable."
    sold = "sellable" if row["sellable"] else "not sellable"
    return f"Variant {row['variant_id']}{called} is {_quoted(row['availability'])}, {sold}."


def _reason(row: Row) -> list[str]:
    """Say why the variant is not sold, unless the headline has said so."""
    reason = row["reason"]
    if reason is None or reason == "removed":
        return []
    sentence = REASONS[reason].sentence
    if reason == "item":
        statuses = (row["item_release_status"], row["item_operational_status"])
        named = " and ".join(_quoted(status) for status in statuses if status)
        sentence = f"{sentence}, which has {named}."
    return [f"Not sellable, because of `{reason}`: {sentence}"]


def _quoted(value: str) -> str:
    """Return a value in quotes, shortened if it is long."""
    return repr(shortened(value, _MAX_QUOTED_CHARS))


def _quarantined_delivery(history: VariantHistory) -> list[str]:
    """Name the newest delivery if it was not understood: it is the cause of the verification."""
    newest = history.deliveries[0] if history.deliveries else None
    if newest is None or newest["outcome"] != "quarantined":
        return []
    line = (
        f"Delivery {newest['delivery_id']} was not understood and names this variant or its item, "
        "so a read verifies the variant."
    )
    return [line]


def _setter(history: VariantHistory, row: Row) -> str:
    change = next(
        (one for one in history.changes if one["old_availability"] != one["availability"]), None
    )
    if change is None:
        return f"A {row['source']} set that at {row['changed_at']}."
    if change["cause"] != "webhook":
        missed = "; no delivery reported it" if change["missed"] else ""
        by = "A changed configuration" if change["cause"] == "config" else "A read"
        return f"{by} set that at {change['recorded_at']} (change {change['seq']}){missed}."
    delivery = next(
        (
            d
            for d in history.deliveries
            if d["rule"] in {"newer", "first-word", "first-word-doubted"}
        ),
        None,
    )
    by = "A delivery" if delivery is None else f"Delivery {delivery['delivery_id']}"
    return f"{by} set that at {change['recorded_at']} (change {change['seq']})."
