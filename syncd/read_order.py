"""Which kind of call goes first. Pure: counts of calls come in, an order of kinds goes out.

Deliveries ask first: doubts, then confirming reads. Sweeps and dry runs share at least every fourth
call by turns: items that an operator named, dry runs, and the catalogue. So no kind waits for ever,
and a flood of one kind costs each other kind no more than that kind's turn.
"""

from __future__ import annotations

from syncd.ports import JobKind

DELIVERIES: tuple[JobKind, ...] = ("doubt", "settle")
# One call in so many goes to sweeps and dry runs first.
TURN = 4
# One call in so many goes to a confirming read before any doubt.
SETTLE_TURN = 8


def order(turn: int, sweep_turn: int, *, is_after_page: bool) -> tuple[JobKind, ...]:
    """Return every kind of call, the most urgent first.

    `turn` counts all calls and `sweep_turn` those of sweeps and dry runs. `is_after_page`: the last
    of those read a page. The next one reads an item, if one waits: a list may have no end.
    """
    deliveries = DELIVERIES[::-1] if turn % SETTLE_TURN == 1 else DELIVERIES
    groups: tuple[tuple[JobKind, ...], ...] = (
        ("asked",),
        ("look",),
        _catalogue(sweep_turn, is_after_page=is_after_page),
    )
    first = sweep_turn % len(groups)
    sweeps = tuple(kind for group in groups[first:] + groups[:first] for kind in group)
    return sweeps + deliveries if turn % TURN == TURN - 1 else deliveries + sweeps


def _catalogue(sweep_turn: int, *, is_after_page: bool) -> tuple[JobKind, ...]:
    if not is_after_page:
        return "page", "unread", "stale"
    # What was never read goes first; every other time what was not read for longest does.
    if sweep_turn // 2 % 2:
        return "stale", "unread", "page"
    return "unread", "stale", "page"
