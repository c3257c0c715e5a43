"""Faults of the simulated API; each is off until a test or the demo turns it on."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Any, Literal

from starlette.responses import Response
from starlette.status import HTTP_200_OK, HTTP_404_NOT_FOUND

Fault = Literal[
    "502",
    "503",
    "500",
    "401",
    "403",
    "404",
    "410",
    "429",
    "html-403",
    "html-404",
    "gateway-403",
    "gateway-404",
    "retry-403",
    "retry-503",
    "html",
    "truncate",
    "reset",
    "garbage",
    "bomb",
    "flood",
    "slow",
]


@dataclass
class Throttle:
    """The throttle of Django REST framework: `calls` within any `window_s`, for one key."""

    calls: int
    window_s: float
    has_header: bool = True
    has_message: bool = True
    _times: deque[float] = field(default_factory=deque)

    def wait_s(self, now_s: float) -> float | None:
        """Count a call; returns None if it is allowed, else the seconds to wait."""
        while self._times and self._times[0] <= now_s - self.window_s:
            self._times.popleft()
        if len(self._times) >= self.calls:
            return self._times[0] + self.window_s - now_s
        self._times.append(now_s)
        return None


CacheTrace = Literal["age", "date", "mark", "expires", "none"]


@dataclass
class Cache:
    """A cache in front of the API that ignores `no-cache`; `trace` is the sign of its copies.

    `date`: only the old `Date`. `expires`: as Django's page cache. `none`: as nginx by default.
    So that tests need not wait, copies claim to be `older_s` older than they are, and claim that
    `left_s` of their lifetime are left (None: the true rest).
    """

    lifetime_s: float
    trace: CacheTrace = "age"
    older_s: float = 0.0
    left_s: float | None = None
    copies: int = 0
    _stored: dict[str, tuple[datetime, Response]] = field(default_factory=dict)

    def answer(self, url: str, now: datetime) -> Response | None:
        """Return a copy that is not too old, or None."""
        made_at, stored = self._stored.get(url, (now, None))
        if stored is None or (now - made_at).total_seconds() >= self.lifetime_s:
            return None
        self.copies += 1
        made_at -= timedelta(seconds=self.older_s)
        lifetime_s = self.lifetime_s + self.older_s
        if self.left_s is not None:
            lifetime_s = int((now - made_at).total_seconds()) + self.left_s
        copy = Response(stored.body, stored.status_code, media_type="application/json")
        if self.trace == "age":
            copy.headers["Age"] = str(int((now - made_at).total_seconds()))
            copy.headers["Cache-Control"] = f"max-age={lifetime_s:.0f}"
        if self.trace == "mark":
            copy.headers["X-Cache-Status"] = "HIT"
        if self.trace == "expires":
            copy.headers["Cache-Control"] = f"max-age={lifetime_s:.0f}"
            copy.headers["Expires"] = http_date(made_at + timedelta(seconds=lifetime_s))
        copy.headers["Date"] = http_date(made_at if self.trace in {"age", "date"} else now)
        return copy

    def store(self, url: str, response: Response, now: datetime) -> None:
        """Store an answer with status 200 or 404."""
        if response.status_code in {HTTP_200_OK, HTTP_404_NOT_FOUND}:
            self._stored[url] = (now, response)


def http_date(moment: datetime) -> str:
    """Return a moment in the form of HTTP headers."""
    return format_datetime(moment.replace(microsecond=0), usegmt=True)


@dataclass
class Faults:
    """The settings of the faults.

    `of_item` and `of_page` have faults for the next calls; each call takes one. `always` fails an
    item, `always_page` a page of the list, and `always_category` each page of a category. `share`
    is the share of calls that fail. `refused_with` is the status of every answer.

    `cut_row` shortens the variants of a row. `rows` replaces the rows of a page. `next_page` is the
    `next` of the last page. `endless`: the list, or this category, continues with invented items,
    page after page.

    Each call takes one of `date_skews_s`; after the last one, `date_skew_s` applies. `cookies`:
    each answer sets a new cookie.
    """

    throttle: Throttle | None = None
    down: bool = False
    refused_with: int | None = None
    of_item: dict[int, list[Fault]] = field(default_factory=dict)
    of_page: list[Fault] = field(default_factory=list)
    always: dict[int, Fault] = field(default_factory=dict)
    always_page: dict[int, Fault] = field(default_factory=dict)
    always_category: dict[int, Fault] = field(default_factory=dict)
    next_page: object = None
    endless: bool | int = False
    counts: bool = True
    cut_row: Callable[[list[Any]], list[Any]] = lambda variants: variants
    rows: Callable[[list[Any]], list[Any]] = lambda rows: rows
    share: float = 0.0
    slow_s: float = 0.2
    lag_s: float = 0.0
    date_skew_s: float = 0.0
    date_skews_s: list[float] = field(default_factory=list)
    cache: Cache | None = None
    cookies: bool = False
    lists_variants: Callable[[int], bool] = lambda _: False
    after_page: Callable[[int], None] = lambda _: None
    rng: random.Random = field(default_factory=lambda: random.Random(1))  # noqa: S311 - no secret

    def is_endless(self, category: int | None) -> bool:
        """Return whether a list has no end."""
        return self.endless is True if category is None else self.endless == category

    def next_for(
        self, item_id: int | None, *, page: int | None = None, category: int | None = None
    ) -> Fault | None:
        """Return the fault of this call, or None."""
        scripted = self.of_page if item_id is None else self.of_item.get(item_id, [])
        if scripted:
            return scripted.pop(0)
        if category in self.always_category:
            return self.always_category[category]
        if item_id is None and category is None and page in self.always_page:
            return self.always_page[page]
        if item_id in self.always:
            return self.always[item_id]
        if self.share and self.rng.random() < self.share:
            return self.rng.choice(["502", "503", "html", "truncate", "reset", "garbage"])
        return None
