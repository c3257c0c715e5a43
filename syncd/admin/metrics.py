"""The status document and the daemon's counters as Prometheus metrics.

Names start with `syncd_` and follow the conventions of Prometheus: base units, `_total` for
counters, moments as Unix seconds. No label has values that a sender can choose.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec import Struct
from prometheus_client import (
    CollectorRegistry,
    Histogram,
    ProcessCollector,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest

from syncd.admin.publish_metrics import output_metrics
from syncd.core.model import OUTCOMES
from syncd.core.status_document import StatusDocument
from syncd.core.timestamps import from_text

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# The reason of a refused delivery, by the status code of the answer.
REFUSALS = {
    "401": "signature",
    "408": "slow_body",
    "413": "large_body",
    "503": "not_durable",
}
# The status codes of refused requests.
CODES = ("400", "401", "404", "405", "408", "413", "421", "431", "500", "501", "503")
HEALTHS = ("ok", "degraded", "failing")
READING_STATES = ("background", "urgent", "throttled", "stopped")
WEBHOOK_STATES = ("unknown", "healthy", "failing", "silent")


class Costs(Struct, frozen=True):
    """The costs of the daemon since its start; `written_bytes` is None if it cannot be read."""

    written_bytes: int | None
    commits: int
    calls: int


def written_bytes(accounting: Path = Path("/proc/self/io")) -> int | None:
    """Return the bytes that this process has written to disk, or None without accounting."""
    try:
        lines = accounting.read_text().splitlines()
        return int(dict(line.split(": ") for line in lines)["write_bytes"])
    except (OSError, KeyError, ValueError):
        return None


class Sizes(Struct, frozen=True):
    """The sizes of the mirror's files, and the free space of their file system."""

    database_bytes: int
    log_bytes: int
    free_bytes: int


def sizes_of(path: Path) -> Sizes:
    """Return the sizes of a mirror; a missing file has 0 bytes."""
    return Sizes(
        database_bytes=_size(path),
        log_bytes=_size(path.with_name(f"{path.name}-wal")),
        free_bytes=shutil.disk_usage(path.parent).free,
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def exposition(
    document: StatusDocument,
    answered: Mapping[str, int],
    times: Histogram,
    sizes: Sizes,
    costs: Costs,
    *,
    refused: Mapping[str, Mapping[str, int]],
    dropped_lines: int = 0,
) -> bytes:
    """Return the text that Prometheus reads.

    `document` is the status document. `answered` counts the webhook's answers by outcome or code.
    `refused` counts the refused requests of each listener by code. `dropped_lines` counts lines of
    the log.
    """
    registry = CollectorRegistry()
    registry.register(
        _Collector(document, answered, sizes, costs, refused=refused, dropped_lines=dropped_lines)
    )
    registry.register(times)
    ProcessCollector(namespace="syncd", registry=registry)
    return generate_latest(registry)


class _Collector:
    def __init__(
        self,
        document: StatusDocument,
        answered: Mapping[str, int],
        sizes: Sizes,
        costs: Costs,
        *,
        refused: Mapping[str, Mapping[str, int]],
        dropped_lines: int,
    ) -> None:
        self._document = document
        self._refused = refused
        self._answered = answered
        self._sizes = sizes
        self._costs = costs
        self._dropped_lines = dropped_lines

    def collect(self) -> Iterator[Metric]:
        """Give every metric except those of the process."""
        yield from self._daemon_metrics()
        yield from self._delivery_metrics()
        yield from self._mirror_metrics()
        yield from self._read_metrics()
        yield from output_metrics(self._document)

    def _daemon_metrics(self) -> Iterator[Metric]:
        document = self._document
        yield _gauge("info", "Always 1; the version is its label.", 1, version=document.version)
        yield _moment("start_time_seconds", "When the daemon started.", document.started_at)
        yield _states("health", "1 for the current health.", HEALTHS, document.health)
        yield _counter(
            "log_lines_dropped",
            "Lines of the log that were neither read nor written to disk.",
            self._dropped_lines,
        )
        yield from self._cost_metrics()

    def _cost_metrics(self) -> Iterator[Metric]:
        costs = self._costs
        if costs.written_bytes is not None:
            yield _counter(
                "written_bytes",
                "Bytes that the process has written to disk, by the kernel's accounting.",
                costs.written_bytes,
            )
        yield _counter("commits", "Transactions that were committed to the mirror.", costs.commits)
        yield _counter("dreamship_calls", "Calls to Dreamship.", costs.calls)

    def _delivery_metrics(self) -> Iterator[Metric]:
        webhooks = self._document.webhooks
        accepted = CounterMetricFamily(
            "syncd_deliveries", "Authentic deliveries answered 200, by outcome.", labels=["outcome"]
        )
        for outcome in OUTCOMES:
            accepted.add_metric([outcome], self._answered.get(outcome, 0))
        yield accepted
        refused = CounterMetricFamily(
            "syncd_requests_refused", "Refused requests, by reason.", labels=["reason"]
        )
        for code, reason in REFUSALS.items():
            refused.add_metric([reason], self._answered.get(code, 0))
        yield refused
        by_code = CounterMetricFamily(
            "syncd_http_refused",
            "Refused requests of each listener, by status code; bytes that are not HTTP included.",
            labels=["listener", "code"],
        )
        for listener, counted in self._refused.items():
            for code in CODES:
                by_code.add_metric([listener, code], counted.get(code, 0))
        yield by_code
        yield _moment(
            "last_delivery_timestamp_seconds",
            "When the last authentic delivery arrived.",
            webhooks.last_delivery_at,
        )
        yield _states("webhooks_state", "1 for the current state.", WEBHOOK_STATES, webhooks.state)
        yield _gauge(
            "missed_changes_last_day",
            "Changes of 24 hours without a delivery.",
            webhooks.missed_24h,
        )
        yield _gauge(
            "quarantined_deliveries",
            "Stored deliveries that were not understood.",
            self._document.quarantined,
        )

    def _mirror_metrics(self) -> Iterator[Metric]:
        mirror, sizes = self._document.mirror, self._sizes
        yield _gauge("items", "Items in the mirror that are not removed.", mirror.items)
        variants = GaugeMetricFamily(
            "syncd_variants", "Variants in the mirror, by state.", labels=["state"]
        )
        others = mirror.variants - mirror.sellable - mirror.removed
        for state, count in (
            ("sellable", mirror.sellable),
            ("not_sellable", others),
            ("removed", mirror.removed),
        ):
            variants.add_metric([state], count)
        yield variants
        if (listings := self._document.listings) is not None:
            skus = GaugeMetricFamily(
                "syncd_skus", "SKUs of the listings: sellable, or why not.", labels=["state"]
            )
            for state, count in {"sellable": listings.sellable, **listings.unsellable}.items():
                skus.add_metric([state], count)
            yield skus
        yield _moment(
            "oldest_confirmed_timestamp_seconds",
            "The oldest confirmation of any variant.",
            mirror.oldest_confirmed_at,
        )
        yield _gauge("database_bytes", "Size of the database file.", sizes.database_bytes)
        yield _gauge("log_bytes", "Size of its write-ahead log.", sizes.log_bytes)
        yield _gauge("free_bytes", "Free space of the mirror's file system.", sizes.free_bytes)

    def _read_metrics(self) -> Iterator[Metric]:
        sweep, budget = self._document.sweep, self._document.budget
        reading = self._document.reading
        yield _gauge("reading_calls_per_minute", "The rate of reads now.", reading.rate_per_minute)
        yield _states("reading", "1 for why reads have this rate.", READING_STATES, reading.why)
        confirmed = GaugeMetricFamily(
            "syncd_confirmed_items",
            "Items whose last read began within this time.",
            labels=["within"],
        )
        confirmed.add_metric(["10m"], reading.confirmed_10m)
        confirmed.add_metric(["30m"], reading.confirmed_30m)
        confirmed.add_metric(["60m"], reading.confirmed_60m)
        yield confirmed
        yield _moment(
            "lost_delivery_timestamp_seconds",
            "When a read found a change without a delivery, while older reads are repeated.",
            reading.evidence_at,
        )
        checked = reading.hints.checked
        yield _gauge("list_hints_checked", "Changes whose row of the list was compared.", checked)
        yield _gauge(
            "list_hints_predicted", "Changes whose row had changed too.", reading.hints.predicted
        )
        yield _gauge("sweep_running", "1 while a sweep reads the catalogue.", int(sweep.running))
        yield _gauge("sweep_checked_items", "Items that this sweep has read.", sweep.checked)
        yield _gauge("sweep_items", "Items that this sweep has to read.", sweep.total or 0)
        yield _moment(
            "last_sweep_timestamp_seconds", "When the last sweep ended.", sweep.last_finished_at
        )
        yield _gauge(
            "last_sweep_complete",
            "1 if the last sweep was complete.",
            int(sweep.last_result == "complete"),
        )
        yield _gauge("calls_per_minute", "Allowed calls.", budget.calls_per_minute)
        yield _gauge("calls_last_minute", "Calls of the last minute.", budget.used_last_minute)
        yield _gauge(
            "throttled_last_day", "429 answers of Dreamship in 24 hours.", budget.throttled_24h
        )
        yield _gauge(
            "refresh_queue_items",
            "Items that wait for a confirming read.",
            self._document.refresh_queue,
        )


def _gauge(name: str, text: str, value: float, **labels: str) -> Metric:
    metric = GaugeMetricFamily(f"syncd_{name}", text, labels=list(labels))
    metric.add_metric(list(labels.values()), value)
    return metric


def _counter(name: str, text: str, value: int) -> Metric:
    """Give a counter since the start; the name of its sample ends with `_total`."""
    metric = CounterMetricFamily(f"syncd_{name}", text)
    metric.add_metric([], value)
    return metric


def _moment(name: str, text: str, at: str | None) -> Metric:
    """Give a moment in Unix seconds, or no sample if there is none."""
    metric = GaugeMetricFamily(f"syncd_{name}", text)
    if at is not None:
        metric.add_metric([], from_text(at).timestamp())
    return metric


def _states(name: str, text: str, states: tuple[str, ...], now: str) -> Metric:
    metric = GaugeMetricFamily(f"syncd_{name}", text, labels=["state"])
    for state in states:
        metric.add_metric([state], int(state == now))
    return metric
