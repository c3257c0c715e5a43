"""The status document, typed: the names and the order of the fields are the keys of the JSON.

`/status.json`, the control socket and `syncd status --json` show it
(syncd/docs/reference.md, "The status document"). A command may read the document of a daemon of
another version: names of states are plain text here, and keys that 0.1.0 does not have come with a
default.
"""

from __future__ import annotations

from msgspec import Struct

from syncd import __version__
from syncd.core.health import Problem, assess
from syncd.core.snapshots import (
    DaemonSnapshot,
    DaySummary,
    ListingCounts,
    MirrorCounts,
    PublishSnapshot,
    PushSnapshot,
    ReadingSnapshot,
)
from syncd.core.timestamps import maybe_text, to_text


class WebhooksStatus(Struct, frozen=True, kw_only=True):
    """Whether deliveries arrive."""

    state: str
    last_delivery_at: str | None
    missed_24h: int
    invalid_signatures_24h: int


class MirrorStatus(Struct, frozen=True, kw_only=True):
    """The content of the mirror; `unknown_values` counts the variants of each value."""

    path: str
    items: int
    variants: int
    sellable: int
    removed: int
    oldest_confirmed_at: str | None
    unknown_values: dict[str, int]
    more_unknown_values: int = 0
    daemon_seen_at: str | None = None


class SweepStatus(Struct, frozen=True, kw_only=True):
    """The sweep that runs, the last one and the next one."""

    running: bool
    checked: int
    total: int | None
    eta_seconds: int | None
    last_finished_at: str | None
    last_result: str | None
    next_at: str | None


class BudgetStatus(Struct, frozen=True, kw_only=True):
    """The calls to Dreamship."""

    calls_per_minute: int
    used_last_minute: int
    throttled_24h: int


class HintsStatus(Struct, frozen=True, kw_only=True):
    """Whether the rows of the list show which items have changed; None: not known yet."""

    useful: bool | None = None
    checked: int = 0
    predicted: int = 0


class ReadingStatus(Struct, frozen=True, kw_only=True):
    """How fast the daemon reads, and the items that it has confirmed."""

    rate_per_minute: float = 0.0
    why: str = "stopped"
    confirmed_10m: int = 0
    confirmed_30m: int = 0
    confirmed_60m: int = 0
    evidence_at: str | None = None
    hints: HintsStatus = HintsStatus()


class ListingsStatus(Struct, frozen=True, kw_only=True):
    """The SKUs of the shop; `unsellable` counts them by reason."""

    total: int
    sellable: int
    unsellable: dict[str, int]


class PublishStatus(Struct, frozen=True, kw_only=True):
    """The state of the publication, and how far it is behind."""

    state: str
    lag_seconds: float
    seq: int | None
    epoch: int | None
    error: str | None
    source: str = "default"
    active_host: str | None = None
    waiting: bool = False
    copying: bool = False
    batches: int = 0
    rows: int = 0
    failures: int = 0


class PushStatus(Struct, frozen=True, kw_only=True):
    """The position of one push, and why its last batch was not taken."""

    name: str
    seq: int | None
    lag_changes: int
    error: str | None
    copying: bool = False
    stopped: bool = False
    failures: int = 0
    batches: int = 0


class StatusDocument(Struct, frozen=True, kw_only=True):
    """The health of one daemon and its reasons."""

    health: str
    reasons: list[str]
    problems: list[Problem] = []
    webhooks: WebhooksStatus
    mirror: MirrorStatus
    sweep: SweepStatus
    budget: BudgetStatus
    waiting_for_first_delivery: bool = False
    reading: ReadingStatus = ReadingStatus()
    listings: ListingsStatus | None = None
    publish: PublishStatus | None = None
    push: list[PushStatus] = []
    refresh_queue: int
    quarantined: int
    max_connections: int | None = None
    version: str
    started_at: str


def status_document(now: DaemonSnapshot, counts: MirrorCounts, day: DaySummary) -> StatusDocument:
    """Return the status of a daemon at one moment."""
    assessment = assess(now, day)
    progress = now.progress
    return StatusDocument(
        health=assessment.health,
        reasons=assessment.reasons,
        problems=assessment.problems,
        webhooks=WebhooksStatus(
            state=now.webhooks_state,
            last_delivery_at=maybe_text(day.last_delivery_at),
            missed_24h=day.missed,
            invalid_signatures_24h=day.invalid_signatures + now.invalid_signatures,
        ),
        mirror=MirrorStatus(
            path=now.mirror_path,
            items=counts.items,
            variants=counts.variants,
            sellable=counts.sellable,
            removed=counts.removed,
            oldest_confirmed_at=counts.oldest_confirmed_at,
            unknown_values=counts.unknown_values.named,
            more_unknown_values=counts.unknown_values.more,
            daemon_seen_at=counts.daemon_seen_at,
        ),
        sweep=SweepStatus(
            running=progress is not None,
            checked=0 if progress is None else progress.checked,
            total=None if progress is None else progress.total,
            eta_seconds=None if now.eta is None else round(now.eta.total_seconds()),
            last_finished_at=day.last_sweep_ended_at,
            last_result=day.last_sweep_result,
            next_at=maybe_text(now.next_sweep_at),
        ),
        budget=BudgetStatus(
            calls_per_minute=now.calls_per_minute,
            used_last_minute=now.used_last_minute,
            throttled_24h=day.throttled,
        ),
        waiting_for_first_delivery=day.last_delivery_at is None,
        reading=_reading(now.reading, day),
        listings=_listings(counts.listings),
        publish=None if now.publish is None else _publish(now.publish),
        push=[_push(push) for push in now.pushes],
        refresh_queue=counts.refresh_queue,
        quarantined=counts.quarantined,
        max_connections=now.max_connections,
        version=__version__,
        started_at=to_text(now.started_at),
    )


def _listings(counts: ListingCounts | None) -> ListingsStatus | None:
    if counts is None:
        return None
    return ListingsStatus(
        total=counts.total, sellable=counts.sellable, unsellable=counts.unsellable
    )


def _publish(publish: PublishSnapshot) -> PublishStatus:
    return PublishStatus(
        state=publish.state,
        lag_seconds=round(publish.lag_s, 3),
        seq=publish.seq,
        epoch=publish.epoch,
        error=publish.error,
        source=publish.source,
        active_host=publish.host,
        waiting=publish.is_waiting,
        copying=publish.is_copying,
        batches=publish.batches,
        rows=publish.rows,
        failures=publish.failures,
    )


def _push(push: PushSnapshot) -> PushStatus:
    return PushStatus(
        name=push.name,
        seq=push.seq,
        lag_changes=push.lag_changes,
        error=push.error,
        copying=push.is_copying,
        stopped=push.is_stopped,
        failures=push.failures,
        batches=push.batches,
    )


def _reading(reading: ReadingSnapshot, day: DaySummary) -> ReadingStatus:
    return ReadingStatus(
        rate_per_minute=round(reading.rate_per_minute, 2),
        why=reading.why,
        confirmed_10m=day.confirmed_10m,
        confirmed_30m=day.confirmed_30m,
        confirmed_60m=day.confirmed_60m,
        evidence_at=maybe_text(reading.evidence_at),
        hints=HintsStatus(
            useful=reading.hints.is_useful,
            checked=reading.hints.checked,
            predicted=reading.hints.predicted,
        ),
    )
