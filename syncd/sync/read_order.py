"""Decides which kind of call goes first, from the calls that were made. Pure.

Reads that deliveries request go first: conflicts, then confirming reads. Sweeps and dry runs have
every fourth call, by turns: items that an operator named, dry runs, and the catalogue. So no kind
waits for ever, and many calls of one kind take only the turns of that kind.
"""

from __future__ import annotations

from msgspec import Struct

from syncd.core.jobs import JobKind

DELIVERIES: tuple[JobKind, ...] = ("conflict", "confirm")
CATALOGUE: tuple[JobKind, ...] = ("page", "unread", "stale")
# Of this many calls, one goes first to sweeps and dry runs.
SWEEP_TURN = 4
# Of this many calls, one goes to a confirming read before any conflict.
SETTLE_TURN = 8
# Of this many items of the catalogue, one is the item that was not read for longest, even if other
# items were never read.
STALE_TURN = 4


class Turns(Struct, frozen=True):
    """The calls that were made, as far as they matter for the next one."""

    calls: int = 0
    of_sweeps: int = 0
    items: int = 0
    is_after_page: bool = False

    def after(self, kind: JobKind) -> Turns:
        """Return the turns after one more call."""
        is_item = kind in {"unread", "stale"}
        return Turns(
            calls=self.calls + 1,
            of_sweeps=self.of_sweeps + (kind not in DELIVERIES),
            items=self.items + is_item,
            is_after_page=kind == "page" if kind in CATALOGUE else self.is_after_page,
        )

    @property
    def order(self) -> tuple[JobKind, ...]:
        """All kinds of calls, in the order in which they may leave."""
        deliveries = DELIVERIES[::-1] if self.calls % SETTLE_TURN == 1 else DELIVERIES
        groups: tuple[tuple[JobKind, ...], ...] = (("requested",), ("dry_run",), self._catalogue)
        first = self.of_sweeps % len(groups)
        sweeps = tuple(kind for group in groups[first:] + groups[:first] for kind in group)
        is_for_sweeps = self.calls % SWEEP_TURN == SWEEP_TURN - 1
        return sweeps + deliveries if is_for_sweeps else deliveries + sweeps

    @property
    def _catalogue(self) -> tuple[JobKind, ...]:
        """Pages first, but never two before an item that waits: a list may have no end."""
        is_stale_first = self.items % STALE_TURN == STALE_TURN - 1
        items: tuple[JobKind, ...] = ("stale", "unread") if is_stale_first else ("unread", "stale")
        return (*items, "page") if self.is_after_page else ("page", *items)
