"""Runs the publisher of the configuration: start, reload, stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from syncd.clock import Clock
from syncd.config import Config, Publish, TargetUrl
from syncd.core.snapshots import PublishSnapshot
from syncd.errors import MirrorError
from syncd.store import Database, publishing, pushes

if TYPE_CHECKING:
    from syncd.publish.publisher import Publisher

# A transaction takes far less. A server that does not answer must not delay the end of the daemon:
# it rolls the transaction back.
STOP_LIMIT_S = 5.0
MIRROR_RETRY_S = 5.0

# What a publisher is made of: it runs on while this does not change.
_Made = tuple[TargetUrl, Publish, float]


class Publication:
    """The publisher, if the configuration in force has a target. Commits of the mirror wake it."""

    def __init__(self, database: Database, clock: Clock, config: Callable[[], Config]) -> None:
        self._database = database
        self._clock = clock
        self._config = config
        self._made: _Made | None = None
        self._publisher: Publisher | None = None
        self._starting: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()

    async def start(self) -> None:
        """Start what the configuration has."""
        self._database.on_commits.append(self._wake)
        await self.reconfigure()

    async def reconfigure(self) -> None:
        """Use the configuration in force: restart if its target changed, else retry."""
        async with self._changing:
            made = _made(self._config())
            if made == self._made:
                if self._publisher is not None:
                    self._publisher.retry_now()
                return
            await self._end()
            self._made = made
            if made is not None:
                self._starting = asyncio.create_task(self._begin(*made), name="publish")

    async def snapshot(self) -> PublishSnapshot | None:
        """Return the state of the publication, None without one; raises MirrorErrors."""
        if self._made is None:
            return None
        publisher = self._publisher
        if publisher is None:
            source = self._made[1].source
            return PublishSnapshot(state="failing", source=source, error="has not started yet")
        state = publisher.state
        since_s = state.failing_since_s
        waiting_at = await self._database.read(
            lambda db: publishing.first_waiting_at(db, state.mirror_seq or 0)
        )
        lag_s = 0.0
        if waiting_at is not None:
            lag_s = max(0.0, (self._clock.now() - waiting_at).total_seconds())
        failing_s = 0.0 if since_s is None else time.monotonic() - since_s
        return replace(state, lag_s=lag_s, failing_s=failing_s)

    async def close(self) -> None:
        """Stop after the transaction that runs."""
        if self._wake in self._database.on_commits:
            self._database.on_commits.remove(self._wake)
        async with self._changing:
            await self._end()

    async def _begin(self, url: TargetUrl, publish: Publish, keep_changes_s: float) -> None:
        """Start the thread, once the mirror has its id."""
        # It imports SQLAlchemy, which a daemon without a target does not need.
        from syncd.publish.publisher import Publisher  # noqa: PLC0415

        while True:
            try:
                inode = self._database.path.stat().st_ino
                await self._database.write(partial(pushes.identify, inode=inode))
                break
            except (MirrorError, OSError):
                await asyncio.sleep(MIRROR_RETRY_S)
        self._publisher = Publisher(
            url,
            schema=publish.schema,
            source=publish.source,
            mirror=self._database.path,
            keep_changes_s=keep_changes_s,
        )
        self._publisher.start()

    async def _end(self) -> None:
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.cancel()
            await asyncio.wait({starting})
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            publisher.stop()
            await asyncio.to_thread(publisher.join, STOP_LIMIT_S)

    def _wake(self) -> None:
        """Wake the publisher; runs in the write thread."""
        if self._publisher is not None:
            self._publisher.wake()


def _made(config: Config) -> _Made | None:
    if config.target is None:
        return None
    publish = replace(config.publish, url=None, url_file=None)
    return config.target, publish, config.retention.changes.total_seconds()
