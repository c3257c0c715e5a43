"""Runs a follower for each configured push: start, reload, stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from syncd.clock import Clock
from syncd.config import Config, Push, SigningSecret
from syncd.config.pushes import find_push
from syncd.core.snapshots import PushSnapshot
from syncd.push.follower import Follower
from syncd.push.sinks import sink_for
from syncd.store import Database, pushes

# Longer than it takes to kill a command.
CANCEL_AGAIN_S = 5.0


class Pushes:
    """The pushes of the configuration in force. Commits of the mirror wake them."""

    def __init__(self, database: Database, clock: Clock, config: Callable[[], Config]) -> None:
        self._database = database
        self._clock = clock
        self._config = config
        self._running: dict[str, tuple[Follower, SigningSecret | None, asyncio.Task[None]]] = {}
        self._is_waking = False
        self._woken: Callable[[], None] = lambda: None
        self._changing = asyncio.Lock()

    async def start(self) -> None:
        """Start the pushes of the configuration."""
        loop = asyncio.get_running_loop()

        def woken() -> None:
            """Wake the followers once for all commits that the loop has not seen yet."""
            if self._running and not self._is_waking:
                self._is_waking = True
                loop.call_soon_threadsafe(self._wake)

        self._woken = woken
        self._database.on_commits.append(woken)
        await self.reconfigure()

    async def reconfigure(self) -> None:
        """Use the configuration in force: restart what changed or was stopped, retry the rest."""
        config = self._config()
        async with self._changing:
            wanted = {push.name: push for push in config.push}
            for name, (follower, secret, _) in list(self._running.items()):
                is_same = (wanted.get(name), config.signing_secrets.get(name)) == (
                    follower.push,
                    secret,
                )
                if is_same and not follower.is_stopped:
                    follower.retry_now()
                else:
                    await self._end(name)
            for name, push in wanted.items():
                if name not in self._running:
                    self._begin(push, config.signing_secrets.get(name))

    async def go_on_from(self, name: str, seq: int) -> None:
        """Let a push continue after a change, 0: with a full copy; raises UsageError."""
        config = self._config()
        push = find_push(config.push, name)
        async with self._changing:
            await self._end(name)
            try:
                await self._database.write(lambda db: pushes.go_on_from(db, name, push.only, seq))
            finally:
                self._begin(push, config.signing_secrets.get(name))

    async def snapshots(self) -> tuple[PushSnapshot, ...]:
        """Return the state of each push; raises MirrorErrors."""
        if not self._running:
            return ()
        newest = await self._database.read(pushes.newest_seq)
        return tuple(follower.snapshot(newest) for follower, *_ in self._running.values())

    async def close(self) -> None:
        """Stop all pushes; a batch on its way is sent again after the next start."""
        if self._woken in self._database.on_commits:
            self._database.on_commits.remove(self._woken)
        async with self._changing:
            await asyncio.gather(*(self._end(name) for name in list(self._running)))

    def _begin(self, push: Push, secret: SigningSecret | None) -> None:
        follower = Follower(push, sink_for(push, secret, self._clock.now), self._database)
        task = asyncio.create_task(follower.run(), name=f"push {push.name}")
        self._running[push.name] = follower, secret, task

    async def _end(self, name: str) -> None:
        # A push that a reload has just added may not run yet.
        _, _, task = self._running.pop(name, (None, None, None))
        while task is not None and not task.done():
            # Again, in case a library has lost the first one.
            task.cancel()
            await asyncio.wait({task}, timeout=CANCEL_AGAIN_S)

    def _wake(self) -> None:
        self._is_waking = False
        for follower, *_ in self._running.values():
            follower.wake()
