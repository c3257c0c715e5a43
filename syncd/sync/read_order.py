"""Which kind of call goes first. Pure: calls that were made come in, an order of kinds goes out.

Deliveries ask first: conflicts, then confirming reads. Sweeps and dry runs have every fourth call
by turns: items that an operator named, dry runs, and the catalogue. So no kind waits for ever, and
a flood of one kind costs each other kind no more than that kind's turn.
"""

from __future__ import annotations

from msgspec import Struct

from syncd.core.jobs import JobKind

DELIVERIES: tuple[JobKind, ...] = ("doubt", "settle")
CATALOGUE: tuple[JobKind, ...] = ("page", "unread", "stale")
# One call in so many goes to sweeps and dry runs first.
SWEEP_TURN = 4
# One call in so many goes to a confirming read before any doubt.
SETTLE_TURN = 8
# One item of the catalogue in so many is the one not read for longest, though others were never.
STALE_TURN = 4


class Turns(Struct, frozen=True):
    """How many calls of which kind were made, as far as it matters for the next one."""

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
        """Every kind of call, the one that goes first at its beginning."""
        deliveries = DELIVERIES[::-1] if self.calls % SETTLE_TURN == 1 else DELIVERIES
        groups: tuple[tuple[JobKind, ...], ...] = (("asked",), ("look",), self._catalogue)
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
