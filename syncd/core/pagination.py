"""The next position of a listing: a pure function of the position and the page.

Pages are read by number, so the address in `next` does not matter. A listing may change while it is
read, because items move between pages. Each sign of a change causes another reading of the listing.
An item that a listing does not show is not removed for that reason: it is read by itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from msgspec import Struct, field
from msgspec.structs import replace

from syncd.errors import SourceError, SourceRefused

# The most readings of a listing that changes while it is read.
MAX_ATTEMPTS = 3
# After so many pages in a row with a next page but without new items, the list ends.
MAX_BARREN = 3
# After so many unreadable pages in a row the list ends, if its length is unknown.
MAX_BROKEN = 2
# The most unreadable parts that are reported.
MAX_ERRORS = 5

# The most items of one list. Reading them takes more than a day, at 60 calls a minute for one key.
MAX_ITEMS = 100_000
# Some lists have 25 items a page, whatever the limit.
MAX_PAGES = 1_000

_NOWHERE = frozenset({"", "null", "none", "false", "undefined", "#"})
_PAGE_OF_URL = re.compile(r"[?&]page=(\d{1,9})(?:[&#]|$)")


class Position(Struct, frozen=True):
    """The position of a sweep in a listing; a restart continues there.

    `category` None: the whole catalogue. `run` numbers the readings of a listing in this sweep, of
    which `attempt` are of this category. `count` is the total that the first page of this run
    names. `shifted`: the listing has changed since then. `is_unsure`: a listing changed during each
    reading. `page_items` is the length of the longest page of this run, and `listed` the number of
    items that the run has shown. `broken` counts unreadable pages in a row; `errors` describes the
    unreadable parts. The names of the fields are persisted.
    """

    category: int | None = None
    page: int = 1
    run: int = 1
    attempt: int = 1
    count: int | None = None
    barren: int = 0
    shifted: bool = False
    is_unsure: bool = False
    page_items: int = 0
    listed: int = 0
    broken: int = 0
    errors: tuple[str, ...] = field(default=(), name="faults")  # persisted as in 0.1.0


class PageStats(Struct, frozen=True):
    """The content of one page: `new` items, `repeated` items of this run, and all items so far.

    `broken_rows` counts its unreadable rows. `is_old`: a cache answered with a page from before the
    sweep.
    """

    new: int
    repeated: int
    listed: int
    count: int | None
    has_next: bool
    broken_rows: int = 0
    is_old: bool = False


def leads_on(next_page: object, page: int) -> bool:
    """Return whether the `next` of a page, in any form, leads to another page.

    A missing, null, false, empty or zero `next` leads nowhere. Neither does the number of this page
    or of an earlier one: a list whose last page points to the first page ends there.
    """
    if isinstance(next_page, str):
        text = next_page.strip()
        found = _PAGE_OF_URL.search(text)
        if found is None and text.isascii() and text.isdigit():
            return int(text[:9]) > page
        return text.lower() not in _NOWHERE and (found is None or int(found.group(1)) > page)
    if isinstance(next_page, int | float) and not isinstance(next_page, bool):
        return next_page > page
    return bool(next_page)


def believable_count(count: object) -> int | None:
    """Return the total that a page names; None if no catalogue can have such a total."""
    if not isinstance(count, int) or isinstance(count, bool):
        return None
    return count if 0 <= count <= MAX_ITEMS else None


def page_stats(
    ids: Sequence[int],
    before: AbstractSet[int],
    *,
    listed: int,
    count: int | None,
    has_next: bool,
    broken_rows: int = 0,
    is_old: bool = False,
) -> PageStats:
    """Return the statistics of a page with these items, in a run that has `listed` items so far.

    `before` contains those of these items that the run has shown already, and maybe others.
    """
    new = len(set(ids) - before)
    return PageStats(new, len(ids) - new, listed + new, count, has_next, broken_rows, is_old)


def first(categories: tuple[int, ...]) -> Position:
    """Return the first position: in the whole catalogue if there are no categories."""
    return Position(categories[0] if categories else None)


def following(position: Position, stats: PageStats, categories: tuple[int, ...]) -> Position:
    """Return the position after a page; `page` 0: the listing is complete."""
    is_first = position.page == 1
    moved = (
        position.shifted
        or stats.is_old
        or stats.repeated > 0
        # After an unreadable first page the count is unknown.
        or (not is_first and not position.errors and stats.count != position.count)
        or (stats.has_next and stats.new == 0)
    )
    here = replace(
        position,
        count=stats.count if is_first or position.count is None else position.count,
        barren=0 if stats.new else position.barren + 1,
        shifted=moved,
        broken=0,
        listed=stats.listed,
        page_items=max(position.page_items, stats.new + stats.repeated + stats.broken_rows),
    )
    if stats.broken_rows:
        rows = f"{stats.broken_rows} rows of {_named(position)} cannot be read"
        here = _with_error(here, rows)
    if stats.has_next and (here.listed >= MAX_ITEMS or here.page >= MAX_PAGES):
        endless = f"{_list_of(here)} goes on after {here.listed:,} items on {here.page:,} pages"
        return _after_last(_with_error(here, endless, is_first=True), categories, is_short=False)
    if stats.has_next and here.barren < MAX_BARREN:
        return replace(here, page=here.page + 1)
    is_short = here.count is not None and stats.listed < here.count
    return _after_last(here, categories, is_short=is_short)


def cut_short(position: Position, categories: tuple[int, ...], *, listed: int) -> Position:
    """Return the position after a page that no longer exists.

    If the earlier pages have as many items as the list counts, the list is complete.
    """
    if position.count is None:
        return _after_last(position, categories, is_short=True)
    is_short = listed < position.count
    return _after_last(
        replace(position, shifted=position.shifted or is_short), categories, is_short=False
    )


def skipped(position: Position, categories: tuple[int, ...], reason: str) -> Position:
    """Return the position after a page that cannot be read; `reason` says why."""
    here = _with_error(position, f"{_named(position)}: {reason}")
    here = replace(here, broken=position.broken + 1)
    if here.count is not None and here.page_items:
        is_last = here.page * here.page_items >= here.count
    else:
        is_last = here.broken >= MAX_BROKEN
    if is_last:
        return _after_last(here, categories, is_short=False)
    return replace(here, page=here.page + 1)


def abandoned(position: Position, categories: tuple[int, ...], reason: str) -> Position:
    """Return the position after a category whose rest cannot be listed."""
    here = _with_error(position, f"{_named(position)}: {reason}")
    return _after_last(here, categories, is_short=False)


def after_missing(position: Position, categories: tuple[int, ...]) -> Position:
    """Return the position after a page that Dreamship does not have."""
    if position.page > 1:
        return cut_short(position, categories, listed=position.listed)
    return abandoned(position, categories, "Dreamship has none")


def after_unreadable(
    position: Position, categories: tuple[int, ...], error: SourceError
) -> Position:
    """Return the position after a page that cannot be read; a refusal concerns its category."""
    skip = abandoned if isinstance(error, SourceRefused) else skipped
    return skip(position, categories, error.message)


def is_start_of_list(position: Position) -> bool:
    """Return whether this is the first page of the list, which shows the state of the account."""
    return position.category is None and position.page == 1


def is_whole(position: Position) -> bool:
    """Return whether the listing is complete."""
    return position.page == 0


def again(position: Position, categories: tuple[int, ...]) -> Position | None:
    """Return the start of another reading of a changed listing; None after too many readings."""
    if position.run >= MAX_ATTEMPTS * max(1, len(categories)) or position.errors:
        return None
    return replace(first(categories), run=position.run + 1, attempt=MAX_ATTEMPTS)


def _after_last(position: Position, categories: tuple[int, ...], *, is_short: bool) -> Position:
    attempt, run = position.attempt, position.run + 1
    # A listing that counts more items than it shows may always do so: it is read once more only. A
    # listing with an unreadable part is always short, and another reading does not help.
    is_again = (position.shifted and attempt < MAX_ATTEMPTS) or (is_short and attempt == 1)
    if is_again and not position.errors:
        return Position(
            position.category, run=run, attempt=attempt + 1, is_unsure=position.is_unsure
        )
    is_unsure = position.is_unsure or position.shifted
    category = next_category(position, categories)
    if category is not None:
        return Position(category, run=run, is_unsure=is_unsure, errors=position.errors)
    return replace(position, page=0, is_unsure=is_unsure)


def next_category(position: Position, categories: tuple[int, ...]) -> int | None:
    """Return the category to list after that of `position`; None: it was the last list."""
    if position.category is None or position.category not in categories:
        return None
    later = categories[categories.index(position.category) + 1 :]
    return later[0] if later else None


def _with_error(position: Position, error: str, *, is_first: bool = False) -> Position:
    errors = (error, *position.errors) if is_first else (*position.errors, error)
    return replace(position, errors=errors[:MAX_ERRORS])


def _named(position: Position) -> str:
    return f"page {position.page} of {_list_of(position)}"


def _list_of(position: Position) -> str:
    return "the list" if position.category is None else f"category {position.category}"
