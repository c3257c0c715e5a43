"""Listings that change while they are read: each sign of a change, and the end of each listing."""

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
    page_stats,
    skipped,
)

FULL = PageStats(new=100, repeated=0, listed=100, count=150, has_next=True)
LAST = PageStats(new=50, repeated=0, listed=150, count=150, has_next=False)


def test_an_unchanged_listing_is_read_once() -> None:
    """Page by page; it is complete after the page that has no next page."""
    second = following(first(()), FULL, ())
    assert (second.page, second.shifted, second.count) == (2, False, 150)
    end = following(second, LAST, ())
    assert is_whole(end)
    assert not end.is_unsure


@pytest.mark.parametrize(
    "stats",
    [
        pytest.param(replace(LAST, count=149), id="its count changed"),
        pytest.param(replace(LAST, new=49, repeated=1), id="an item stands on two pages"),
        pytest.param(replace(LAST, new=0, has_next=True), id="an empty page that is not the last"),
        pytest.param(replace(LAST, count=None), id="its count is gone"),
    ],
)
def test_a_listing_that_changed_meanwhile_is_read_again(stats: PageStats) -> None:
    """On every sign that items moved between pages."""
    position = following(following(first(()), FULL, ()), stats, ())
    while position.page > 1:
        position = following(position, replace(stats, has_next=False), ())
    assert (position.page, position.attempt, position.run) == (1, 2, 2)


def test_a_missing_promised_page_means_that_the_listing_changed() -> None:
    """Page 2 answers 404 after page 1 named it."""
    assert cut_short(following(first(()), FULL, ()), (), listed=100).attempt == 2


def test_a_listing_that_changes_three_times_is_used_and_reported() -> None:
    """The sweep goes on, and is partial."""
    position = first(())
    for _ in range(MAX_ATTEMPTS):
        assert position.page == 1
        position = following(following(position, FULL, ()), replace(LAST, count=1), ())
    assert is_whole(position)
    assert position.is_unsure


def test_a_wrong_count_costs_one_extra_listing_only() -> None:
    """Some listings count items that they do not show."""
    short = replace(LAST, listed=140)
    position = following(following(first(()), FULL, ()), short, ())
    assert position.attempt == 2
    position = following(following(position, FULL, ()), short, ())
    assert is_whole(position)
    assert not position.is_unsure


def test_a_listing_that_loops_ends() -> None:
    """Each answer is the same page and names a next one."""
    position, pages = first(()), 0
    loop = PageStats(new=0, repeated=100, listed=100, count=100, has_next=True)
    while not is_whole(position):
        position = following(position, FULL if position.page == 1 else loop, ())
        pages += 1
    assert pages <= MAX_ATTEMPTS * (MAX_BARREN + 1)
    assert position.is_unsure


def test_categories_are_listed_one_after_the_other() -> None:
    """Each has its own run, so that an item of two categories did not move."""
    position, stats = first((5, 6)), replace(LAST, count=50, listed=50)
    second = following(position, stats, (5, 6))
    assert (second.category, second.page, second.run) == (6, 1, 2)
    assert is_whole(following(second, stats, (5, 6)))


def test_a_listing_with_a_removed_item_is_read_a_limited_number_of_times() -> None:
    """Another item may have moved to a page that was read before."""
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
    """With any pages; a listing without an end is named."""
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
        stats = PageStats(new=shown, repeated=0, listed=listed, count=None, has_next=True)
        position, pages = following(position, stats, ()), pages + 1
    return position, pages


def test_an_endless_list_stops_at_the_item_bound() -> None:
    """It is named, and not read again."""
    position, pages = endless(100)
    assert (pages * 100, position.listed) == (MAX_ITEMS, MAX_ITEMS)
    assert position.errors == ("the list goes on after 100,000 items on 1,000 pages",)


def test_an_endless_list_of_short_pages_stops_at_the_page_bound() -> None:
    """With one new item a page, the item bound would take 100,000 calls."""
    position, pages = endless(1)
    assert pages == MAX_PAGES
    assert position.errors == ("the list goes on after 1,000 items on 1,000 pages",)


def test_an_endless_list_of_long_pages_stops_at_the_row_bound() -> None:
    """Its pages have more rows than requested."""
    position, pages = endless(10_000)
    assert pages == 10
    assert position.errors == ("the list goes on after 100,000 items on 10 pages",)


def test_an_endless_category_does_not_stop_the_others() -> None:
    """Its error comes first in the report."""
    here = replace(first((5, 6)), page=MAX_PAGES, errors=("a", "b", "c", "d", "e"))
    stats = PageStats(new=9, repeated=0, listed=99, count=None, has_next=True)
    position = following(here, stats, (5, 6))
    assert (position.category, position.page, position.listed) == (6, 1, 0)
    assert position.errors[:2] == ("category 5 goes on after 99 items on 1,000 pages", "a")


def test_a_list_that_ends_at_the_bound_is_complete() -> None:
    """Only the promise of a next page makes it endless."""
    stats = PageStats(new=100, repeated=0, listed=MAX_ITEMS, count=MAX_ITEMS, has_next=False)
    position = following(Position(page=MAX_PAGES, count=MAX_ITEMS), stats, ())
    assert is_whole(position)
    assert not position.errors


@pytest.mark.parametrize(
    "count", [None, -1, True, 1.5, "7", 10**18, 10**30, MAX_ITEMS + 1, [7], float("inf")]
)
def test_an_absurd_count_is_ignored(count: object) -> None:
    """It makes no estimate."""
    assert believable_count(count) is None
    assert believable_count(MAX_ITEMS) == MAX_ITEMS


@given(
    pages=st.lists(st.lists(st.integers(1, 30), max_size=8), max_size=12),
)
def test_new_items_are_found_by_the_items_of_the_page(pages: list[list[int]]) -> None:
    """Not by all items of the run, of which there may be very many."""
    shown, listed = set[int](), 0
    for ids in pages:
        stats = page_stats(ids, shown & set(ids), listed=listed, count=None, has_next=True)
        listed = stats.listed
        assert stats.new == len(set(ids) - shown)
        shown |= set(ids)
        assert listed == len(shown)


@pytest.mark.parametrize(
    "nowhere",
    [None, "", " ", False, 0, {}, [], "null", "None", "#", "https://x/items/?page=2", 2, "2", 1.0],
)
def test_a_missing_or_repeated_next_ends_the_list(nowhere: object) -> None:
    """Missing, empty, or this page again."""
    assert not leads_on(nowhere, 2)


@pytest.mark.parametrize(
    "onward",
    ["https://x/items/?page=3", "?limit=100&page=3", "https://x/items/?cursor=ab", 3, "3", True],
)
def test_any_other_next_continues_with_the_following_page_number(onward: object) -> None:
    """Its URL does not matter, unless it names an earlier page."""
    assert leads_on(onward, 2)


def test_a_missing_page_ends_a_list_that_has_all_counted_items() -> None:
    """No item moved away."""
    end = cut_short(following(first(()), FULL, ()), (), listed=150)
    assert is_whole(end)
    assert not end.is_unsure


def test_a_list_without_a_count_that_ends_in_404_is_read_once_more() -> None:
    """An item may have moved away."""
    position = following(first(()), replace(FULL, count=None), ())
    position = cut_short(position, (), listed=100)
    assert (position.page, position.attempt) == (1, 2)
    position = cut_short(following(position, replace(FULL, count=None), ()), (), listed=100)
    assert is_whole(position)
    assert not position.is_unsure


def test_an_unreadable_page_does_not_stop_the_list() -> None:
    """The following pages are read as far as the count reaches; the error is reported."""
    position = following(first(()), replace(FULL, count=350), ())
    position = skipped(position, (), "500")
    assert position.page == 3
    position = following(position, replace(FULL, count=350, listed=200), ())
    position = following(position, replace(LAST, count=350, listed=250), ())
    assert is_whole(position)
    assert position.errors == ("page 2 of the list: 500",)


def test_an_unreadable_last_page_ends_the_list() -> None:
    """The count and the length of earlier pages show that it is the last."""
    position = skipped(following(first(()), FULL, ()), (), "500")
    assert is_whole(position)
    assert position.errors


def test_a_list_without_a_count_continues_after_at_most_two_broken_pages() -> None:
    """The number of later pages is unknown."""
    position = skipped(first(()), (), "500")
    assert (position.page, is_whole(position)) == (2, False)
    assert is_whole(skipped(position, (), "500"))


def test_a_missing_category_does_not_stop_the_others() -> None:
    """The next category is listed."""
    position = abandoned(first((5, 6)), (5, 6), "Dreamship has none")
    assert (position.category, position.page) == (6, 1)
    end = following(position, replace(LAST, count=50, listed=50), (5, 6))
    assert is_whole(end)
    assert end.errors == ("page 1 of category 5: Dreamship has none",)


def test_an_unreadable_row_is_named_without_a_second_listing() -> None:
    """A second listing would have the same gap."""
    end = following(first(()), PageStats(99, 0, 99, 100, has_next=False, broken_rows=1), ())
    assert is_whole(end)
    assert end.errors == ("1 rows of page 1 of the list cannot be read",)
