"""Whether the rows of the list show which items have changed. Pure.

A page of the list costs one call for a hundred items. Nobody knows whether a row changes with the
availability of its variants, so this is measured: of the changes that reads found, how many had
changed the row of their item too?
"""

from __future__ import annotations

from datetime import timedelta

from msgspec import Struct

# Fewer changes show nothing.
FEWEST_CHECKED = 10
# Rows are useful if they show this share of the changes, and if no larger share of all rows changes
# from one reading to the next: rows that always change show nothing.
USEFUL_SHARE = 0.25
MOST_FLAGGED = 0.25
# Older observations count less: at these numbers the counts are halved.
HALVED_AT = 200
LISTED_HALVED_AT = 100_000
# The list is read at most this often, and takes at most this share of the background calls.
SHORTEST_INTERVAL = timedelta(minutes=4)
LIST_SHARE = 1 / 6


class HintCounts(Struct, frozen=True):
    """How often the rows of changed items had changed too.

    `checked`: changes found by reads, of items whose row is known. `predicted`: of these, the
    changes whose row had changed too. `listed`: rows on pages on which a row had changed.
    `flagged`: of these, the rows that had changed.
    """

    checked: int = 0
    predicted: int = 0
    listed: int = 0
    flagged: int = 0

    @property
    def is_useful(self) -> bool | None:
        """Whether rows show changes; None: too few changes were checked."""
        if self.checked < FEWEST_CHECKED:
            return None
        return (
            self.predicted >= self.checked * USEFUL_SHARE
            and self.flagged <= self.listed * MOST_FLAGGED
        )


def add(
    counts: HintCounts, *, checked: int, predicted: int, listed: int, flagged: int
) -> HintCounts:
    """Return the counts with more observations."""
    checked, predicted = counts.checked + checked, counts.predicted + predicted
    listed, flagged = counts.listed + listed, counts.flagged + flagged
    if checked >= HALVED_AT:
        checked, predicted = checked // 2, predicted // 2
    if listed >= LISTED_HALVED_AT:
        listed, flagged = listed // 2, flagged // 2
    return HintCounts(checked, predicted, listed, flagged)


def interval(pages: int, background_per_minute: float) -> timedelta:
    """Return the time between the beginnings of two readings of a list of so many pages."""
    return max(
        SHORTEST_INTERVAL, timedelta(minutes=pages / max(0.01, background_per_minute * LIST_SHARE))
    )
