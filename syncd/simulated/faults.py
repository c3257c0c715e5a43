"""What goes wrong on the reading side; everything is off until a test or the demo turns it on."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Fault = Literal[
    "502", "503", "500", "404", "html-404", "html", "truncate", "reset", "garbage", "slow"
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
    """The knobs. `of_item` are used up one a call; `share` is the part of calls that fail."""

    throttle: Throttle | None = None
    down: bool = False
    refuses: int | None = None
    of_item: dict[int, list[Fault]] = field(default_factory=dict)
    of_page: list[Fault] = field(default_factory=list)
    always: dict[int, Fault] = field(default_factory=dict)
    share: float = 0.0
    slow_s: float = 0.2
    lag_s: float = 0.0
    date_skew_s: float = 0.0
    lists_variants: Callable[[int], bool] = lambda _: False
    after_page: Callable[[int], None] = lambda _: None
    rng: random.Random = field(default_factory=lambda: random.Random(1))  # noqa: S311 - a toy

    def next_for(self, item_id: int | None) -> Fault | None:
        """Return what shall go wrong with this call."""
        script = self.of_page if item_id is None else self.of_item.get(item_id, [])
        if script:
            return script.pop(0)
        if item_id in self.always:
            return self.always[item_id]
        if self.share and self.rng.random() < self.share:
            return self.rng.choice(["502", "503", "html", "truncate", "reset", "garbage"])
        return None
