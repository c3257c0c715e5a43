"""Where a listing goes on. Pure: the pages come in, the next position goes out."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

# A listing that moved while it was read is read again, this often at most.
MAX_ATTEMPTS = 3


class Position(Struct, frozen=True):
    """Where the listing of a sweep stands, so that a restart goes on there.

    `category` None: the whole catalogue. `count` is the total that the first page of this attempt
    named; an attempt that saw it change (`shifted`) is made again, since an item may have slid
    from the page not yet read to the one already read.
    """

    category: int | None = None
    page: int = 1
    attempt: int = 1
    count: int | None = None
    shifted: bool = False


def first(categories: tuple[int, ...]) -> Position:
    """Return where to begin: the whole catalogue when no category is named."""
    return Position(categories[0] if categories else None)


def following(
    position: Position, *, count: int | None, has_next: bool, categories: tuple[int, ...]
) -> Position | None:
    """Return where to go on after a page that named this `count`; None: the listing is whole."""
    is_first = position.page == 1
    moved = position.shifted or (not is_first and count != position.count)
    here = replace(position, count=count if is_first else position.count, shifted=moved)
    if has_next:
        return replace(here, page=here.page + 1)
    return _after_last(here, categories)


def cut_short(position: Position, categories: tuple[int, ...]) -> Position | None:
    """Return where to go on when the page that was promised is not there any more."""
    return _after_last(replace(position, shifted=True), categories)


def _after_last(position: Position, categories: tuple[int, ...]) -> Position | None:
    if position.shifted and position.attempt < MAX_ATTEMPTS:
        return Position(position.category, attempt=position.attempt + 1)
    if position.category is None or position.category not in categories:
        return None
    later = categories[categories.index(position.category) + 1 :]
    return Position(later[0]) if later else None
