"""What keeps a mirror: opening it, signs of life, clean-up, and judging all of it anew."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from syncd.clock import Jump, Mark
from syncd.core.policy import Policy
from syncd.core.removals import reapply_policy
from syncd.store import process_state, reported_values, retention, rows, wall_time
from syncd.store.places import Oddity, oddities
from syncd.store.process_state import Beat, SavedState
from syncd.store.writer import Writer

# Variants judged at once when the configuration has changed: what deliveries wait for.
JUDGED_AT_ONCE = 500


class Kept:
    """The part of the store that no use case asks for: whoever runs it does."""

    def __init__(
        self, path: Path, *, missed_grace: timedelta, executor: Executor | None = None
    ) -> None:
        self.missed_grace = missed_grace
        self._writer = Writer(path, executor=executor)

    def open(self) -> None:
        """Take the mirror and bring its schema up to date; raises the leaves of MirrorError."""
        self._writer.open()

    async def open_aside(self) -> None:
        """Do as `open` does; the loop goes on meanwhile."""
        await self._writer.open_aside()

    @property
    def path(self) -> Path:
        """The real path of the mirror, once it is open."""
        return self._writer.path

    def oddities(self) -> list[Oddity]:
        """Return what is odd about the place of the mirror."""
        return oddities(self.path)

    def close(self) -> None:
        """Let go of the mirror; other users can go on reading it."""
        self._writer.close()

    async def restore(self, now: datetime) -> SavedState:
        """Return what a daemon that starts must know of the one before it."""
        return await self._writer.look(lambda db: process_state.restore(db, now))

    async def mark_accepting(self, now: datetime) -> None:
        """Keep that deliveries can be taken from now on."""
        await self._writer.transact(lambda db: process_state.mark_accepting(db, now))

    async def last_noted(self) -> tuple[Mark | None, datetime] | None:
        """Return the last sign of life and the newest moment noted; None in a new mirror."""
        return await self._writer.look(wall_time.last_noted)

    async def follow(self, jump: Jump) -> None:
        """Move every moment by this host's clock, before anything is written by the clock as it is.

        Raises MirrorError leaves when it could not be yet; whatever is written next does it first.
        """
        await self._writer.owe(lambda db: wall_time.follow(db, jump, self.missed_grace))

    async def trust_clock(self) -> None:
        """Keep that the wall clock is right again."""
        await self._writer.transact(process_state.trust_clock)

    async def is_sound(self) -> bool:
        """Tell whether every page of the file is as it must be; reads all of them."""
        return await self._writer.look(process_state.is_sound)

    async def heartbeat(self, beat: Beat) -> None:
        """Keep that the daemon lives, and what it has counted since the last beat."""
        await self._writer.transact(lambda db: process_state.beat(db, beat))

    async def pulse(self) -> None:
        """Return once the writer's thread has come round; whether the mirror can be used or not."""
        await self._writer.pulse()

    async def prune(
        self, *, deliveries_before: datetime, changes_before: datetime, now: datetime
    ) -> int:
        """Delete one slice of what is older than its retention; 0 when nothing is left."""
        return await self._writer.transact(
            lambda db: retention.prune(
                db,
                deliveries_before=deliveries_before,
                changes_before=changes_before,
                now=now,
                missed_grace=self.missed_grace,
            )
        )

    async def apply_policy(self, policy: Policy, clock: Callable[[], datetime]) -> bool:
        """Judge every variant by the configuration, if it changed; tell whether it did.

        In slices, between which deliveries are taken. Who comes after one that broke off begins
        anew, by whatever configuration.
        """

        def judge(db: sqlite3.Connection, after: int) -> int | None:
            if after < 0:
                process_state.forget_policy(db)
            states = rows.next_variants(db, after, JUDGED_AT_ONCE)
            if not states:
                process_state.note_policy(db, policy)
                return None
            now = clock()
            rows.write_observed(db, reapply_policy(states, policy, now=now), now)
            return states[-1].variant_id

        if not await self._writer.look(lambda db: process_state.is_new_policy(db, policy)):
            return False
        after: int | None = -1
        while after is not None:
            after = await self._writer.transact(partial(judge, after=after))
        return True

    async def note_values(self, found: Sequence[str]) -> list[str]:
        """Store that these values are reported; return those that never were."""
        if not await self._writer.look(lambda db: reported_values.unreported(db, found)):
            return []
        return await self._writer.transact(lambda db: reported_values.mark_reported(db, found))
