"""The thread that publishes: it takes the lease, and writes one batch after the other.

No other thread waits for it. It has its own connection to the mirror and to the target. It reads
its position from the target. So after any error, also after a commit without an answer, it connects
again and goes on from that position.
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
from syncd.core.lease import renewal_s, watch_s
from syncd.core.publishing import Source
from syncd.core.snapshots import PublishSnapshot
from syncd.errors import MirrorError, TargetError, TargetFenced
from syncd.publish import batch, retention, sources
from syncd.publish.lease import Lease, Terms
from syncd.publish.mirror import MirrorReader
from syncd.publish.rounds import Rounds
from syncd.publish.rows import TargetRows
from syncd.publish.target import Target
from syncd.publish.turn import Turn

log = structlog.get_logger(__name__)

# While changes are frequent, one transaction publishes all changes of this time.
GATHER_S = 0.5
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 60.0
# The wait after a conflict: another transaction has the lock, and ends soon.
CONFLICT_WAIT_S = 0.05
MOST_CONFLICTS = 10
# With two hosts, each host must notice soon that the target works again.
LONGEST_STANDBY_WAIT_S = 5.0
# How often a publisher that is fenced looks at the lease, if its daemon does not wait for it.
FENCED_WAIT_S = 5.0
# At the end, the last changes are published for this long before the lease is released.
FINISH_LIMIT_S = 3.0
MIRROR_RETRY_S = 5.0
# The same error is logged again after this time.
LOG_EVERY_S = 3600.0


class Publisher:
    """Publishes one mirror into one target, in a thread of its own."""

    def __init__(
        self,
        url: TargetUrl,
        *,
        schema: str,
        source: str,
        mirror: Path,
        keep_changes_s: float,
        terms: Terms | None = None,
        turn: Turn | None = None,
    ) -> None:
        self._url = url
        self._schema = schema
        self._source = source
        self._reader = MirrorReader(mirror)
        self._retention = retention.Retention(keep_changes_s)
        self._terms = terms or Terms()
        self._turn = turn or Turn()
        self._lease = Lease(source, self._terms, self._turn)
        self._must_check = False
        # The last row of the feed that a reader may have seen. A replica that becomes the primary
        # may lack it. No other row may get its number then, or the reader would miss that row.
        self._seq = 0
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._woken = threading.Event()
        self._interrupted = threading.Event()
        self._is_stopping = False
        self._finish_until_s = 0.0
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

    def check(self) -> None:
        """Check the lease now; the turn is undecided until the result is there."""
        self._must_check = True
        self.retry_now()
        self._woken.set()

    def stop(self) -> None:
        """Publish the last changes, release the lease, and end."""
        self._finish_until_s = time.monotonic() + FINISH_LIMIT_S
        self._is_stopping = True
        self._interrupted.set()
        self._woken.set()

    def join(self, limit_s: float) -> None:
        """Wait for the end. A server that does not answer must not delay it for longer."""
        self._thread.join(limit_s)
        # A thread that still waits for its server must not change the turn afterwards: the next
        # configuration may have no publisher that changes it back.
        self._turn = Turn()
        self._lease.use(self._turn)

    def _run(self) -> None:
        try:
            while not self._is_stopping:
                self._try()
        finally:
            self._reader.close()

    def _try(self) -> None:
        """Publish until the first error, and wait as long as the error needs."""
        try:
            target = Target(self._url, self._schema, idle_limit_s=watch_s(self._terms.lease_s))
            try:
                target.prepare()
                self._publish(target)
            finally:
                target.close()
        except TargetFenced as error:
            self._fence(error)
        except TargetError as error:
            self._fail(error.message, error.hint)
        except MirrorError as error:
            self._wait_for_mirror(error)
        except Exception:
            log.exception("publishing failed with an unexpected error")
            self._fail("failed with an unexpected error; see the log", "")

    def _publish(self, target: Target) -> None:
        """Publish until an error or the end."""
        self._must_check = False
        held = self._lease.acquire(target, self._reader)
        rows = TargetRows(target.tables, self._source)
        copy = self._lease.begin(target, rows, held, self._reader)
        rounds = Rounds(
            time.monotonic,
            lambda: datetime.now(UTC),
            confirm_every_s=renewal_s(self._terms.lease_s),
            copy=copy,
        )
        conflicts = 0
        while not self._is_stopping or time.monotonic() < self._finish_until_s:
            self._woken.clear()
            held = self._checked(target, held)
            self._lease.require_writable_mirror(target, held)
            self._lease.look(target, held)
            made = self._next(rounds, held)
            has_old = self._retention.run(target, held)
            if made is None:
                if self._is_stopping:
                    break
                if not has_old:
                    self._woken.wait(self._lease.rest_s(rounds.due_in_s))
                continue
            try:
                with target.transaction() as db:
                    written = batch.write(db, target.tables, rows, held, made)
                    self._seq = written.source.seq
            except batch.Moved:
                held = self._lease.acquire(target, self._reader)
                continue
            except TargetError as error:
                conflicts += 1
                if not error.is_conflict or conflicts > MOST_CONFLICTS:
                    raise
                time.sleep(CONFLICT_WAIT_S * conflicts * random.uniform(0.5, 1))  # noqa: S311
                continue
            conflicts = 0
            rounds.written(written)
            self._lease.epoch = written.source.epoch
            has_copied = held.copy is not None and written.source.copy is None
            held = written.source
            if has_copied:
                target.analyze()
            self._report(held, written.rows)
            if not rounds.is_behind:
                self._wait(GATHER_S)
        self._lease.release(target, held)

    def _next(self, rounds: Rounds, held: Source) -> batch.Batch | None:
        made = self._reader.run(lambda db: rounds.next(db, held))
        return None if made is None else replace(made, after_seq=self._seq)

    def _checked(self, target: Target, held: Source) -> Source:
        """Check the lease after a pause of the process; raises leaves of TargetError."""
        if not self._must_check:
            return held
        with target.transaction() as db:
            held = sources.renew(db, target.tables, held)
        self._must_check = False
        self._turn.serve()
        return held

    def _report(self, held: Source, rows: int) -> None:
        if self.state.error is not None:
            log.info("publishing works", source=self._source, seq=held.seq, epoch=held.epoch)
        if self.state.is_copying and held.copy is None:
            log.info("the target was compared with the whole mirror", seq=held.seq)
        self._attempt = 0
        self._lease.written()
        before = self.state
        self.state = replace(
            before,
            state="active",
            seq=held.seq,
            mirror_seq=None if held.cursor is None else held.cursor.seq,
            epoch=held.epoch,
            host=held.host,
            error=None,
            failing_since_s=None,
            is_copying=held.copy is not None or not held.is_filled,
            batches=before.batches + 1,
            rows=before.rows + rows,
        )

    def _fence(self, error: TargetFenced) -> None:
        self._must_check = False
        self._attempt = 0
        before = self.state
        state = self._lease.lost()
        if state == "standby" and before.state != state:
            log.info("waiting as a standby", active_host=error.host)
        elif before.state != state:
            log.warning("publishing is fenced", error=error.message)
        since_s = before.failing_since_s
        self.state = replace(
            before,
            state=state,
            host=error.host,
            error=None if state == "standby" else error.message,
            failing_since_s=time.monotonic() if since_s is None else since_s,
        )
        if self._turn.is_active:
            self._wait(FENCED_WAIT_S)
        else:
            self._wait(self._lease.look_every_s)

    def _wait_for_mirror(self, error: MirrorError) -> None:
        """Try again later; the heartbeat reports the error of the mirror."""
        if self._lease.has_given_up:
            since_s = self.state.failing_since_s
            self.state = replace(
                self.state,
                state="failing",
                host=None,
                error=f"the mirror cannot be written: {error.message}",
                failing_since_s=time.monotonic() if since_s is None else since_s,
            )
        self._wait(MIRROR_RETRY_S)

    def _fail(self, error: str, hint: str) -> None:
        """Report a failure, and wait: longer after each one."""
        self._attempt += 1
        self._lease.unreachable(self._attempt)
        now_s = time.monotonic()
        # Jitter needs no secure randomness.
        chance = random.uniform(0.5, 1)  # noqa: S311
        longest_s = LONGEST_STANDBY_WAIT_S if self._terms.is_standby() else LONGEST_WAIT_S
        pause = backoff(self._attempt, chance, base_s=FIRST_WAIT_S, cap_s=longest_s)
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
