"""What both witnesses write: a variant's row with its change, and a question to the source."""

from __future__ import annotations

from datetime import datetime

from syncd.core.model import Cause, Labels
from syncd.core.records import Change, ChangeSet, RefreshRequest, VariantState


def add_change(
    writes: ChangeSet,
    known: VariantState | None,
    state: VariantState,
    *,
    cause: Cause,
    occurred_at: datetime,
    now: datetime,
    missed: bool = False,
    is_excused: bool = False,
) -> None:
    """Write a variant's new row, and tell the feed if its readers would see a difference."""
    writes.variants[state.variant_id] = state
    if known is not None and known.item_id != state.item_id:
        writes.moved.add(state.variant_id)
    old = None if known is None else known.value_state.value
    old_sellable = known is not None and known.sellable
    if known is not None and (old, old_sellable) == (state.value_state.value, state.sellable):
        return
    if known is None and state.value_state.value is None:
        return  # gone before it was ever known: nothing a reader of the feed could have
    writes.changes.append(
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
            is_excused=is_excused,
        )
    )


def request_refresh(
    writes: ChangeSet, item_id: int, asked_at: datetime | None, settle_at: datetime
) -> None:
    """Ask the source about an item; several questions about one are asked together."""
    before, latest_at = writes.query_runner.get(item_id), settle_at
    if before is not None:
        asked_at = before.asked_at if asked_at is None else asked_at
        latest_at, settle_at = (
            max(before.latest_at, settle_at),
            min(before.settle_at, settle_at),
        )
    writes.query_runner[item_id] = RefreshRequest(item_id, asked_at, settle_at, latest_at)


def merge_labels(known: VariantState | None, labels: Labels) -> Labels:
    """Return the newer names, keeping an old one where the newer observation is silent."""
    if known is None:
        return labels
    old = known.labels
    return Labels(
        name=old.name if labels.name is None else labels.name,
        color=old.color if labels.color is None else labels.color,
        size=old.size if labels.size is None else labels.size,
    )
