"""The thread that publishes: it takes the lease, and writes batch after batch, for ever.

Nothing waits for it. It has its own connection to the mirror and to the target, and all that it
knows of the target it reads from the target. So after any error it connects again and goes on from
the position that is there, also if a commit had no answer.
"""

from __future__ import annotations

import random
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import structlog
from msgspec.structs import replace

from syncd.config import TargetUrl
from syncd.core.backoff import backoff
from syncd.core.publishing import Source
from syncd.core.snapshots import PublishSnapshot
from syncd.errors import MirrorError, TargetError, TargetFenced
from syncd.publish import batch, retention, sources
from syncd.publish.mirror import MirrorReader
from syncd.publish.rounds import Rounds
from syncd.publish.rows import TargetRows
from syncd.publish.target import Target
from syncd.store.pushes import mirror_id

log = structlog.get_logger(__name__)

# While changes are frequent, those of this time go out in one transaction.
GATHER_S = 0.1
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 60.0
# Another transaction was in the way. It is over soon.
CONFLICT_WAIT_S = 0.05
MOST_CONFLICTS = 10
# How often a publisher without the lease looks at it.
FENCED_WAIT_S = 5.0
MIRROR_RETRY_S = 5.0
# The same error is logged again after this time.
LOG_EVERY_S = 3600.0


class Publisher:
    """Publishes one mirror into one target, in a thread of its own."""

    def __init__(
        self, url: TargetUrl, *, schema: str, source: str, mirror: Path, keep_changes_s: float
    ) -> None:
        self._url = url
        self._schema = schema
        self._source = source
        self._reader = MirrorReader(mirror)
        self._retention = retention.Retention(keep_changes_s)
        self._epoch: int | None = None
        # The last row of the feed that a reader may have seen. A replica that becomes the primary
        # may lack it. No other row may get its number then, or the reader would miss that row.
        self._seq = 0
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._woken = threading.Event()
        self._interrupted = threading.Event()
        self._is_stopping = False
        self._attempt = 0
        self._logged: tuple[str, float] = ("", 0.0)
        # Replaced as a whole, so that other threads see one state.
        self.state = PublishSnapshot(state="failing", source=source, error="has not connected yet")

    def start(self) -> None:
        """Begin to publish."""
        self._thread.start()

    def wake(self) -> None:
        """Look for changes now."""
        self._woken.set()

    def retry_now(self) -> None:
        """End the wait after a failure; the next waits are short again."""
        self._attempt = 0
        self._interrupted.set()

    def stop(self) -> None:
        """End after the transaction that runs."""
        self._is_stopping = True
        self._interrupted.set()
        self._woken.set()

    def join(self, limit_s: float) -> None:
        """Wait for the end. A server that does not answer must not delay it for longer."""
        self._thread.join(limit_s)

    def _run(self) -> None:
        try:
            while not self._is_stopping:
                self._try()
        finally:
            self._reader.close()

    def _try(self) -> None:
        """Publish until the first error, and wait as long as the error needs."""
        try:
            target = Target(self._url, self._schema)
            try:
                target.prepare()
                self._publish(target)
            finally:
                target.close()
        except TargetFenced as error:
            self._fence(error)
        except TargetError as error:
            self._fail(error.message, error.hint)
        except MirrorError:
            # The heartbeat reports it.
            self._wait(MIRROR_RETRY_S)
        except Exception:
            log.exception("publishing failed with an unexpected error")
            self._fail("failed with an unexpected error; see the log", "")

    def _publish(self, target: Target) -> None:
        """Publish until an error or the end."""
        held = self._acquire(target)
        rounds = Rounds(time.monotonic, lambda: datetime.now(UTC))
        rows = TargetRows(target.tables, self._source)
        conflicts = 0
        while not self._is_stopping:
            self._woken.clear()
            made = self._reader.run(lambda db: rounds.next(db, held))  # noqa: B023 - called at once
            if made is not None:
                made = replace(made, after_seq=self._seq)
            has_old = self._retention.run(target, held)
            if made is None:
                if not has_old:
                    self._woken.wait(rounds.due_in_s)
                continue
            try:
                with target.transaction() as db:
                    written = batch.write(db, target.tables, rows, held, made)
                    self._seq = written.source.seq
            except batch.Moved:
                held = self._acquire(target)
                continue
            except TargetError as error:
                conflicts += 1
                if not error.is_conflict or conflicts > MOST_CONFLICTS:
                    raise
                time.sleep(CONFLICT_WAIT_S * conflicts * random.uniform(0.5, 1))  # noqa: S311
                continue
            conflicts = 0
            rounds.written(written)
            held = written.source
            self._report(held, written.rows)
            if not rounds.is_behind:
                time.sleep(GATHER_S)

    def _acquire(self, target: Target) -> Source:
        """Return the row of the source with the lease; raises leaves of TargetError."""
        mirror = self._reader.run(mirror_id) or ""
        with target.transaction() as db:
            held = sources.acquire(db, target.tables, self._source, mirror, self._epoch)
        if held.epoch != self._epoch:
            log.info("the lease of the published source was taken", epoch=held.epoch)
        self._epoch = held.epoch
        return held

    def _report(self, held: Source, rows: int) -> None:
        if self.state.error is not None:
            log.info("publishing works", source=self._source, seq=held.seq, epoch=held.epoch)
        if self.state.is_copying and held.copy is None:
            log.info("the target was compared with the whole mirror", seq=held.seq)
        self._attempt = 0
        before = self.state
        self.state = replace(
            before,
            state="active",
            seq=held.seq,
            mirror_seq=None if held.cursor is None else held.cursor.seq,
            epoch=held.epoch,
            error=None,
            failing_since_s=None,
            is_copying=held.copy is not None or not held.is_filled,
            batches=before.batches + 1,
            rows=before.rows + rows,
        )

    def _fence(self, error: TargetFenced) -> None:
        if self.state.state != "fenced":
            log.warning("publishing is fenced", error=error.message)
        since_s = self.state.failing_since_s
        self.state = replace(
            self.state,
            state="fenced",
            error=error.message,
            failing_since_s=time.monotonic() if since_s is None else since_s,
        )
        self._wait(FENCED_WAIT_S)

    def _fail(self, error: str, hint: str) -> None:
        """Report a failure, and wait: longer after each one."""
        self._attempt += 1
        now_s = time.monotonic()
        # Jitter needs no secure randomness.
        chance = random.uniform(0.5, 1)  # noqa: S311
        pause = backoff(self._attempt, chance, base_s=FIRST_WAIT_S, cap_s=LONGEST_WAIT_S)
        pause_s = pause.total_seconds()
        logged, logged_at_s = self._logged
        if error != logged or self.state.state == "active" or now_s > logged_at_s + LOG_EVERY_S:
            self._logged = error, now_s
            log.warning("publishing failed", error=error, hint=hint, next_in_s=round(pause_s, 1))
        since_s = self.state.failing_since_s
        self.state = replace(
            self.state,
            state="failing",
            error=f"{error}; {hint}" if hint else error,
            failing_since_s=now_s if since_s is None else since_s,
            failures=self.state.failures + 1,
        )
        self._wait(pause_s)

    def _wait(self, seconds: float) -> None:
        """Wait until the time is over, a reload or the end; commits do not end it."""
        if not self._is_stopping:
            self._interrupted.wait(seconds)
            self._interrupted.clear()
