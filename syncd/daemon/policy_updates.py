"""Applies the policy in force to the mirror: after a reload, and when the listings change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from syncd.config.runtime import ActiveConfig
from syncd.core.policy import Policy
from syncd.store import Database
from syncd.store.reapply_policy import reapply
from syncd.sync.sweeps import SweepManager


class PolicyUpdates:
    """A caller that changes the policy holds `lock` until it is applied: no older one follows.

    The next call repeats the steps that failed.
    """

    def __init__(
        self,
        database: Database,
        active: ActiveConfig,
        sweep_manager: SweepManager,
        now: Callable[[], datetime],
    ) -> None:
        self.lock = asyncio.Lock()
        self._database = database
        self._active = active
        self._sweep_manager = sweep_manager
        self._now = now
        self._restarts = False

    async def apply(self, before: Policy, *, restarts: bool = False) -> None:
        """Decide again about every variant, and begin a sweep if there is more to read.

        Raises leaves of MirrorError.
        """
        policy = self._active.current.policy
        self._restarts = self._restarts or restarts or policy.needs_more(before)
        # It does nothing if this policy has decided about every variant.
        await reapply(self._database, policy, self._now)
        if self._restarts:
            await self._sweep_manager.restart()
            self._restarts = False
