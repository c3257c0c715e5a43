"""What goes wrong on the reading side; everything is off until a test or the demo turns it on."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

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


@dataclass
class Faults:
    """The knobs. `of_item` are used up one a call; `share` is the part of calls that fail.

    `always` fails an item and `always_page` a page of the list, by number; `always_category` each
    page of a category. `cut_row` makes the variants of a row fewer, `next_page` is a list's `next`
    where there is no further page, and `rows` what a page holds instead of its rows.
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
    counts: bool = True
    cut_row: Callable[[list[Any]], list[Any]] = lambda variants: variants
    rows: Callable[[list[Any]], list[Any]] = lambda rows: rows
    share: float = 0.0
    slow_s: float = 0.2
    lag_s: float = 0.0
    date_skew_s: float = 0.0
    lists_variants: Callable[[int], bool] = lambda _: False
    after_page: Callable[[int], None] = lambda _: None
    rng: random.Random = field(default_factory=lambda: random.Random(1))  # noqa: S311 - a toy

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
