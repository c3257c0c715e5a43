"""What the daemon tells of itself: signs of life, the state of the webhook, the status document."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterable
from datetime import datetime

import structlog
from msgspec.structs import replace

from syncd import logs
from syncd.admin import metrics, page
from syncd.clock import Jump
from syncd.core import explain, status, webhook_health
from syncd.core.model import JsonObject, id_in
from syncd.core.status import Assessment, DaemonSnapshot, DaySummary, MirrorCounts
from syncd.core.timestamps import to_text
from syncd.core.webhook_health import DeliveryRate
from syncd.daemon.cached_queries import CachedQuery, QueryRunner
from syncd.daemon.notifier import Notifier
from syncd.daemon.scheduler import Scheduler
from syncd.daemon.services import Services
from syncd.errors import MirrorError, MirrorIncompatible, Overloaded
from syncd.http_server.refusals import Refusals
from syncd.store import Beat, Queries
from syncd.store.wall_time import judgement_after
from syncd.webhook.endpoint import WebhookEndpoint

log = structlog.get_logger(__name__)

# A health that lasts for so many signs of life is told; what passes by itself wakes nobody.
TOLD_AFTER_BEATS = 3
# Through a cold disk a large mirror is counted in seconds.
STATUS_LIMIT_S = 30.0
# A search reads every variant: a million in some two seconds.
SEARCH_LIMIT_S = 5.0


class StatusService:
    """Watches one running daemon through the eyes of a reader of its mirror."""

    def __init__(
        self,
        services: Services,
        schedule: Scheduler,
        webhook: WebhookEndpoint,
        *,
        refusals: Iterable[Refusals] = (),
        max_connections: int = 0,
    ) -> None:
        self._services = services
        self._schedule = schedule
        self._webhook = webhook
        self._refusals = tuple(refusals)
        self._max_connections = max_connections
        self._notifier = Notifier(sleep=services.clock.sleep)
        self._started_at = services.clock.now()
        self._webhooks = services.remembered.webhooks
        self._told_health = services.remembered.reported_health
        self._health_beats: tuple[str, int] = ("", 0)
        self._counted_401 = 0
        self._told_trouble = ""
        mirror = services.config.mirror.path
        # The sign of life waits behind nobody, and the status behind no search.
        self._own_questions = QueryRunner(mirror)
        self._query_runner = QueryRunner(mirror, limit_s=STATUS_LIMIT_S)
        self._searches = QueryRunner(mirror, limit_s=SEARCH_LIMIT_S)
        self._counts = CachedQuery(lambda reports: reports.counts(services.fetcher.policy))
        self._day = CachedQuery(Queries.day)
        self._last_look: tuple[DaemonSnapshot, MirrorCounts, DaySummary] | None = None
        services.clock.follow(self._follow)

    async def close(self) -> None:
        """Let go of the mirror."""
        await self._notifier.close()
        for query_runner in (self._own_questions, self._query_runner, self._searches):
            await query_runner.close()

    async def beat(self) -> None:
        """Show the shop that the daemon lives, and judge whether deliveries still arrive."""
        services = self._services
        counted = self._uncounted_401
        try:
            await services.notice_clock()
            mark, jumps = services.clock.mark(), services.clock.jumps
            now = mark.at
            day = await self._last_day(now, self._own_questions)
            running = await self._running(now)
            if services.clock.jumps != jumps:
                return  # what was read and judged belongs to another time; the next one is soon
            before, self._webhooks = (
                self._webhooks,
                webhook_health.judge(self._webhooks, day.evidence, now),
            )
            running = replace(running, webhooks_state=self._webhooks.state)
            assessment = status.assess(running, day)
            health = self._health_to_tell(assessment, day)
            await services.store.heartbeat(
                Beat(
                    mark=mark,
                    webhooks=self._webhooks,
                    reported_health=health,
                    clock_offset=services.remote_clock.offset,
                    counted={"invalid_signature": counted},
                )
            )
            self._counted_401 += counted
            # A sign of life may touch sound pages only: what was damaged is looked through first.
            was_damaged = isinstance(self._webhook.trouble, MirrorIncompatible)
            if not was_damaged or await services.store.is_sound():
                self._webhook.trouble = None
            if self._told_trouble:
                self._told_trouble = ""
                log.info("the mirror can be used again")
                services.worker.hurry()
        except MirrorError as fault:
            self._webhook.trouble = fault
            if fault.message != self._told_trouble:
                self._told_trouble = fault.message
                log.error("the mirror cannot be used", fault=fault.message, hint=fault.hint)
            return
        if self._webhooks.state != before.state:
            self._tell("webhooks", before.state, self._webhooks.state, assessment)
        if health != self._told_health:
            if self._told_health is not None:
                self._tell("health", self._told_health, health, assessment)
            self._told_health = health
        self._schedule.adapt(is_silent=self._webhooks.state == "silent")
        await self._look_if_quiet(day, now)

    def _follow(self, jump: Jump) -> None:
        self._webhooks = judgement_after(self._webhooks, jump)
        self._started_at = jump.noted(self._started_at)

    async def look_once(self) -> None:
        """Have something to tell, should the mirror become unreadable; counting takes a while."""
        if self._last_look is None:
            with contextlib.suppress(MirrorError, Overloaded):
                await self.status()

    async def status(self) -> JsonObject:
        """Return the status document: of a mirror that cannot be read, what was last seen in it.

        Raises MirrorError leaves when it never could.
        """
        now = self._services.clock.now()
        try:
            running, day = await self._running(now), await self._last_day(now, self._query_runner)
            counts = await self._query_runner.ask(self._counts.answer)
            self._last_look = running, counts, day
        except MirrorError as fault:
            if self._last_look is None:
                raise
            running, counts, day = self._last_look
            running = replace(running, at=now, trouble=self._webhook.trouble or fault)
        return status.document(running, counts, day)

    async def _running(self, now: datetime) -> DaemonSnapshot:
        services = self._services
        config, fetcher, sweep_manager = services.config, services.fetcher, services.sweep_manager
        progress = await sweep_manager.progress()
        return DaemonSnapshot(
            at=now,
            mirror_path=str(config.mirror.path),
            started_at=self._started_at,
            trouble=self._webhook.trouble,
            webhooks_state=self._webhooks.state,
            down=services.down,
            paused_until=services.rate_limiter.paused_until,
            refused=fetcher.failures.refused,
            unreachable=fetcher.failures.unreachable,
            cached=fetcher.cached.reason,
            stuck_by=services.worker.stuck_by,
            unkept=services.worker.reason,
            progress=progress,
            eta=None if progress is None else sweep_manager.eta(progress),
            next_sweep_at=self._schedule.next_sweep_at,
            calls_per_minute=config.dreamship.calls_per_minute,
            used_last_minute=services.rate_limiter.used_last_minute,
            invalid_signatures=self._uncounted_401,
            forged_since_delivery=self._webhook.forged_since_delivery,
            max_connections=self._max_connections,
        )

    async def exposition(self) -> bytes:
        """Return the metrics page; raises MirrorError leaves when it cannot be told."""
        webhook = self._webhook
        return metrics.exposition(
            await self.status(),
            webhook.answered,
            webhook.times,
            metrics.sizes_of(self._services.store.path),
            refused={one.listener: one.counted for one in self._refusals},
            dropped_lines=logs.dropped_lines(),
        )

    async def page(self, asked: str) -> str:
        """Return the status page, with the variants that match what somebody `asked`."""
        now = self._services.clock.now()
        found = (
            await self._searches.ask(lambda reports: reports.find(asked, page.MOST_FOUND))
            if asked
            else []
        )
        story = None
        variant_id = id_in(asked)
        if len(found) == 1 or (found and found[0]["variant_id"] == variant_id):
            story = await self._story(found[0]["variant_id"])
        elif not found and variant_id is not None:
            story = await self._story(variant_id)  # deliveries may have named it
        day = await self._query_runner.ask(lambda reports: self._day.answer(reports, now))
        return page.render(
            status=await self.status(),
            day=day,
            webhooks=page.strip("Webhooks", day.webhooks, day.begins, now),
            charts=[
                page.chart("Deliveries", day.deliveries, page.DELIVERIES),
                page.chart("Changes", day.changes, page.CHANGES),
                page.chart(
                    "Items by last confirmation",
                    day.confirmed,
                    page.CONFIRMED,
                    also=f"; {day.stale} longer ago or never",
                ),
            ],
            drift=page.chart("Differences found", day.drift, page.DRIFT, each="sweep"),
            asked=asked,
            found=found,
            story=story,
            at=to_text(now),
        )

    async def _story(self, variant_id: int) -> JsonObject:
        return explain.document(await self._searches.ask(lambda reports: reports.story(variant_id)))

    async def line(self) -> str:
        """Return the status in a few words, for the service manager."""
        progress = await self._services.sweep_manager.progress()
        sweep = "" if progress is None else f"; sweep {progress.checked}/{progress.total or '?'}"
        return f"STATUS=webhooks {self._webhooks.state}{sweep}"

    def _health_to_tell(self, assessment: Assessment, day: DaySummary) -> str | None:
        """Return the health once it has lasted, else the one told before."""
        health = assessment.health
        known, beats = self._health_beats
        self._health_beats = (health, beats + 1 if health == known else 1)
        is_first_fill = day.last_sweep_result is None
        if is_first_fill or self._health_beats[1] < TOLD_AFTER_BEATS:
            return self._told_health
        return health

    def _tell(self, event: str, before: str, now: str | None, assessment: Assessment) -> None:
        level = logging.INFO if now in {"ok", "healthy"} else logging.WARNING
        changed = f"{event} changed"
        log.log(level, changed, state=now, before=before, reasons=assessment.reasons)
        notify = self._services.config.notify
        self._notifier.tell(
            {
                "event": event,
                "before": before,
                "now": now,
                "reasons": assessment.reasons,
                "at": to_text(self._services.clock.now()),
                "host": socket.gethostname(),
                "mirror": str(self._services.config.mirror.path),
            },
            command=notify.command,
            url=notify.url,
        )

    async def _look_if_quiet(self, day: DaySummary, now: datetime) -> None:
        """Have the source asked early when deliveries stay away for unusually long."""
        last = day.evidence.last_delivery_at
        habit = (
            DeliveryRate()
            if last is None
            else await self._own_questions.ask(lambda reports: reports.habit(last))
        )
        is_quiet = webhook_health.is_quiet(habit, now)
        await self._schedule.quiet(now if is_quiet else None)

    @property
    def _uncounted_401(self) -> int:
        return self._webhook.answered["401"] - self._counted_401

    async def _last_day(self, now: datetime, query_runner: QueryRunner) -> DaySummary:
        grace = self._services.config.reconcile.missed_grace
        day: DaySummary = await query_runner.ask(lambda reports: reports.last_day(now, grace))
        return day
