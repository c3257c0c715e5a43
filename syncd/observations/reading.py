"""A finished read of one item, what a whole sweep did not find, and a changed configuration."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec.structs import replace

from syncd.merge import Value, on_read
from syncd.model import ItemRead, Labels, SourceVariant
from syncd.observations.noting import ask, fuller, note
from syncd.state import ItemState, Policy, VariantState, Writes


def read(
    known: dict[int, VariantState],
    before: ItemState | None,
    seen: ItemRead,
    policy: Policy,
    *,
    now: datetime,
) -> Writes:
    """Judge a finished read of one item against the `known` variants of it.

    `known` holds every variant the mirror places in this item and every one the read names. A read
    that began before the item's last one is overtaken: what it says may be older, so where it
    disagrees the source is asked again.
    """
    writes = Writes()
    if policy.excludes(seen.item_id):
        return writes  # it was asked for before the configuration left it out
    told: dict[int, SourceVariant] = {v.variant_id: v for v in seen.variants or ()}
    overtaken = (
        before is not None
        and before.confirmed_at is not None
        and seen.began_at < before.confirmed_at
    )
    for variant_id in [*told, *(v for v in known if v not in told)]:
        state = known.get(variant_id)
        variant = told.get(variant_id)
        if variant is None and state is not None and state.item_id != seen.item_id:
            continue  # it has moved to another item, whose read speaks for it
        value = None if variant is None else variant.value
        if overtaken:
            if state is None or state.belief.value != value or state.belief.verifying:
                ask(writes, seen.item_id, now, now)
            continue
        looked = _looked(seen, variant_id, state, variant, policy, now=now)
        if state is not None and (settles_at := _settles_at(seen, state, policy)) is not None:
            ask(writes, seen.item_id, None, settles_at)
        if looked is not None:
            note(
                writes,
                state,
                looked[0],
                cause="read",
                occurred_at=seen.began_at,
                now=now,
                missed=looked[1],
            )
    return writes


def _settles_at(seen: ItemRead, state: VariantState, policy: Policy) -> datetime | None:
    """Return when a read of this variant is settled, None if this one is.

    The delivery asked for that read already, but `settle` may be longer since.
    """
    delivered_at = state.belief.delivered_at
    if delivered_at is None or seen.began_at >= delivered_at + policy.settle:
        return None
    return delivered_at + policy.settle


def _looked(
    seen: ItemRead,
    variant_id: int,
    known: VariantState | None,
    variant: SourceVariant | None,
    policy: Policy,
    *,
    now: datetime,
) -> tuple[VariantState, bool] | None:
    """Return one variant's new row and whether its change was missed; None: nothing to write."""
    value: Value = None if variant is None else variant.value
    verdict = on_read(
        None if known is None else known.belief,
        value=value,
        began_at=seen.began_at,
        source_at=seen.source_at,
        settle=policy.settle,
    )
    belief = verdict.belief
    labels = fuller(known, Labels() if variant is None else variant.labels)
    sellable = policy.sells(belief.candidates)
    if known is None:
        new = VariantState(
            variant_id, seen.item_id, labels, belief, sellable, now, seen.began_at, "read"
        )
        return new, False
    changed = belief.value != known.belief.value
    state = VariantState(
        variant_id=variant_id,
        item_id=seen.item_id,
        labels=labels,
        belief=belief,
        sellable=sellable,
        changed_at=now if changed else known.changed_at,
        confirmed_at=known.confirmed_at if verdict.rule == "not-settled" else seen.began_at,
        source="read" if changed else known.source,
    )
    # The item's row tells when it was read: a variant that is as it was costs no write.
    as_it_was = replace(
        known, belief=replace(known.belief, read_at=belief.read_at), confirmed_at=seen.began_at
    )
    return None if state == as_it_was else (state, verdict.missed)


def not_found(
    known: dict[int, VariantState], began_at: datetime, policy: Policy, *, now: datetime
) -> Writes:
    """Judge variants of no known item after a whole sweep, begun at `began_at`, did not find them.

    What was delivered since then (or shortly before) waits for the next sweep.
    """
    writes = Writes()
    for state in known.values():
        verdict = on_read(
            state.belief, value=None, began_at=began_at, source_at=None, settle=policy.settle
        )
        if verdict.rule == "settled" and state.belief != verdict.belief:
            gone = replace(
                state,
                belief=verdict.belief,
                sellable=False,
                changed_at=now,
                confirmed_at=began_at,
                source="read",
            )
            note(writes, state, gone, cause="read", occurred_at=began_at, now=now)
    return writes


def rejudge(states: Sequence[VariantState], policy: Policy, *, now: datetime) -> Writes:
    """Judge again what is sellable and what is mirrored, after the configuration changed."""
    writes = Writes()
    for known in states:
        state = known
        if policy.excludes(known.item_id) and known.belief.value is not None:
            # Nobody will tell about it any more: it must not stay on sale.
            state = replace(
                state, belief=replace(known.belief, value=None, doubts=()), changed_at=now
            )
        state = replace(state, sellable=policy.sells(state.belief.candidates))
        if state != known:
            note(writes, known, state, cause="config", occurred_at=now, now=now)
    return writes
