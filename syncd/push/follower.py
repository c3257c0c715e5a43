"""Follows the change feed for one push: reads a batch, sends it, stores the position."""

from __future__ import annotations

import asyncio
import random
import time
from functools import partial

import structlog

from syncd.config import Push
from syncd.core.backoff import backoff
from syncd.core.pushes import Cursor, Step
from syncd.core.snapshots import PushSnapshot
from syncd.errors import MirrorError
from syncd.push.reader import Reader
from syncd.push.sinks import Gone, NotTaken, Sink
from syncd.store import Database, pushes

log = structlog.get_logger(__name__)

# Commits wake a push; this finds a change also if a wake-up was lost.
LOOK_EVERY_S = 5.0
# After a batch that was not full, the changes of this time go out together: each batch costs a
# commit. The first change after a pause goes out at once.
GATHER_S = 0.25
# A position past changes that the push does not get is stored after this time.
STORE_EVERY_S = 10.0
MIRROR_RETRY_S = 5.0
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 300.0
# The same error is logged again after this time.
LOG_EVERY_S = 3600.0


class Follower:
    """Sends each batch until it is taken, then the next one; never a later one before.

    It waits only for its own receiver, and no other part waits for it.
    """

    def __init__(self, push: Push, sink: Sink, database: Database) -> None:
        self.push = push
        self.is_stopped = False
        self._sink = sink
        self._database = database
        self._reader = Reader(database.path)
        self._cursor: Cursor | None = None
        self._stored: Cursor | None = None
        self._stored_at_s = 0.0
        self._changed = asyncio.Event()
        self._retrying = asyncio.Event()
        self._error = ""
        self._failing_since_s: float | None = None
        self._attempt = 0
        self._failures = 0
        self._batches = 0
        self._logged: tuple[str, float] = ("", 0.0)

    def wake(self) -> None:
        """Look for changes now."""
        self._changed.set()

    def retry_now(self) -> None:
        """End the wait after a failure; the next waits are short again."""
        self._attempt = 0
        self._retrying.set()

    def snapshot(self, newest_seq: int) -> PushSnapshot:
        """Return the state of this push."""
        since_s = self._failing_since_s
        seq = None if self._cursor is None else self._cursor.seq
        return PushSnapshot(
            name=self.push.name,
            seq=seq,
            lag_changes=max(0, newest_seq - (seq or 0)),
            is_copying=self._cursor is not None and self._cursor.copied is not None,
            is_stopped=self.is_stopped,
            error=self._error or None,
            failing_s=0.0 if since_s is None else time.monotonic() - since_s,
            failures=self._failures,
            batches=self._batches,
        )

    async def run(self) -> None:
        """Follow the feed until cancelled, or until the receiver wants nothing more."""
        try:
            while not self.is_stopped:
                try:
                    await self._next()
                except MirrorError:
                    # The heartbeat reports it.
                    await asyncio.sleep(MIRROR_RETRY_S)
                except Exception:
                    log.exception("a push failed with an unexpected error", push=self.push.name)
                    await self._fail("failed with an unexpected error; see the log", 0.0)
        finally:
            self._reader.close()
            await self._sink.close()

    async def _next(self) -> None:
        """Send one batch, or wait for a change."""
        if self._stored is None:
            inode = self._database.path.stat().st_ino
            await self._database.write(partial(pushes.identify, inode=inode))
            self._stored = await self._reader.run(partial(pushes.load, name=self.push.name))
            self._cursor = self._stored
        self._changed.clear()
        step = await self._reader.run(
            partial(
                pushes.next_step,
                name=self.push.name,
                cursor=self._cursor,
                only=self.push.only,
                most=self.push.batch,
            )
        )
        if step.changes is not None:
            self._report_copy(step.cursor)
            await self._store(step.cursor)
            is_taken = await self._send(step)
            if is_taken and step.cursor.copied is None and len(step.changes) < self.push.batch:
                await asyncio.sleep(GATHER_S)
            return
        has_moved, self._cursor = step.cursor != self._cursor, step.cursor
        if has_moved:
            return
        was_taken = self._stored is not None and self._stored.pending is not None
        if was_taken or time.monotonic() > self._stored_at_s + STORE_EVERY_S:
            await self._store(step.cursor)
        await _is_set_within(self._changed, LOOK_EVERY_S)

    async def _store(self, cursor: Cursor) -> None:
        if cursor != self._stored:
            await self._database.write(partial(pushes.save, cursor=cursor))
            self._stored = cursor
        self._cursor, self._stored_at_s = cursor, time.monotonic()

    async def _send(self, step: Step) -> bool:
        """Send a batch; return whether it was taken."""
        try:
            await self._sink.send(step)
        except Gone as error:
            self.is_stopped, self._error = True, str(error)
            self._failures += 1
            log.error("a push was stopped by its receiver", push=self.push.name, error=str(error))
        except NotTaken as error:
            await self._fail(str(error), error.wait_s)
        else:
            self._cursor = step.cursor.taken
            self._batches += 1
            if step.cursor.copied is not None and self._cursor.copied is None:
                log.info("a push has sent its full copy", push=self.push.name)
            if self._error:
                log.info("a push works again", push=self.push.name, seq=self._cursor.seq)
            self._error, self._failing_since_s, self._attempt = "", None, 0
            return True
        return False

    async def _fail(self, error: str, wait_s: float) -> None:
        """Report a failure, and wait: longer after each one, and as long as the receiver asks."""
        self._attempt += 1
        self._failures += 1
        now_s = time.monotonic()
        if self._failing_since_s is None:
            self._failing_since_s = now_s
        # Jitter needs no secure randomness.
        chance = random.uniform(0.5, 1)  # noqa: S311
        pause = backoff(self._attempt, chance, base_s=FIRST_WAIT_S, cap_s=LONGEST_WAIT_S)
        pause_s = max(pause.total_seconds(), wait_s)
        logged, logged_at_s = self._logged
        if not self._error or error != logged or now_s > logged_at_s + LOG_EVERY_S:
            self._logged = error, now_s
            log.warning(
                "a push failed",
                push=self.push.name,
                error=error,
                attempt=self._attempt,
                next_in_s=round(pause_s, 1),
            )
        self._error = error
        self._retrying.clear()
        await _is_set_within(self._retrying, pause_s)

    def _report_copy(self, cursor: Cursor) -> None:
        before = self._cursor
        if cursor.copied == 0 and (before is None or before.run != cursor.run):
            log.info("a push begins with a full copy", push=self.push.name, seq=cursor.seq)


async def _is_set_within(event: asyncio.Event, limit_s: float) -> bool:
    """Wait for an event; return whether it was set in time.

    `asyncio.wait_for` of Python 3.11 loses a cancellation that arrives with the event: then a push
    would never end.
    """
    try:
        async with asyncio.timeout(limit_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
