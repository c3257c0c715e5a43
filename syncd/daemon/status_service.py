"""The status of a running daemon: the document, the metrics and the page."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Hashable, Iterable
from pathlib import Path

from msgspec.structs import replace

from syncd import logs
from syncd.admin import metrics, page
from syncd.admin.live import LiveUpdates
from syncd.core import explain
from syncd.core.headline import headline, publication
from syncd.core.model import JsonObject
from syncd.core.snapshots import DaemonSnapshot, DaySummary, MirrorCounts
from syncd.core.status_document import StatusDocument, status_document
from syncd.core.story import story
from syncd.core.timestamps import to_text
from syncd.daemon.cached_queries import CachedQuery, QueryRunner
from syncd.daemon.heartbeat import Heartbeat
from syncd.daemon.services import Services
from syncd.errors import MirrorError, Overloaded, SyncdError
from syncd.http_server.refusals import Refusals
from syncd.store import Queries
from syncd.store.search import Found
from syncd.webhook.endpoint import WebhookEndpoint

# Counting a large mirror on a cold disk takes seconds.
STATUS_LIMIT_S = 30.0
# A search reads every variant: a million takes about two seconds.
SEARCH_LIMIT_S = 5.0


class StatusService:
    """Builds the status from the mirror and the heartbeat, with its own connections."""

    def __init__(
        self,
        services: Services,
        heartbeat: Heartbeat,
        webhook: WebhookEndpoint,
        *,
        refusals: Iterable[Refusals] = (),
    ) -> None:
        self._services = services
        self._heartbeat = heartbeat
        self._webhook = webhook
        self._refusals = tuple(refusals)
        mirror = services.config.mirror.path
        # Two connections, so that the status never waits for a search.
        self._query_runner = QueryRunner(mirror, limit_s=STATUS_LIMIT_S)
        self._searches = QueryRunner(mirror, limit_s=SEARCH_LIMIT_S)
        self._counts = CachedQuery(lambda queries: queries.counts(services.active.current.policy))
        self._day = CachedQuery(Queries.day)
        self._last: tuple[DaemonSnapshot, MirrorCounts, DaySummary] | None = None
        self.live = LiveUpdates(self._version, lambda: to_text(services.clock.now()))
        self.shop_name = shop_name(mirror)

    async def close(self) -> None:
        """Close the connections to the mirror."""
        for query_runner in (self._query_runner, self._searches):
            await query_runner.close()

    async def prepare(self) -> None:
        """Store a first status, in case the mirror becomes unreadable; counting takes a while."""
        if self._last is None:
            with contextlib.suppress(MirrorError, Overloaded):
                await self.status()

    async def status(self) -> StatusDocument:
        """Return the status document; if the mirror is unreadable, the last one with the error.

        Raises MirrorErrors if the mirror was never readable.
        """
        now = self._services.clock.now()
        try:
            snapshot = await self._heartbeat.snapshot(now)
            day = await self._heartbeat.last_day(now, self._query_runner)
            counts = await self._query_runner.run(self._counts.answer)
            self._last = snapshot, counts, day
        except MirrorError as error:
            if self._last is None:
                raise
            snapshot, counts, day = self._last
            write_error = self._webhook.write_error or error
            snapshot = replace(snapshot, at=now, write_error=write_error)
        return status_document(snapshot, counts, day)

    async def exposition(self) -> bytes:
        """Return the metrics; raises MirrorErrors if there is no status."""
        services, webhook = self._services, self._webhook
        return metrics.exposition(
            await self.status(),
            webhook.answered,
            webhook.times,
            metrics.sizes_of(services.database.path),
            metrics.Costs(
                metrics.written_bytes(), services.database.commits, services.rate_limiter.calls
            ),
            refused={one.listener: one.counted for one in self._refusals},
            dropped_lines=logs.dropped_lines(),
        )

    async def page(self, search: str) -> str:
        """Return the status page, with the SKUs and variants that match a `search`."""
        now = self._services.clock.now()
        found = (
            await self._searches.run(lambda queries: queries.find(search, page.MAX_MATCHES))
            if search
            else Found()
        )
        stories = [await self._story(variant_id) for variant_id in found.explained]
        day = await self._query_runner.run(lambda queries: self._day.answer(queries, now))
        status = await self.status()
        return page.render(
            status=status,
            head=headline(status, now),
            name=self.shop_name,
            published=publication(status.publish),
            day=day,
            webhooks=page.strip("Did deliveries arrive?", day.webhooks, day.begins, now),
            charts=[
                page.chart("Deliveries", day.deliveries, page.DELIVERIES),
                page.chart(
                    "Changes",
                    day.changes,
                    page.CHANGES,
                    also="; without the first fill" if day.has_first_fill else "",
                ),
            ],
            drift=page.chart("Differences found", day.drift, page.DRIFT, each="sweep"),
            search=search,
            found=found,
            stories=stories,
            at=to_text(now),
        )

    def error_page(self, error: SyncdError) -> str:
        """Return the page instead of one that cannot be made."""
        return page.error(
            error.message,
            error.hint,
            at=to_text(self._services.clock.now()),
            name=self.shop_name,
            is_busy=isinstance(error, Overloaded),
        )

    async def _story(self, variant_id: int) -> JsonObject:
        history = await self._searches.run(lambda queries: queries.variant_history(variant_id))
        return {
            "variant_id": variant_id,
            "because": explain.sentences(history),
            "events": story(history),
        }

    def _version(self) -> Hashable:
        """Return a value that changes with the page; it costs no query."""
        services = self._services
        failures = services.fetcher.failures
        return (
            services.database.commits,
            self._heartbeat.webhooks_state,
            str(self._webhook.write_error),
            failures.refused,
            failures.unreachable,
            services.rate_limiter.paused_until,
            services.worker.reason,
        )

    async def line(self) -> str:
        """Return the status in one line, for the service manager."""
        progress = await self._services.sweep_manager.progress()
        sweep = "" if progress is None else f"; sweep {progress.checked}/{progress.total or '?'}"
        return f"STATUS=webhooks {self._heartbeat.webhooks_state}{sweep}"


def shop_name(mirror: Path) -> str:
    """Return the name of the shop for people: that of the host, after that of a template unit."""
    host = socket.gethostname()
    shop = mirror.parent.name.removeprefix("syncd-")
    return f"{shop} on {host}" if shop != mirror.parent.name else host
