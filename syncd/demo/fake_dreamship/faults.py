"""What goes wrong on the reading side; everything is off until a test or the demo turns it on."""

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
    """Django REST framework's: so many calls in any window of so many seconds, for one key."""

    calls: int
    window_s: float
    says_header: bool = True
    says_message: bool = True
    _times: deque[float] = field(default_factory=deque)

    def wait_s(self, now_s: float) -> float | None:
        """Count a call; None when it may pass, else the seconds until one may."""
        while self._times and self._times[0] <= now_s - self.window_s:
            self._times.popleft()
        if len(self._times) >= self.calls:
            return self._times[0] + self.window_s - now_s
        self._times.append(now_s)
        return None


CacheTrace = Literal["age", "date", "mark", "expires", "none"]


@dataclass
class Cache:
    """A cache in front of the API that ignores what a request asks for; `trace` shows its copies.

    `date`: the old `Date` alone. `expires`: as Django's page cache. `none`: as nginx by default.
    Copies say that they are `older_s` older than they are and that `left_s` of their lifetime are
    left (None: what is true), so that tests need not wait.
    """

    lifetime_s: float
    trace: CacheTrace = "age"
    older_s: float = 0.0
    left_s: float | None = None
    copies: int = 0
    _kept: dict[str, tuple[datetime, Response]] = field(default_factory=dict)

    def answer(self, url: str, now: datetime) -> Response | None:
        """Return a copy of an answer that is not too old, None if there is none."""
        made_at, kept = self._kept.get(url, (now, None))
        if kept is None or (now - made_at).total_seconds() >= self.lifetime_s:
            return None
        self.copies += 1
        made_at -= timedelta(seconds=self.older_s)
        lifetime_s = self.lifetime_s + self.older_s
        if self.left_s is not None:
            lifetime_s = int((now - made_at).total_seconds()) + self.left_s
        copy = Response(kept.body, kept.status_code, media_type="application/json")
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

    def keep(self, url: str, response: Response, now: datetime) -> None:
        """Keep an answer that found something or found that it is not there."""
        if response.status_code in {HTTP_200_OK, HTTP_404_NOT_FOUND}:
            self._kept[url] = (now, response)


def http_date(moment: datetime) -> str:
    """Return a moment as HTTP writes it."""
    return format_datetime(moment.replace(microsecond=0), usegmt=True)


@dataclass
class Faults:
    """The knobs. `of_item` are used up one a call; `share` is the part of calls that fail.

    `always` fails an item and `always_page` a page of the list, by number; `always_category` each
    page of a category. `cut_row` makes the variants of a row fewer, `next_page` is a list's `next`
    where there is no further page, and `rows` what a page holds instead of its rows.
    `endless`: the list, or this category, shows invented items after its own, page after page.
    `date_skews_s` are used up one a call, before `date_skew_s` counts. `cookies`: each answer sets
    another one.
    """

    throttle: Throttle | None = None
    down: bool = False
    refuses: int | None = None
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
    rng: random.Random = field(default_factory=lambda: random.Random(1))  # noqa: S311 - a toy

    def is_endless(self, category: int | None) -> bool:
        """Tell whether a list has no end."""
        return self.endless is True if category is None else self.endless == category

    def next_for(
        self, item_id: int | None, *, page: int | None = None, category: int | None = None
    ) -> Fault | None:
        """Return what shall go wrong with this call."""
        script = self.of_page if item_id is None else self.of_item.get(item_id, [])
        if script:
            return script.pop(0)
        if category in self.always_category:
            return self.always_category[category]
        if item_id is None and category is None and page in self.always_page:
            return self.always_page[page]
        if item_id in self.always:
            return self.always[item_id]
        if self.share and self.rng.random() < self.share:
            return self.rng.choice(["502", "503", "html", "truncate", "reset", "garbage"])
        return None
