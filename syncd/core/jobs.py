"""Jobs, each worth a call to Dreamship; and sweeps, which create most of them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import Struct, field

from syncd.core.model import SweepResult
from syncd.core.pagination import Position

JobKind = Literal["conflict", "confirm", "requested", "dry_run", "page", "unread", "stale"]
"""The purpose of a call: two kinds for deliveries, items that an operator named, a dry run, and
three kinds for the rest of a sweep of the catalogue."""

SweepCause = Literal["start", "schedule", "operator", "locate", "quiet"]


class Job(Struct, frozen=True):
    """The next thing worth a call: one item, or one page of a sweep's listing.

    `sweep_id`: the sweep that requests it; None for a delivery. A "dry_run" has no item and no
    page: the dry run that waits for this turn makes the call.
    """

    kind: JobKind
    item_id: int | None = None
    sweep_id: int | None = None
    position: Position = Position()

    @property
    def is_urgent(self) -> bool:
        """Whether a variant is unsellable until the answer arrives."""
        return self.kind == "conflict"

    @property
    def is_for_sweep(self) -> bool:
        """Whether a sweep requests it."""
        return self.kind in {"requested", "page", "unread", "stale"}


class SweepProgress(Struct, frozen=True):
    """The progress of a sweep. `total` is None until the whole catalogue is listed."""

    sweep_id: int
    began_at: datetime
    checked: int
    total: int | None
    remaining_calls: int


class SweepSummary(Struct, frozen=True):
    """The results of a finished sweep, as `reconcile-now --json` prints them."""

    sweep_id: int
    is_catalogue: bool
    began_at: datetime
    result: SweepResult
    items: int
    variants: int
    changed: int
    added: int
    removed: int
    missed: int
    calls: int
    throttled: int
    seconds: float
    failed_items: list[int]
    error: str = ""
    removals_held: int = field(default=0, name="held")
