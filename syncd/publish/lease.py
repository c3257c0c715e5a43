"""The lease of one publisher, and its effect on the turn of the daemon."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog
from msgspec import Struct

from syncd.core.lease import LEASE_S, renewal_s, unwritable_limit_s, watch_s
from syncd.core.publishing import Source
from syncd.core.snapshots import PublishState
from syncd.errors import MirrorError, TargetError
from syncd.publish import sources
from syncd.publish.mirror import MirrorReader
from syncd.publish.rows import TargetRows
from syncd.publish.take_over import Copy, RowSink, copy_rows
from syncd.publish.target import Target
from syncd.publish.turn import Turn
from syncd.store import publishing as mirror
from syncd.store.pushes import mirror_id

log = structlog.get_logger(__name__)

# How often one of two hosts looks at the lease, with the lease or without.
LOOK_EVERY_S = 2.0
# The first failure may be that of a connection that ended during a pause of the process.
SERVES_AFTER_FAILURES = 2


def _is_no_standby() -> bool:
    return False


def _never_unwritable() -> float:
    return 0.0


class Terms(Struct, kw_only=True):
    """The facts and the settings of one publisher about the two hosts.

    `is_standby`: `publish.standby` of the configuration in force. `has_held`: the mirror had the
    lease of this source before. `sink`: where the rows of the target go before this daemon serves;
    None: it never waits, because it has no daemon. `unwritable_s`: for how long the mirror cannot
    be written.
    """

    host: str | None = None
    lease_s: float = LEASE_S
    is_standby: Callable[[], bool] = _is_no_standby
    has_held: bool = False
    sink: RowSink | None = None
    unwritable_s: Callable[[], float] = _never_unwritable


class Lease:
    """Takes, checks and releases the lease of one source. Only the publisher's thread uses it."""

    def __init__(self, source: str, terms: Terms, turn: Turn) -> None:
        self.epoch: int | None = None
        self.look_every_s = min(LOOK_EVERY_S, renewal_s(terms.lease_s))
        self._source = source
        self._terms = terms
        self._turn = turn
        # Whether this daemon may have waited for the lease that it has.
        self._may_copy = False
        self._is_noted = terms.has_held
        # Whether this daemon has released its lease, because its mirror could not be written.
        self._has_given_up = False
        self._look_at_s = 0.0
        # Since when the target answers without a break, while this daemon waits.
        self._watched_since_s: float | None = None

    def use(self, turn: Turn) -> None:
        """Change another turn from now on."""
        self._turn = turn

    @property
    def has_given_up(self) -> bool:
        """Whether this daemon waits until its mirror can be written."""
        return self._has_given_up

    @property
    def may_wait(self) -> bool:
        """Whether this daemon waits while another one has the lease."""
        has_held = self._terms.has_held or self.epoch is not None
        return self._terms.sink is not None and (self._terms.is_standby() or has_held)

    def acquire(self, target: Target, reader: MirrorReader) -> Source:
        """Return the row of the source with the lease; raises leaves of TargetError.

        After the mirror could not be written, raises MirrorErrors until it can be.
        """
        terms = self._terms
        if self._has_given_up and terms.sink is not None:
            terms.sink.probe()
            self._has_given_up = False
        may_wait = self.may_wait
        name = reader.run(mirror_id) or ""
        with target.transaction() as db:
            held = sources.acquire(
                db,
                target.tables,
                self._source,
                name,
                self.epoch,
                host=terms.host,
                lease_s=terms.lease_s,
                may_take_old=self._has_watched,
            )
        if held.epoch != self.epoch:
            log.info("the lease of the published source was taken", epoch=held.epoch)
            self._may_copy = may_wait
        self.epoch, self._watched_since_s = held.epoch, None
        return held

    def begin(
        self, target: Target, rows: TargetRows, held: Source, reader: MirrorReader
    ) -> Copy | None:
        """Make the daemon active, or first copy the rows that another mirror wrote.

        Return the copy if the target needs no comparison with the mirror after it.
        After a copy, the daemon becomes active once the target has the id of this mirror
        (`written`). Otherwise, the copy after a crash would undo deliveries.
        """
        if not self._needs_copy(held, reader) or not self._turn.begin_copy():
            self._turn.serve()
            return None
        assert self._terms.sink is not None  # noqa: S101 - for mypy
        began_s = time.monotonic()
        log.info("the mirror gets the rows of the target", epoch=held.epoch, host=held.host)
        try:
            copy = copy_rows(target, rows, held, self._terms.sink)
        except MirrorError:
            # While this daemon tries again, another host may be able to serve.
            self.give_up(target, held)
            raise
        seconds = round(time.monotonic() - began_s, 3)
        log.info("the mirror has the rows of the target", rows=copy.count, seconds=seconds)
        # The other mirror may not have written all its rows yet. Then the target is incomplete.
        is_complete = held.is_filled and held.copy is None
        return copy if is_complete and copy.is_almost_equal else None

    def written(self) -> None:
        """Take note of a transaction: this mirror is the one that the target follows."""
        if self._terms.sink is not None and not self._is_noted:
            self._terms.sink.note_held()
            self._is_noted = True
        self._look_at_s = time.monotonic() + self.look_every_s
        self._turn.serve()

    def require_writable_mirror(self, target: Target, held: Source) -> None:
        """Release the lease, and raise MirrorErrors, if the mirror cannot be written for long.

        The daemon refuses all deliveries then, and another host may be able to take them. Without
        `publish.standby` no other host waits, and the daemon keeps the lease.
        """
        terms = self._terms
        limit_s = unwritable_limit_s(terms.lease_s)
        if terms.sink is None or not terms.is_standby() or terms.unwritable_s() < limit_s:
            return
        try:
            terms.sink.probe()
        except MirrorError:
            self.give_up(target, held)
            raise

    def rest_s(self, due_in_s: float) -> float:
        """Return how long a publisher waits for changes before it looks at the lease."""
        return min(due_in_s, self.look_every_s) if self._terms.is_standby() else due_in_s

    def look(self, target: Target, held: Source) -> None:
        """Read the lease; raises TargetFenced, so that a host serves no longer after a take-over.

        The next transaction that writes would find out too, but a round may be ten seconds away.
        """
        if self._terms.is_standby() and time.monotonic() >= self._look_at_s:
            with target.transaction() as db:
                sources.require(db, target.tables, held)
            self._look_at_s = time.monotonic() + self.look_every_s

    def give_up(self, target: Target, held: Source) -> None:
        """Release the lease, and wait until the mirror can be written."""
        log.warning("the mirror cannot be written; another host may take the lease")
        self._has_given_up = True
        self._turn.wait()
        self.release(target, held)

    def lost(self) -> PublishState:
        """Take note that another publisher has the lease; return the state of this one."""
        if self._watched_since_s is None:
            self._watched_since_s = time.monotonic()
        if not self.may_wait:
            self._turn.serve()
            return "fenced"
        self._turn.wait()
        state: PublishState = "fenced"
        if self.epoch is None and self._terms.is_standby():
            state = "standby"
        return state

    def unreachable(self, failures: int) -> None:
        """Take note that the target cannot be used.

        A daemon that had the lease goes on with the main job: deliveries matter more than the
        publication. A daemon that starts without `publish.standby` does so too.
        """
        self._watched_since_s = None
        if self._terms.is_standby() and self.epoch is None:
            return
        if failures >= SERVES_AFTER_FAILURES:
            self._turn.serve_unless_decided()

    def release(self, target: Target, held: Source) -> None:
        """Release the lease of a daemon, so that the waiting one takes it at once."""
        if self._terms.sink is None:
            return
        try:
            with target.transaction() as db:
                sources.release(db, target.tables, held)
        except TargetError as error:
            log.warning("the lease could not be released; it ends by itself", error=error.message)
        else:
            log.info("the lease of the published source was released", epoch=held.epoch)

    @property
    def _has_watched(self) -> bool:
        if not self.may_wait or not self._terms.is_standby():
            return True
        since_s = self._watched_since_s
        limit_s = watch_s(self._terms.lease_s)
        return since_s is not None and time.monotonic() - since_s >= limit_s

    def _needs_copy(self, held: Source, reader: MirrorReader) -> bool:
        """Return whether another mirror wrote the target since this one did."""
        cursor = held.cursor
        if not self._may_copy or cursor is None:
            return False
        is_own = cursor.mirror == held.holder
        return not (is_own and reader.run(lambda db: mirror.has_change(db, cursor)))
