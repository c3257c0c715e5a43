"""Runs the publisher of the configuration: start, reload, stop; and this daemon's turn."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from syncd.clock import Clock
from syncd.config import Config, Publish, TargetUrl
from syncd.config.runtime import ActiveConfig
from syncd.core.lease import LEASE_S
from syncd.core.snapshots import PublishSnapshot
from syncd.errors import MirrorError
from syncd.publish.mirror_sink import MirrorSink
from syncd.publish.turn import Turn
from syncd.store import Database, publishing, pushes

if TYPE_CHECKING:
    from syncd.publish.publisher import Publisher

# A transaction takes far less. A server that does not answer must not delay the end of the daemon:
# it rolls the transaction back.
STOP_LIMIT_S = 5.0
MIRROR_RETRY_S = 5.0
# A target that hangs delays the start without `publish.standby` at most so long.
DECIDED_LIMIT_S = 5.0
# Tests shorten the lease of both daemons. It is no setting: different leases would be no lease.
LEASE_VARIABLE = "SYNCD_TEST_LEASE_S"

# The settings of a publisher. A reload that does not change them does not restart it.
_Made = tuple[TargetUrl, Publish, float]


class Publication:
    """The publisher, if the configuration in force has a target. Commits of the mirror wake it.

    `turn`: whether this daemon serves.
    """

    def __init__(self, database: Database, clock: Clock, active: ActiveConfig) -> None:
        self.turn = Turn()
        self.lease_s = float(os.environ.get(LEASE_VARIABLE) or LEASE_S)
        self._database = database
        self._clock = clock
        self._active = active
        self._made: _Made | None = None
        self._publisher: Publisher | None = None
        self._starting: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()
        self._is_standby = False
        self._unwritable_since_s: float | None = None

    async def start(self) -> None:
        """Start the publisher of the configuration; return once the turn is decided.

        If the target does not answer, only a daemon with `publish.standby` waits for it.
        """
        self._database.on_commits.append(self._wake)
        if self._active.current.config.target is not None:
            self.turn.doubt()
        await self.reconfigure()
        await asyncio.to_thread(self.turn.until_decided, DECIDED_LIMIT_S)
        if not self._active.current.config.publish.standby:
            self.turn.serve_unless_decided()

    @property
    def active_host(self) -> str | None:
        """The host of the active daemon, None if it is not known."""
        return None if self._publisher is None else self._publisher.state.host

    def check(self) -> None:
        """Take no deliveries until the lease is checked: the process may have paused."""
        if self._publisher is not None and self.turn.doubt():
            self._publisher.check()

    def note_mirror(self, *, is_writable: bool) -> None:
        """Take note whether the last heartbeat could write the mirror."""
        if is_writable:
            self._unwritable_since_s = None
        elif self._unwritable_since_s is None:
            self._unwritable_since_s = time.monotonic()

    def _unwritable_s(self) -> float:
        since_s = self._unwritable_since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    async def reconfigure(self) -> None:
        """Use the configuration in force: restart if its target changed, else retry."""
        async with self._changing:
            made = _made(self._active.current.config)
            was_standby, self._is_standby = (
                self._is_standby,
                self._active.current.config.publish.standby,
            )
            if was_standby and not self._is_standby:
                # If the target does not answer, the daemon now serves without the lease.
                self.turn.reopen()
            if made == self._made:
                if self._publisher is not None:
                    self._publisher.retry_now()
                return
            await self._end()
            self._made = made
            if made is None:
                self.turn.serve()
            else:
                self._starting = asyncio.create_task(self._begin(*made), name="publish")

    async def snapshot(self) -> PublishSnapshot | None:
        """Return the state of the publication, None without one; raises MirrorErrors."""
        if self._made is None:
            return None
        publisher = self._publisher
        if publisher is None:
            source = self._made[1].source
            error = "has not started yet"
            is_waiting = not self.turn.is_active
            return PublishSnapshot(
                state="failing", source=source, error=error, is_waiting=is_waiting
            )
        state = publisher.state
        since_s = state.failing_since_s
        waiting_at = await self._database.read(
            lambda db: publishing.first_waiting_at(db, state.mirror_seq or 0)
        )
        lag_s = 0.0
        if waiting_at is not None:
            lag_s = max(0.0, (self._clock.now() - waiting_at).total_seconds())
        is_waiting = not self.turn.is_active
        if is_waiting:
            lag_s = 0.0
        failing_s = 0.0 if since_s is None else time.monotonic() - since_s
        return replace(state, lag_s=lag_s, failing_s=failing_s, is_waiting=is_waiting)

    async def close(self) -> None:
        """Stop after the transaction that runs."""
        if self._wake in self._database.on_commits:
            self._database.on_commits.remove(self._wake)
        async with self._changing:
            await self._end()

    async def _begin(self, url: TargetUrl, publish: Publish, keep_changes_s: float) -> None:
        """Start the thread, once the mirror has its id."""
        # It imports SQLAlchemy, which a daemon without a target does not need.
        from syncd.publish.lease import Terms  # noqa: PLC0415
        from syncd.publish.publisher import Publisher  # noqa: PLC0415

        def is_standby() -> bool:
            return self._active.current.config.publish.standby

        sink = MirrorSink(self._database, self._clock.now, self._active, publish)
        has_held = False
        while True:
            try:
                inode = self._database.path.stat().st_ino
                await self._database.write(partial(pushes.identify, inode=inode))
                has_held = await self._database.read(sink.has_held)
                break
            except (MirrorError, OSError):
                await asyncio.sleep(MIRROR_RETRY_S)
        self._publisher = Publisher(
            url,
            schema=publish.schema,
            source=publish.source,
            mirror=self._database.path,
            keep_changes_s=keep_changes_s,
            terms=Terms(
                host=socket.gethostname(),
                lease_s=self.lease_s,
                is_standby=is_standby,
                has_held=has_held,
                sink=sink,
                unwritable_s=self._unwritable_s,
            ),
            turn=self.turn,
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
    # The key `standby` is read anew: a restart would release the lease.
    publish = replace(config.publish, url=None, url_file=None, standby=False)
    return config.target, publish, config.retention.changes.total_seconds()
