"""Decides which kind of call goes first, from the calls that were made. Pure.

Reads that deliveries request go first: conflicts, then confirming reads. Sweeps and dry runs have
every fourth call, by turns: items that an operator named, dry runs, and the catalogue. So no kind
waits for ever, and many calls of one kind take only the turns of that kind. Reads that nobody
waits for come last, at the rate of background calls.
"""

from __future__ import annotations

from msgspec import Struct

from syncd.core.jobs import JobKind

DELIVERIES: tuple[JobKind, ...] = ("conflict", "confirm")
CATALOGUE: tuple[JobKind, ...] = ("page", "unread", "stale")
HINTS: tuple[JobKind, ...] = ("list", "hinted")
# Of this many calls, one goes first to sweeps and dry runs.
SWEEP_TURN = 4
# Of this many calls, one goes to a confirming read before any conflict.
CONFIRM_TURN = 8
# Of this many items of the catalogue, one is the item that was not read for longest, even if other
# items were never read.
STALE_TURN = 4
# Of this many background calls, one goes to the sweep before any hint: each row may change always.
PACED_TURN = 2


class Turns(Struct, frozen=True):
    """The calls that were made, as far as they matter for the next one."""

    calls: int = 0
    of_sweeps: int = 0
    items: int = 0
    background: int = 0
    is_after_page: bool = False

    def after(self, kind: JobKind, *, is_background: bool = False) -> Turns:
        """Return the turns after one more call.

        A background call ends the turn of sweeps: without another call, that turn would last, and
        the sweep in the background would go before every hint.
        """
        is_item = kind in {"unread", "stale"}
        is_turn = self.is_for_sweeps or not is_background
        return Turns(
            calls=self.calls + is_turn,
            of_sweeps=self.of_sweeps + (is_turn and kind not in DELIVERIES),
            items=self.items + is_item,
            background=self.background + is_background,
            is_after_page=kind == "page" if kind in CATALOGUE else self.is_after_page,
        )

    @property
    def order(self) -> tuple[JobKind, ...]:
        """The kinds of calls that somebody waits for, in the order in which they may leave."""
        deliveries = DELIVERIES[::-1] if self.calls % CONFIRM_TURN == 1 else DELIVERIES
        groups: tuple[tuple[JobKind, ...], ...] = (("requested",), ("dry_run",), self._catalogue)
        first = self.of_sweeps % len(groups)
        sweeps = tuple(kind for group in groups[first:] + groups[:first] for kind in group)
        return sweeps + deliveries if self.is_for_sweeps else deliveries + sweeps

    @property
    def is_for_sweeps(self) -> bool:
        """Whether sweeps and dry runs have the next call, also a sweep in the background."""
        return self.calls % SWEEP_TURN == SWEEP_TURN - 1

    def rest(self, *, is_background_due: bool) -> tuple[JobKind, ...]:
        """Return the kinds of calls that nobody waits for; they come after all others."""
        if not is_background_due:
            return ()
        is_sweep_first = self.background % PACED_TURN == PACED_TURN - 1
        paced = self._catalogue + HINTS if is_sweep_first else HINTS + self._catalogue
        return (*paced, "background")

    @property
    def _catalogue(self) -> tuple[JobKind, ...]:
        """Pages first, but never two before an item that waits: a list may have no end."""
        is_stale_first = self.items % STALE_TURN == STALE_TURN - 1
        items: tuple[JobKind, ...] = ("stale", "unread") if is_stale_first else ("unread", "stale")
        return (*items, "page") if self.is_after_page else ("page", *items)
