"""Dreamship's GET endpoints with all their problems: late, lagging, throttling, failing."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from simulation.clock import Clock
from simulation.scenario import Scenario
from simulation.truth import Truth
from syncd.core.model import ItemDetails, ItemRead, Page, SourceItem, SourceVariant, VariantDetails
from syncd.core.read_age import UNKNOWN_AGE
from syncd.dreamship import answer_errors
from syncd.errors import (
    SourceAnswerInvalid,
    SourceError,
    SourceGone,
    SourceThrottled,
    SourceUnreachable,
)

# The longest way of a call to Dreamship; `rate_limit.WINDOW` has a second in reserve for it.
LONGEST_TRIP_S = 0.9
WINDOW_S = 60.0
WILD = timedelta(days=3650)


@dataclass(frozen=True)
class Stamp:
    """The age and the headers of an answer; `moment_s` is when its content was true.

    `sent_s`: when the answer got its `Date`, by the true clock.
    """

    moment_s: float
    sent_s: float
    source_at: datetime
    age: timedelta = timedelta()
    fresh_for: timedelta | None = None


class Source:
    """Implements Source with the truth; `is_mild` ends all problems except throttling."""

    def __init__(
        self,
        truth: Truth,
        scenario: Scenario,
        *,
        now: Callable[[], datetime],
        awake: Callable[[], Awaitable[None]],
        knows_clock: Callable[[], bool],
        trace: Callable[[str], None],
    ) -> None:
        self.is_mild = False
        self.calls_at: list[float] = []
        self.throttled = 0
        self.failed = 0
        self.answered = 0
        self.most_in_a_window = 0
        self._truth = truth
        self._scenario = scenario
        self._now = now
        self._awake = awake
        self._knows_clock = knows_clock
        self._clock = Clock(scenario.seconds("source"))
        self._trace = trace
        self._chance = scenario.chance("source")
        self._partial = scenario.chance("partial")
        self._allowed: deque[float] = deque()
        self._window: deque[float] = deque()
        self._cache: dict[str, Stamp] = {}
        self._wild = scenario.chance("wild dates")

    async def item(self, item_id: int) -> ItemRead:
        began_at = self._now()
        stamp = await self._call(f"item {item_id}")
        moment_s = stamp.moment_s
        if self._scenario.broken_item and self._is_broken and item_id == self._first:
            raise self._own(403, f"items/{item_id}/")
        if item_id not in self._truth.items or self._truth.items[item_id].at(moment_s) is None:
            self._trace(f"source: item {item_id} is gone")
            raise _gone(f"no item {item_id}", stamp)
        variants = self._variants(item_id, moment_s)
        is_whole = not variants or self.is_mild or self._partial.random() >= self._scenario.partial
        if not is_whole:
            left_out = self._partial.choice(variants)
            variants = tuple(one for one in variants if one is not left_out)
        self._trace(
            f"source: item {item_id}, as of {moment_s:.1f}, {is_whole=}: {_text_of(variants)}"
        )
        return ItemRead(
            item_id,
            f"Item {item_id}",
            variants,
            began_at,
            stamp.source_at,
            age=stamp.age,
            fresh_for=stamp.fresh_for,
            is_whole=is_whole,
            details=self._details(item_id, moment_s),
        )

    async def page(self, category_id: int | None, page: int) -> Page:
        began_at = self._now()
        stamp = await self._call(f"page {page} of {category_id or 'all'}")
        moment_s = stamp.moment_s
        if self._scenario.broken_page == page and self._is_broken:
            self.failed += 1
            raise SourceUnreachable(f"500 for page {page}")
        listed = [
            item_id
            for item_id, history in self._truth.items.items()
            if history.at(moment_s) is not None
            and category_id in {None, self._truth.category_of[item_id]}
        ]
        if self._scenario.newest_first:
            listed.reverse()
        size = self._scenario.page_size
        rows = listed[(page - 1) * size : page * size]
        if not rows and page > 1:
            raise _gone(f"no page {page}", stamp)
        self._trace(f"source: page {page} of {len(listed)}, as of {moment_s:.1f}: {rows}")
        return Page(
            items=tuple(
                SourceItem(
                    item_id,
                    f"Item {item_id}",
                    self._cut(self._variants(item_id, moment_s)) if self._has_variants() else None,
                    details=self._details(item_id, moment_s),
                )
                for item_id in rows
            ),
            count=len(listed),
            has_next=page * size < len(listed),
            began_at=began_at,
            source_at=stamp.source_at,
            age=stamp.age,
            fresh_for=stamp.fresh_for,
        )

    def _details(self, item_id: int, moment_s: float) -> ItemDetails:
        return ItemDetails(release_status=self._truth.status_of[item_id].at(moment_s))

    def _variants(self, item_id: int, moment_s: float) -> tuple[SourceVariant, ...]:
        return tuple(
            SourceVariant(variant_id, value, VariantDetails(f"V {variant_id}"))
            for variant_id in self._truth.of_item(item_id)
            if (value := self._truth.visible(variant_id, moment_s)) is not None
        )

    def _cut(self, variants: tuple[SourceVariant, ...]) -> tuple[SourceVariant, ...]:
        """Return the variants of an item that a row of the list shows."""
        if self._scenario.cut_rows == "no":
            return variants
        return variants[:1] if self._scenario.cut_rows == "shortened" else ()

    @property
    def _is_broken(self) -> bool:
        """Whether parts are still broken: until some time after the last change."""
        until_s = 1.5 * self._scenario.horizon_s
        return not self.is_mild and asyncio.get_running_loop().time() < until_s

    @property
    def _first(self) -> int:
        """The oldest item."""
        return min(self._truth.items)

    def _own(self, status: int, path: str) -> SourceError:
        """Return the error for a refusal or an absence in Dreamship's own form."""
        document = {"error": {"key": "some_key", "status_code": status, "message": "No."}}
        return answer_errors.error_of(path, status, {}, document, self._now())

    def _has_variants(self) -> bool:
        rows = self._scenario.rows
        return rows == "with variants" or (rows == "mixed" and self._chance.random() < 0.5)

    async def _call(self, what: str) -> Stamp:
        """Return the stamp of the answer, or fail by the scenario."""
        scenario, chance = self._scenario, self._chance
        latency_s = chance.uniform(0.05, scenario.latency_s)
        # Each call draws the same count of random numbers, however they are used.
        share, late, lag_s, fate = (chance.random() for _ in range(4))
        trip_s = min(LONGEST_TRIP_S, latency_s / 2)
        await asyncio.sleep(trip_s)
        now_s = asyncio.get_running_loop().time()
        self._count(now_s)
        self._throttle(now_s, what)
        rest_s = latency_s - trip_s
        await asyncio.sleep(rest_s * share)
        moment_s = asyncio.get_running_loop().time() - lag_s * scenario.lag_s
        await asyncio.sleep(rest_s * (1 - share) * late)
        stamp = self._stamp(what, moment_s)
        await asyncio.sleep(rest_s * (1 - share) * (1 - late))
        await self._awake()  # an answer waits for a host that stands still
        self._fail(now_s, fate, what)
        self.answered += 1
        return stamp

    def _stamp(self, what: str, moment_s: float) -> Stamp:
        """Return the stamp of a new answer, or of a copy in a cache."""
        scenario, now_s = self._scenario, asyncio.get_running_loop().time()
        date = self._clock.now().replace(microsecond=0)
        stored = self._cache.get(what)
        # Known limit: an old `Date` is not recognised before Dreamship's clock is known.
        is_hidden = scenario.cache_trace == "date" and not self._knows_clock()
        if stored is None or is_hidden or self.is_mild or now_s - stored.sent_s >= scenario.cache_s:
            wild = self._wild.random() < scenario.wild_dates and not self.is_mild
            years = WILD * self._wild.choice([-1, 1]) if wild else timedelta()
            stamp = self._cache[what] = Stamp(moment_s, now_s, date + years)
            return stamp
        age = timedelta(seconds=math.floor(now_s - stored.sent_s))
        self._trace(f"source: a cache answers for {what}, {age} old")
        if scenario.cache_trace == "mark":
            return Stamp(stored.moment_s, stored.sent_s, date, UNKNOWN_AGE)
        if scenario.cache_trace == "date":
            return stored
        left = max(timedelta(), timedelta(seconds=scenario.cache_s) - age)
        return Stamp(
            stored.moment_s,
            stored.sent_s,
            stored.source_at,
            age + timedelta(seconds=1) if age else age,
            left if scenario.cache_names_lifetime else None,
        )

    def _count(self, now_s: float) -> None:
        self.calls_at.append(now_s)
        self._window.append(now_s)
        while self._window[0] <= now_s - WINDOW_S:
            self._window.popleft()
        self.most_in_a_window = max(self.most_in_a_window, len(self._window))

    def _throttle(self, now_s: float, what: str) -> None:
        limit = self._scenario.throttle
        if limit is None:
            return
        while self._allowed and self._allowed[0] <= now_s - WINDOW_S:
            self._allowed.popleft()
        if len(self._allowed) < limit:
            self._allowed.append(now_s)
            return
        self.throttled += 1
        wait_s: float | None = float(math.ceil(self._allowed[0] + WINDOW_S - now_s))
        fate = self._chance.random()
        wait_s = None if fate < 0.3 else 86_400.0 if fate > 0.98 else wait_s
        self._trace(f"source: {what} throttled, wait {wait_s}")
        raise SourceThrottled("throttled", wait_s=wait_s)

    def _fail(self, now_s: float, fate: float, what: str) -> None:
        if self.is_mild:
            return
        for begins_s, ends_s, is_refusal in self._scenario.outages:
            if begins_s <= now_s < ends_s:
                self.failed += 1
                self._trace(f"source: {what} {'refused' if is_refusal else 'down'}")
                raise self._own(401, what) if is_refusal else SourceUnreachable("503")
        if self._chance.random() < self._scenario.foreign and self._is_broken:
            self.failed += 1
            self._trace(f"source: {what} answered by a gateway")
            status = self._chance.choice([403, 404])
            raise answer_errors.error_of(
                what, status, {}, {"message": "no such route"}, self._now()
            )
        if fate < self._scenario.unreachable:
            self.failed += 1
            self._trace(f"source: {what} unreachable")
            raise SourceUnreachable("502")
        if fate > 1 - self._scenario.invalid:
            self.failed += 1
            self._trace(f"source: {what} answered nonsense")
            raise SourceAnswerInvalid("nonsense")


def _gone(message: str, stamp: Stamp) -> SourceGone:
    gone = SourceGone(message)
    gone.source_at, gone.age, gone.fresh_for = stamp.source_at, stamp.age, stamp.fresh_for
    return gone


def _text_of(variants: tuple[SourceVariant, ...]) -> str:
    return " ".join(f"{one.variant_id}={one.value}" for one in variants)
