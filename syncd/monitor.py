"""What the daemon tells of itself: signs of life, the state of the webhook, the status document."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import structlog

from syncd import status, webhook_health
from syncd.engine import Engine
from syncd.errors import MirrorError
from syncd.model import JsonObject
from syncd.schedule import Schedule
from syncd.store import Beat, Reports
from syncd.web import Webhook
from syncd.webhook_health import WebhooksState

log = structlog.get_logger(__name__)


class Monitor:
    """Watches one running daemon through the eyes of a reader of its mirror."""

    def __init__(self, engine: Engine, schedule: Schedule, webhook: Webhook) -> None:
        self._engine = engine
        self._schedule = schedule
        self._webhook = webhook
        self._started_at = datetime.now(UTC)
        self._webhooks_state: WebhooksState = "unknown"
        self._counted_401 = 0
        self._reports = Reports(engine.config.mirror.path)
        self._one_question = threading.Lock()

    def close(self) -> None:
        """Let go of the mirror."""
        self._reports.close()

    async def beat(self) -> None:
        """Show the shop that the daemon lives, and judge whether deliveries still arrive."""
        engine, now = self._engine, self._engine.clock.now()
        grace, counted = engine.config.reconcile.missed_grace, self._uncounted_401
        try:
            day = await self._ask(lambda reports: reports.last_day(now, grace))
            state = webhook_health.judge(day.missed_at, day.last_delivery_at)
            await engine.store.heartbeat(
                Beat(now, state, engine.source_clock.offset, {"invalid_signature": counted})
            )
            self._counted_401 += counted
            self._webhook.is_durable = True
        except MirrorError as fault:
            self._webhook.is_durable = False
            log.error("the mirror cannot be used", fault=fault.message, hint=fault.hint)
            return
        if state != self._webhooks_state:
            log.info("webhooks", state=state, before=self._webhooks_state)
            self._webhooks_state = state
            self._schedule.adapt(is_silent=state == "silent")

    async def status(self) -> JsonObject:
        """Return the status document; raises MirrorError leaves when it cannot be read."""
        engine, now = self._engine, self._engine.clock.now()
        config, asker, reconciler = engine.config, engine.asker, engine.reconciler
        progress = await reconciler.progress()
        running = status.Running(
            mirror_path=str(config.mirror.path),
            started_at=self._started_at,
            is_durable=self._webhook.is_durable,
            webhooks_state=self._webhooks_state,
            refused=asker.refused,
            unreachable=asker.unreachable,
            progress=progress,
            eta=None if progress is None else reconciler.eta(progress),
            next_sweep_at=self._schedule.next_sweep_at,
            calls_per_minute=config.dreamship.calls_per_minute,
            used_last_minute=engine.budget.used_last_minute,
            invalid_signatures=self._uncounted_401,
        )
        counts = await self._ask(Reports.counts)
        day = await self._ask(lambda r: r.last_day(now, config.reconcile.missed_grace))
        return status.document(running, counts, day, asker.policy)

    async def line(self) -> str:
        """Return the status in a few words, for the service manager."""
        progress = await self._engine.reconciler.progress()
        sweep = "" if progress is None else f"; sweep {progress.checked}/{progress.total or '?'}"
        return f"STATUS=webhooks {self._webhooks_state}{sweep}"

    @property
    def _uncounted_401(self) -> int:
        return self._webhook.answered["401"] - self._counted_401

    async def _ask(self, question: Callable[[Reports], Any]) -> Any:
        """Ask the mirror in a thread of its own, one question at a time."""

        def ask() -> Any:
            with self._one_question:
                return question(self._reports)

        return await asyncio.to_thread(ask)
