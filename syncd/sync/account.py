"""Finds out whether Dreamship answers this key: every key may read the list of items.

One item, page or category may be refused, missing or broken alone, and a gateway may answer instead
of Dreamship. So the list is read before such a failure counts against the key, the network or the
whole catalogue.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Literal

from msgspec import Struct

from syncd.clock import Clock
from syncd.dreamship.source import Source
from syncd.errors import SourceError, SourceRefused, SourceThrottled
from syncd.sync.rate_limiter import RateLimiter

AccountState = Literal["answers", "refused", "unreachable", "throttled"]

# An answer of the list shows the state of the account for this time.
GOOD_FOR = timedelta(minutes=2)


class AccountCheck(Struct, frozen=True):
    """The state of the account, and the error that the list answered instead of items.

    A caller that gets "throttled" must pass the error to the rate limiter.
    """

    state: AccountState
    error: SourceError | None = None


class Account:
    """Reads the list if needed, within the budget, and stores when it last answered."""

    def __init__(self, source: Source, rate_limiter: RateLimiter, clock: Clock) -> None:
        self._source = source
        self._rate_limiter = rate_limiter
        self._clock = clock
        self._listed_at: datetime | None = None
        self._one_check = asyncio.Lock()

    def list_answered(self) -> None:
        """Store that the list answers now."""
        self._listed_at = self._clock.now()

    def forget(self) -> None:
        """Forget the last answer of the list: the key or the address may have changed."""
        self._listed_at = None

    async def check(self, *, is_new: bool = False) -> AccountCheck:
        """Return whether the list answers; `is_new`: read it, even after a recent answer."""
        began_at = self._clock.now()
        async with self._one_check:
            good_since = began_at if is_new else self._clock.now() - GOOD_FOR
            if self._listed_at is not None and self._listed_at >= good_since:
                return AccountCheck("answers")
            check = await self._read_list(page=1)
            if check.state == "unreachable" and (await self._read_list(page=2)).state == "answers":
                return AccountCheck("answers")  # only the first page is broken
            return check

    async def _read_list(self, *, page: int) -> AccountCheck:
        while (wait_s := self._rate_limiter.wait_s(urgent=True)) > 0:
            await self._clock.sleep(wait_s)
        await self._rate_limiter.spend(for_sweep=True)
        try:
            await self._source.page(None, page)
        except SourceThrottled as error:
            return AccountCheck("throttled", error)
        except SourceRefused as error:
            return AccountCheck("refused", error)
        except SourceError as error:
            return AccountCheck("unreachable", error)
        self.list_answered()
        return AccountCheck("answers")
