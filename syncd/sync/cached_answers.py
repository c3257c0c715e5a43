"""Items for which a cache answers: when to read them again, and how to report them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import structlog
from msgspec import Struct

from syncd.core.backoff import backoff
from syncd.core.clock_jump import Jump
from syncd.core.model import ItemRead, Page
from syncd.core.read_age import COPY_AGE, NO_EVIDENCE_AGE
from syncd.sync.rate_limiter import RateLimiter

log = structlog.get_logger(__name__)

FIRST_WAIT_S = 30.0
LONGEST_WAIT_S = 900.0
# No cache stores a copy for a year: one broken host sends such a Date, and another answers soon.
BROKEN_AGE = timedelta(days=366)
BROKEN_WAIT_S = 3.0
# The longest wait, even if the cache names a longer lifetime or many items wait.
LONGEST = timedelta(hours=1)
# Repeated reads take at most this part of the budget.
SHARE = 4
# This many items, or this many copies of one item, cause a reason in the status.
REPORT_AFTER_ITEMS = 3
REPORT_AFTER_COPIES = 2


class _Waiting(Struct):
    """One item or page whose last answer was a copy, with the number of copies in a row."""

    copies: int
    until: datetime


class CachedAnswers:
    """Stores which items and pages were answered with copies, until a new answer arrives."""

    def __init__(self, rate_limiter: RateLimiter, chance: Callable[[], float]) -> None:
        self._rate_limiter = rate_limiter
        self._chance = chance
        self._waiting: dict[int | None, _Waiting] = {}
        self._age = timedelta()
        self._is_reported = False

    def is_new(self, item_id: int | None) -> None:
        """Store that Dreamship itself answered for an item (None: for a page of the catalogue)."""
        self._waiting.pop(item_id, None)
        if self._is_reported and not self._waiting:
            self._is_reported = False
            log.info("answers no longer come from a cache")

    def repeat_at(self, item_id: int | None, answer: ItemRead | Page, now: datetime) -> datetime:
        """Return when to repeat a call that was answered with a copy.

        That is after the remaining lifetime of the copy if its headers have one, otherwise after
        waits that become longer. All repeated calls together take only a share of the budget.
        """
        before = self._waiting.get(item_id)
        copies = 1 if before is None else before.copies + 1
        wait = self._wait(answer, copies)
        if answer.age < COPY_AGE:
            return now + wait
        self._forget_before(now - LONGEST)
        wait = min(LONGEST, max(wait, self._apart() * len(self._waiting)))
        self._age = answer.age
        self._waiting[item_id] = _Waiting(copies, now + wait)
        self._report(item_id)
        return now + wait

    def follow(self, jump: Jump) -> None:
        """Move all times with this host's clock."""
        for one in self._waiting.values():
            one.until = jump.timer(one.until)

    @property
    def reason(self) -> str | None:
        """The reason for the status; None while there are only a few copies."""
        waiting = self._waiting
        if len(waiting) < REPORT_AFTER_ITEMS and all(
            one.copies < REPORT_AFTER_COPIES for one in waiting.values()
        ):
            return None
        how_old = "unknown"
        if self._age < NO_EVIDENCE_AGE:
            how_old = f"{self._age.total_seconds():.0f} s"
        return (
            f"A cache answers instead of Dreamship (calls that are repeated: "
            f"{len(waiting)}; age of the last copy: {how_old}); exempt dreamship.base_url from "
            "caching in the proxy that this host uses."
        )

    def _wait(self, answer: ItemRead | Page, copies: int) -> timedelta:
        if answer.age < COPY_AGE:
            return answer.age
        first_s = BROKEN_WAIT_S if answer.age >= BROKEN_AGE else FIRST_WAIT_S
        chance = 0.75 + self._chance() / 2
        wait = backoff(copies, chance, base_s=first_s / 2, cap_s=LONGEST_WAIT_S)
        if answer.fresh_for is not None:
            left = answer.fresh_for + timedelta(seconds=1)
            # A cache may serve a copy for longer than its lifetime.
            wait = left if copies == 1 else max(wait, left)
        return min(LONGEST, wait)

    def _apart(self) -> timedelta:
        return timedelta(minutes=1) * SHARE / max(1.0, self._rate_limiter.per_minute)

    def _forget_before(self, moment: datetime) -> None:
        """Remove the items that are no longer read."""
        for item_id in [one for one, waits in self._waiting.items() if waits.until < moment]:
            del self._waiting[item_id]

    def _report(self, item_id: int | None) -> None:
        about = {"item_id": item_id, "age_s": self._age.total_seconds()}
        if self._is_reported or self.reason is None:
            log.debug("an answer came from a cache", **about)
            return
        self._is_reported = True
        log.warning(
            "answers come from a cache",
            **about,
            hint="exempt dreamship.base_url from caching in the proxy that this host uses",
        )
