"""Jobs, each worth a call to Dreamship; and sweeps, which create most of them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import Struct, field

from syncd.core.model import SweepResult
from syncd.core.pagination import Position

JobKind = Literal[
    "conflict",
    "confirm",
    "requested",
    "dry_run",
    "page",
    "unread",
    "stale",
    "list",
    "hinted",
    "background",
]
"""The purpose of a call: two kinds for deliveries, items that an operator named, a dry run, three
kinds for the rest of a sweep of the catalogue, and three kinds that nobody waits for: a page of the
list for its rows, items whose row has changed, and the item that was not read for longest."""

SweepCause = Literal["start", "schedule", "operator", "locate", "quiet"]


class Job(Struct, frozen=True):
    """The next thing worth a call: one item, or one page of a sweep's listing.

    `sweep_id`: the sweep that requests it; None for a delivery. A "dry_run" has no item and no
    page: the dry run that waits for this turn makes the call. `is_background`: the call keeps to
    the rate of background calls.
    """

    kind: JobKind
    item_id: int | None = None
    sweep_id: int | None = None
    position: Position = Position()
    is_background: bool = False

    @property
    def is_urgent(self) -> bool:
        """Whether a variant is unsellable until the answer arrives."""
        return self.kind == "conflict"

    @property
    def is_for_sweep(self) -> bool:
        """Whether a sweep requests it."""
        return self.kind in {"requested", "page", "unread", "stale"}


class SweepProgress(Struct, frozen=True):
    """The progress of a sweep. `total` is None until the whole catalogue is listed.

    `is_paced`: it only makes background calls.
    """

    sweep_id: int
    began_at: datetime
    checked: int
    total: int | None
    remaining_calls: int
    is_paced: bool = False


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
    is_paced: bool = False

    @property
    def is_event(self) -> bool:
        """Whether to report it: a sweep in the background is reported if it found something."""
        found = self.changed + self.added + self.removed
        return not self.is_paced or found > 0 or self.result != "complete"
