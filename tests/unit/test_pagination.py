"""Listings that move while they are read: each sign of it, and the end of each."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from syncd.core import pagination
from syncd.core.pagination import (
    MAX_ATTEMPTS,
    MAX_BARREN,
    MAX_ITEMS,
    MAX_PAGES,
    PageStats,
    Position,
    abandoned,
    again,
    believable_count,
    cut_short,
    first,
    following,
    is_whole,
    leads_on,
    look,
    skipped,
)

FULL = PageStats(new=100, repeated=0, listed=100, count=150, has_next=True)
LAST = PageStats(new=50, repeated=0, listed=150, count=150, has_next=False)


def test_a_still_listing_is_read_once() -> None:
    """Page after page, and whole after the one that has no next."""
    second = following(first(()), FULL, ())
    assert (second.page, second.shifted, second.count) == (2, False, 150)
    end = following(second, LAST, ())
    assert is_whole(end)
    assert not end.is_unsure


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param(replace(LAST, count=149), id="its count changed"),
        pytest.param(replace(LAST, new=49, repeated=1), id="an item stands on two pages"),
        pytest.param(replace(LAST, new=0, has_next=True), id="an empty page that is not the last"),
        pytest.param(replace(LAST, count=None), id="its count is gone"),
    ],
)
def test_a_listing_that_moved_is_read_again(seen: PageStats) -> None:
    """Whatever shows that items slid between pages."""
    position = following(following(first(()), FULL, ()), seen, ())
    while position.page > 1:
        position = following(position, replace(seen, has_next=False), ())
    assert (position.page, position.attempt, position.run) == (1, 2, 2)


def test_a_promised_page_that_is_not_there_shows_it_too() -> None:
    """404 for page 2 after page 1 named a next one."""
    assert cut_short(following(first(()), FULL, ()), (), listed=100).attempt == 2


def test_a_listing_that_always_moves_is_believed_in_the_end_and_says_so() -> None:
    """Three times; then the sweep goes on and is partial."""
    position = first(())
    for _ in range(MAX_ATTEMPTS):
        assert position.page == 1
        position = following(following(position, FULL, ()), replace(LAST, count=1), ())
    assert is_whole(position)
    assert position.is_unsure


def test_a_count_that_never_fits_costs_one_more_listing_only() -> None:
    """Some listings count what they do not show; that is no movement."""
    short = replace(LAST, listed=140)
    position = following(following(first(()), FULL, ()), short, ())
    assert position.attempt == 2
    position = following(following(position, FULL, ()), short, ())
    assert is_whole(position)
    assert not position.is_unsure


def test_a_listing_that_loops_ends() -> None:
    """The same page again and again, each naming a next one."""
    position, pages = first(()), 0
    loop = PageStats(new=0, repeated=100, listed=100, count=100, has_next=True)
    while not is_whole(position):
        position = following(position, FULL if position.page == 1 else loop, ())
        pages += 1
    assert pages <= MAX_ATTEMPTS * (MAX_BARREN + 1)
    assert position.is_unsure


def test_categories_are_listed_one_after_the_other() -> None:
    """Each whole; a run of its own, so that an item of two categories is not one that slid."""
    position, seen = first((5, 6)), replace(LAST, count=50, listed=50)
    second = following(position, seen, (5, 6))
    assert (second.category, second.page, second.run) == (6, 1, 2)
    assert is_whole(following(second, seen, (5, 6)))


def test_a_whole_listing_whose_item_is_gone_is_read_again_but_not_for_ever() -> None:
    """Another may have slid into its place on a page already read."""
    position: Position | None = Position(page=0)
    runs = 0
    while position is not None:
        position = again(position, ())
        runs += 1
    assert runs == MAX_ATTEMPTS


@given(
    pages=st.lists(
        st.builds(
            PageStats,
            new=st.integers(0, 3),
            repeated=st.integers(0, 3),
            listed=st.integers(0, 9),
            count=st.none() | st.integers(0, 9),
            has_next=st.booleans(),
        ),
        min_size=1,
    ),
    categories=st.lists(st.integers(1, 9), unique=True, max_size=3).map(tuple),
)
def test_every_listing_ends(pages: list[PageStats], categories: tuple[int, ...]) -> None:
    """Whatever the pages say; what has no end by itself is named."""
    endless = itertools.cycle(pages)
    position = first(categories)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pagination, "MAX_PAGES", 40)
        for _ in range(40 * MAX_ATTEMPTS * max(1, len(categories))):
            assert position.page <= 40
            position = following(position, next(endless), categories)
            if is_whole(position):
                return
    pytest.fail("it goes on")


def endless(shown: int) -> tuple[Position, int]:
    """List pages with so many new items each until that ends; return where, after how many."""
    position, pages = first(()), 0
    while not is_whole(position):
        listed = position.listed + shown
        seen = PageStats(new=shown, repeated=0, listed=listed, count=None, has_next=True)
        position, pages = following(position, seen, ()), pages + 1
    return position, pages


def test_a_list_without_end_ends_after_more_items_than_any_catalogue_has() -> None:
    """It is named, and it is not read again."""
    position, pages = endless(100)
    assert (pages * 100, position.listed) == (MAX_ITEMS, MAX_ITEMS)
    assert position.faults == ("the list goes on after 100,000 items on 1,000 pages",)


def test_a_list_of_short_pages_ends_after_many_pages() -> None:
    """One new item a page would be 100,000 calls."""
    position, pages = endless(1)
    assert pages == MAX_PAGES
    assert position.faults == ("the list goes on after 1,000 items on 1,000 pages",)


def test_a_list_of_long_pages_ends_after_some() -> None:
    """More rows than were asked for."""
    position, pages = endless(10_000)
    assert pages == 10
    assert position.faults == ("the list goes on after 100,000 items on 10 pages",)


def test_a_category_without_end_leaves_the_others() -> None:
    """It costs itself, and its fault is named before any other."""
    here = replace(first((5, 6)), page=MAX_PAGES, faults=("a", "b", "c", "d", "e"))
    seen = PageStats(new=9, repeated=0, listed=99, count=None, has_next=True)
    position = following(here, seen, (5, 6))
    assert (position.category, position.page, position.listed) == (6, 1, 0)
    assert position.faults[:2] == ("category 5 goes on after 99 items on 1,000 pages", "a")


def test_as_many_items_as_the_bound_are_a_list_when_it_ends_there() -> None:
    """The bound is met by the promise of more."""
    seen = PageStats(new=100, repeated=0, listed=MAX_ITEMS, count=MAX_ITEMS, has_next=False)
    position = following(Position(page=MAX_PAGES, count=MAX_ITEMS), seen, ())
    assert is_whole(position)
    assert not position.faults


@pytest.mark.parametrize(
    "count", [None, -1, True, 1.5, "7", 10**18, 10**30, MAX_ITEMS + 1, [7], float("inf")]
)
def test_a_count_that_no_catalogue_has_is_none(count: object) -> None:
    """No estimate is made from it."""
    assert believable_count(count) is None
    assert believable_count(MAX_ITEMS) == MAX_ITEMS


@given(
    pages=st.lists(st.lists(st.integers(1, 30), max_size=8), max_size=12),
)
def test_what_a_page_brings_is_told_from_its_own_items(pages: list[list[int]]) -> None:
    """Not from all that the run has shown, of which there may be very many."""
    shown, listed = set[int](), 0
    for ids in pages:
        seen = look(ids, shown & set(ids), listed=listed, count=None, has_next=True)
        listed = seen.listed
        assert seen.new == len(set(ids) - shown)
        shown |= set(ids)
        assert listed == len(shown)


@pytest.mark.parametrize(
    "nowhere",
    [None, "", " ", False, 0, {}, [], "null", "None", "#", "https://x/items/?page=2", 2, "2", 1.0],
)
def test_a_next_that_leads_nowhere_is_the_end(nowhere: object) -> None:
    """Missing, empty, or this page once more."""
    assert not leads_on(nowhere, 2)


@pytest.mark.parametrize(
    "onward",
    ["https://x/items/?page=3", "?limit=100&page=3", "https://x/items/?cursor=ab", 3, "3", True],
)
def test_a_next_that_leads_on_is_followed_by_number(onward: object) -> None:
    """Where it points does not matter, as long as it is no earlier page."""
    assert leads_on(onward, 2)


def test_a_promised_page_that_is_not_there_is_the_end_of_a_list_shown_whole() -> None:
    """As many items as the list counts: nothing slid away."""
    end = cut_short(following(first(()), FULL, ()), (), listed=150)
    assert is_whole(end)
    assert not end.is_unsure


def test_a_list_without_a_count_that_ends_in_404_is_read_once_more() -> None:
    """Nobody can know whether an item slid away."""
    position = following(first(()), replace(FULL, count=None), ())
    position = cut_short(position, (), listed=100)
    assert (position.page, position.attempt) == (1, 2)
    position = cut_short(following(position, replace(FULL, count=None), ()), (), listed=100)
    assert is_whole(position)
    assert not position.is_unsure


def test_a_page_that_cannot_be_read_costs_itself() -> None:
    """The pages after it are read as far as the count reaches; the fault is named."""
    position = following(first(()), replace(FULL, count=350), ())
    position = skipped(position, (), "500")
    assert position.page == 3
    position = following(position, replace(FULL, count=350, listed=200), ())
    position = following(position, replace(LAST, count=350, listed=250), ())
    assert is_whole(position)
    assert position.faults == ("page 2 of the list: 500",)


def test_a_last_page_that_cannot_be_read_ends_the_list() -> None:
    """By the count and the length of the pages before it."""
    position = skipped(following(first(()), FULL, ()), (), "500")
    assert is_whole(position)
    assert position.faults


def test_a_list_without_a_count_goes_on_after_a_broken_page_or_two() -> None:
    """And no further: nothing says how many pages follow."""
    position = skipped(first(()), (), "500")
    assert (position.page, is_whole(position)) == (2, False)
    assert is_whole(skipped(position, (), "500"))


def test_a_category_that_is_gone_leaves_the_others() -> None:
    """The next one is listed."""
    position = abandoned(first((5, 6)), (5, 6), "Dreamship has none")
    assert (position.category, position.page) == (6, 1)
    end = following(position, replace(LAST, count=50, listed=50), (5, 6))
    assert is_whole(end)
    assert end.faults == ("page 1 of category 5: Dreamship has none",)


def test_a_row_that_cannot_be_read_is_named_and_lists_nothing_again() -> None:
    """The list is short by it, and would be so each time."""
    end = following(first(()), PageStats(99, 0, 99, 100, has_next=False, broken_rows=1), ())
    assert is_whole(end)
    assert end.faults == ("1 rows of page 1 of the list cannot be read",)
