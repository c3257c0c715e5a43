"""Where a listing goes on. Pure: the pages come in, the next position goes out.

Pages are asked for by number and `next` is never followed: where it points does not matter. A
listing may move while it is read (items slide between pages), so whatever shows that it did has it
read again; what a listing does not show is never gone because of that, it is asked for by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from msgspec import Struct
from msgspec.structs import replace

# A listing that moved while it was read is read again, this often at most.
MAX_ATTEMPTS = 3
# Pages in a row that bring nothing new and yet name a next one: it does not end by itself.
MAX_BARREN = 3


class Position(Struct, frozen=True):
    """Where the listing of a sweep stands, so that a restart goes on there.

    `category` None: the whole catalogue. `run` numbers the readings of a listing in this sweep, of
    which `attempt` are of this category. `count` is the total that the first page of this run
    named; `shifted` says that something moved since. `is_unsure`: a listing moved each time.
    """

    category: int | None = None
    page: int = 1
    run: int = 1
    attempt: int = 1
    count: int | None = None
    barren: int = 0
    shifted: bool = False
    is_unsure: bool = False


class Seen(Struct, frozen=True):
    """What one page brought: `new` items, `repeated` ones of this run, and how many so far.

    `is_old`: a cache answered, with a page from before the sweep.
    """

    new: int
    repeated: int
    listed: int
    count: int | None
    has_next: bool
    is_old: bool = False


def look(
    ids: Sequence[int],
    before: AbstractSet[int],
    *,
    count: int | None,
    has_next: bool,
    is_old: bool = False,
) -> Seen:
    """Return what a page with these items brought to a run that had shown those `before`."""
    new = len(set(ids) - before)
    return Seen(new, len(ids) - new, len(before | set(ids)), count, has_next, is_old)


def first(categories: tuple[int, ...]) -> Position:
    """Return where to begin: the whole catalogue when no category is named."""
    return Position(categories[0] if categories else None)


def following(position: Position, seen: Seen, categories: tuple[int, ...]) -> Position:
    """Return where to go on after a page; `page` 0: the listing is whole."""
    is_first = position.page == 1
    moved = (
        position.shifted
        or seen.is_old
        or seen.repeated > 0
        or (not is_first and seen.count != position.count)
        or (seen.has_next and seen.new == 0)
    )
    here = replace(
        position,
        count=seen.count if is_first else position.count,
        barren=0 if seen.new else position.barren + 1,
        shifted=moved,
    )
    if seen.has_next and here.barren < MAX_BARREN:
        return replace(here, page=here.page + 1)
    is_short = here.count is not None and seen.listed < here.count
    return _after_last(here, categories, is_short=is_short)


def cut_short(position: Position, categories: tuple[int, ...]) -> Position:
    """Return where to go on when the page that was promised is not there any more."""
    return _after_last(replace(position, shifted=True), categories, is_short=False)


def is_whole(position: Position) -> bool:
    """Tell whether nothing is left to list."""
    return position.page == 0


def again(position: Position, categories: tuple[int, ...]) -> Position | None:
    """Return a new reading of a whole listing that is known to have moved; None: often enough."""
    if position.run >= MAX_ATTEMPTS * max(1, len(categories)):
        return None
    return replace(first(categories), run=position.run + 1, attempt=MAX_ATTEMPTS)


def _after_last(position: Position, categories: tuple[int, ...], *, is_short: bool) -> Position:
    attempt, run = position.attempt, position.run + 1
    # A listing that names more items than it shows may always do so: once more, and no more.
    if (position.shifted and attempt < MAX_ATTEMPTS) or (is_short and attempt == 1):
        return Position(
            position.category, run=run, attempt=attempt + 1, is_unsure=position.is_unsure
        )
    is_unsure = position.is_unsure or position.shifted
    later: tuple[int, ...] = ()
    if position.category is not None and position.category in categories:
        later = categories[categories.index(position.category) + 1 :]
    if later:
        return Position(later[0], run=run, is_unsure=is_unsure)
    return replace(position, page=0, is_unsure=is_unsure)
