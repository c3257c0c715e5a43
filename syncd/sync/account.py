"""Does Dreamship answer this key at all? Only the list of items tells: every key may read it.

One item, one page or one category may be refused, missing or broken by itself, and a gateway may
answer for Dreamship. Before any of that is blamed on the key, the network or the catalogue, the
list is asked.
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

# So long an answer of the list is good for what it shows about the account.
GOOD_FOR = timedelta(minutes=2)


class AccountCheck(Struct, frozen=True):
    """What the list showed about the account; `fault` is what it answered instead of items.

    A caller that gets "throttled" has the budget learn from the fault.
    """

    state: AccountState
    fault: SourceError | None = None


class Account:
    """Asks the list when it matters, inside the budget, and remembers that it answered."""

    def __init__(self, source: Source, rate_limiter: RateLimiter, clock: Clock) -> None:
        self._source = source
        self._rate_limiter = rate_limiter
        self._clock = clock
        self._listed_at: datetime | None = None
        self._one_check = asyncio.Lock()

    def list_answered(self) -> None:
        """Note that the list has answered just now."""
        self._listed_at = self._clock.now()

    def forget(self) -> None:
        """Forget what the list has shown: the key or the address may be another one now."""
        self._listed_at = None

    async def check(self, *, is_new: bool = False) -> AccountCheck:
        """Return whether the list answers; asked anew if `is_new`, or if it was not lately."""
        began_at = self._clock.now()
        async with self._one_check:
            good_since = began_at if is_new else self._clock.now() - GOOD_FOR
            if self._listed_at is not None and self._listed_at >= good_since:
                return AccountCheck("answers")
            check = await self._ask(page=1)
            if check.state == "unreachable" and (await self._ask(page=2)).state == "answers":
                return AccountCheck("answers")  # only the first page is broken
            return check

    async def _ask(self, *, page: int) -> AccountCheck:
        while (wait_s := self._rate_limiter.wait_s(urgent=True)) > 0:
            await self._clock.sleep(wait_s)
        await self._rate_limiter.spend(for_sweep=True)
        try:
            await self._source.page(None, page)
        except SourceThrottled as fault:
            return AccountCheck("throttled", fault)
        except SourceRefused as fault:
            return AccountCheck("refused", fault)
        except SourceError as fault:
            return AccountCheck("unreachable", fault)
        self.list_answered()
        return AccountCheck("answers")
