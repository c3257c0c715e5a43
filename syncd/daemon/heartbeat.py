"""The heartbeat: stores that the daemon lives, assesses its health, and reports changes of it."""

from __future__ import annotations

import contextlib
import logging
import socket
from datetime import datetime

import structlog
from msgspec.structs import replace

from syncd.core import webhook_health
from syncd.core.clock_jump import Jump
from syncd.core.health import Assessment, assess
from syncd.core.jobs import SweepProgress
from syncd.core.snapshots import DaemonSnapshot, DaySummary, ReadingSnapshot, ReadingState
from syncd.core.timestamps import to_text
from syncd.core.webhook_health import DeliveryRate
from syncd.daemon.cached_queries import QueryRunner
from syncd.daemon.notifier import Notifier
from syncd.daemon.outputs import Outputs
from syncd.daemon.scheduler import Scheduler
from syncd.daemon.services import Services
from syncd.errors import MirrorError, MirrorIncompatible
from syncd.store import process_state
from syncd.store.process_state import Beat
from syncd.store.wall_time import health_after, put_mark
from syncd.webhook.endpoint import WebhookEndpoint

log = structlog.get_logger(__name__)

# The time between two heartbeats; that of a watchdog may be shorter.
HEARTBEAT_S = 25.0
# A heartbeat without news leaves the row alone until the row is older than so many heartbeats, so
# that every second one writes it: a commit costs 16 KB. `freshness.daemon_seen_at` may be 60 s old.
ROW_LASTS_BEATS = 1.2
# A health is reported after so many heartbeats; a short disturbance wakes nobody.
REPORTED_AFTER_BEATS = 3
# So many commits between two heartbeats need no cache: the heartbeat, and reads that confirm.
QUIET_COMMITS = 3


class Heartbeat:
    """Stores a sign of life at least at every second beat, and news at once.

    `every_s`: the time between two beats.
    """

    def __init__(
        self,
        services: Services,
        schedule: Scheduler,
        webhook: WebhookEndpoint,
        *,
        outputs: Outputs,
        every_s: float = HEARTBEAT_S,
        max_connections: int = 0,
    ) -> None:
        self._services = services
        self._schedule = schedule
        self._webhook = webhook
        self._outputs = outputs
        self._row_lasts_s = ROW_LASTS_BEATS * every_s
        self._max_connections = max_connections
        self._notifier = Notifier(sleep=services.clock.sleep)
        self._started_at = services.clock.now()
        self._webhooks = services.saved_state.webhooks
        self._reported_health = services.saved_state.reported_health
        self._health_beats: tuple[str, int] = ("", 0)
        self._written_401 = 0
        self._commits = 0
        self._logged_error = ""
        self._written: Beat | None = None
        # A separate connection: a heartbeat never waits for a query of the status.
        self._query_runner = QueryRunner(services.config.mirror.path)
        services.clock.follow(self._follow)

    @property
    def webhooks_state(self) -> webhook_health.WebhooksState:
        """The state of the webhook at the last beat."""
        return self._webhooks.state

    async def close(self) -> None:
        """Store that the daemon lived until now, and cancel notifications."""
        await self._notifier.close()
        mark = self._services.clock.mark()
        if self._services.is_waiting:
            await self._query_runner.close()
            return
        with contextlib.suppress(MirrorError):
            # So that the next start knows how long the daemon did not run.
            await self._services.database.write(lambda db: put_mark(db, mark))
        await self._query_runner.close()

    async def beat(self) -> None:
        """Store that the daemon lives, and let the publication know whether that is possible."""
        await self._beat()
        is_writable = self._webhook.write_error is None
        self._outputs.publication.note_mirror(is_writable=is_writable)

    async def _beat(self) -> None:
        """Store that the daemon lives, and assess whether deliveries still arrive."""
        services = self._services
        count_401 = self._unwritten_401
        try:
            await services.check_clock()
            # First: if another database replaced the mirror, a query has a misleading error.
            await services.database.check_writable()
            mark, jumps = services.clock.mark(), services.clock.jumps
            now = mark.at
            day = await self.last_day(now, self._query_runner)
            snapshot = await self.snapshot(now)
            if services.clock.jumps != jumps:
                return  # the results belong to the clock as it was; the next beat follows soon
            before, self._webhooks = (
                self._webhooks,
                webhook_health.assess_webhooks(self._webhooks, day.evidence, now),
            )
            snapshot = replace(snapshot, webhooks_state=self._webhooks.state)
            assessment = assess(snapshot, day)
            health = self._health_to_report(assessment, day)
            beat = Beat(
                mark=mark,
                webhooks=self._webhooks,
                reported_health=health,
                clock_offset=services.remote_clock.offset,
                counted={"invalid_signature": count_401},
            )
            # The mirror of a waiting daemon gets old: shops must not take it for a fresh one.
            if self._has_error or (not services.is_waiting and self._has_news(beat)):
                await self._write(beat)
        except MirrorError as error:
            self._webhook.write_error = error
            if error.message != self._logged_error:
                self._logged_error = error.message
                log.error("the mirror cannot be used", error=error.message, hint=error.hint)
            return
        if self._webhooks.state != before.state:
            self._report("webhooks", before.state, self._webhooks.state, assessment)
        if health != self._reported_health:
            if self._reported_health is not None:
                self._report("health", self._reported_health, health, assessment)
            self._reported_health = health
        if services.is_waiting:
            return
        is_silent = self._webhooks.state == "silent"
        self._schedule.adapt(is_silent=is_silent)
        with contextlib.suppress(MirrorError):  # the next heartbeat reports it
            is_quiet = await self._is_quiet_for_long(day, now)
            await services.look_for_evidence(
                snapshot.progress, is_quiet=is_quiet, is_silent=is_silent
            )
            await self._release_memory()

    def _has_news(self, beat: Beat) -> bool:
        """Return whether to write a beat: the stored one differs, is old, or may not be stored."""
        if self._written is None or self._has_error:
            return True
        age_s = beat.mark.elapsed_s - self._written.mark.elapsed_s
        return age_s > self._row_lasts_s or beat.adds_to(self._written)

    @property
    def _has_error(self) -> bool:
        return self._webhook.write_error is not None or bool(self._logged_error)

    async def _write(self, beat: Beat) -> None:
        """Write a beat, which proves that the mirror can be used; raises leaves of MirrorError."""
        services = self._services
        await services.database.write(lambda db: process_state.beat(db, beat))
        self._written_401 += beat.counted["invalid_signature"]
        self._written = beat
        # A heartbeat may touch only sound pages: after damage, the whole file is checked first.
        was_damaged = isinstance(self._webhook.write_error, MirrorIncompatible)
        if not was_damaged or await services.database.read(process_state.is_sound):
            self._webhook.write_error = None
        if self._logged_error:
            self._logged_error = ""
            log.info("the mirror can be used again")
            services.worker.retry_now()

    async def snapshot(self, now: datetime) -> DaemonSnapshot:
        """Return the state of the daemon; raises MirrorError leaves."""
        services = self._services
        fetcher, sweep_manager = services.fetcher, services.sweep_manager
        progress = await sweep_manager.progress()
        return DaemonSnapshot(
            at=now,
            mirror_path=str(services.config.mirror.path),
            started_at=self._started_at,
            write_error=self._webhook.write_error,
            webhooks_state=self._webhooks.state,
            down=services.down,
            paused_until=services.rate_limiter.paused_until,
            refused=fetcher.failures.refused,
            unreachable=fetcher.failures.unreachable,
            cached=fetcher.cached.reason,
            stuck_by=services.worker.stuck_by,
            unwritten=services.worker.reason,
            progress=progress,
            eta=None if progress is None else sweep_manager.eta(progress),
            next_sweep_at=self._schedule.next_sweep_at,
            calls_per_minute=services.config.dreamship.calls_per_minute,
            used_last_minute=services.rate_limiter.used_last_minute,
            invalid_signatures=self._unwritten_401,
            forged_since_delivery=self._webhook.forged_since_delivery,
            max_connections=self._max_connections,
            reading=self._reading(progress, now),
            listings=services.listings.snapshot,
            pushes=await self._outputs.pushes.snapshots(),
            publish=await self._outputs.publication.snapshot(),
        )

    def _reading(self, progress: SweepProgress | None, now: datetime) -> ReadingSnapshot:
        services = self._services
        background, failures = services.background, services.fetcher.failures
        rate_limiter = services.rate_limiter
        why: ReadingState = "background"
        rate = background.rate
        is_stopped = failures.refused is not None or services.worker.stuck_by is not None
        if is_stopped or (failures.paused_until is not None and failures.paused_until > now):
            why, rate = "stopped", 0.0
        elif rate_limiter.paused_until is not None and rate_limiter.paused_until > now:
            why, rate = "throttled", 0.0
        elif progress is not None and not progress.is_paced:
            why, rate = "urgent", rate_limiter.per_minute
        elif background.is_throttled:
            why = "throttled"
        elif background.catch_up.is_at_full_rate:
            why = "urgent"
        return ReadingSnapshot(
            rate, why, background.catch_up.evidence_at, services.fetcher.list_watch.counts
        )

    async def last_day(self, now: datetime, query_runner: QueryRunner) -> DaySummary:
        """Return the events of the last 24 hours; raises MirrorError leaves."""
        grace = self._services.config.reconcile.missed_grace
        return await query_runner.run(lambda queries: queries.last_day(now, grace))

    def _follow(self, jump: Jump) -> None:
        self._webhooks = health_after(self._webhooks, jump)
        self._started_at = jump.event(self._started_at)

    def _health_to_report(self, assessment: Assessment, day: DaySummary) -> str | None:
        """Return the health once it has lasted, else the one that was reported before."""
        health = assessment.health
        known, beats = self._health_beats
        self._health_beats = (health, beats + 1 if health == known else 1)
        is_first_fill = day.last_sweep_result is None
        if is_first_fill or self._health_beats[1] < REPORTED_AFTER_BEATS:
            return self._reported_health
        return health

    def _report(self, event: str, before: str, now: str | None, assessment: Assessment) -> None:
        level = logging.INFO if now in {"ok", "healthy"} else logging.WARNING
        changed = f"{event} changed"
        log.log(level, changed, state=now, before=before, reasons=assessment.reasons)
        config = self._services.config
        self._notifier.send(
            {
                "event": event,
                "before": before,
                "now": now,
                "reasons": assessment.reasons,
                "at": to_text(self._services.clock.now()),
                "host": socket.gethostname(),
                "mirror": str(config.mirror.path),
            },
            command=config.notify.command,
            url=config.notify.url,
        )

    async def _is_quiet_for_long(self, day: DaySummary, now: datetime) -> bool:
        """Return whether to read early, because deliveries stay away for unusually long."""
        last = day.evidence.last_delivery_at
        rate = (
            DeliveryRate()
            if last is None
            else await self._query_runner.run(lambda queries: queries.delivery_rate(last))
        )
        is_quiet = webhook_health.is_quiet(rate, now)
        return await self._schedule.quiet(now, is_quiet=is_quiet)

    async def _release_memory(self) -> None:
        """Return memory to the system while little is written."""
        commits = self._services.database.commits
        if commits - self._commits <= QUIET_COMMITS:
            await self._services.database.release_memory()
        self._commits = commits

    @property
    def _unwritten_401(self) -> int:
        return self._webhook.answered["401"] - self._written_401
