"""Adds rows of variants, changes and requests to read to a change set."""

from __future__ import annotations

from datetime import datetime

from syncd.core.model import Cause, Labels
from syncd.core.records import Change, ChangeSet, RefreshRequest, VariantState


def add_change(
    change_set: ChangeSet,
    stored: VariantState | None,
    state: VariantState,
    *,
    cause: Cause,
    occurred_at: datetime,
    now: datetime,
    missed: bool = False,
    during_downtime: bool = False,
) -> None:
    """Add the new row of a variant, and a change if the feed shows a difference."""
    change_set.variants[state.variant_id] = state
    if stored is not None and stored.item_id != state.item_id:
        change_set.moved_variants.add(state.variant_id)
    old = None if stored is None else stored.value_state.value
    old_sellable = stored is not None and stored.sellable
    if stored is not None and (old, old_sellable) == (state.value_state.value, state.sellable):
        return
    if stored is None and state.value_state.value is None:
        return  # removed before it was ever stored: readers of the feed never had it
    change_set.changes.append(
        Change(
            variant_id=state.variant_id,
            item_id=state.item_id,
            old_availability=old,
            availability=state.value_state.value,
            old_sellable=old_sellable,
            sellable=state.sellable,
            cause=cause,
            rule=state.rule,
            missed=missed,
            occurred_at=occurred_at,
            recorded_at=now,
            during_downtime=during_downtime,
        )
    )


def request_refresh(
    change_set: ChangeSet,
    item_id: int,
    urgent_at: datetime | None,
    settle_at: datetime,
) -> None:
    """Request a read of an item; several requests for one item become one."""
    final_at = settle_at
    other = change_set.refresh_requests.get(item_id)
    if other is not None:
        urgent_at = other.urgent_at if urgent_at is None else urgent_at
        final_at = max(other.final_at, settle_at)
        settle_at = min(other.settle_at, settle_at)
    change_set.refresh_requests[item_id] = RefreshRequest(item_id, urgent_at, settle_at, final_at)


def merge_labels(stored: VariantState | None, labels: Labels) -> Labels:
    """Return the newer labels; an old label stays where the newer observation has none."""
    if stored is None:
        return labels
    old = stored.labels
    return Labels(
        name=old.name if labels.name is None else labels.name,
        color=old.color if labels.color is None else labels.color,
        size=old.size if labels.size is None else labels.size,
    )
