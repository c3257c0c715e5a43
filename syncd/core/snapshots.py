"""The state of the mirror and of the daemon at one moment: the input of health and status."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from msgspec import Struct

from syncd.core.jobs import SweepProgress
from syncd.core.list_hints import HintCounts
from syncd.core.webhook_health import Evidence, WebhooksState
from syncd.errors import SyncdError

ReadingState = Literal["background", "urgent", "throttled", "stopped"]


class UnknownValues(Struct, frozen=True):
    """The values that are not sellable by the configuration, the most frequent first.

    `named`: the number of variants with each value, shortened to MAX_VALUE_CHARS. `more`: the
    number of other values.
    """

    named: dict[str, int]
    more: int


class ListingCounts(Struct, frozen=True):
    """The SKUs of the shop; `unsellable`: the number of SKUs for each reason."""

    total: int
    sellable: int
    unsellable: dict[str, int]


class MirrorCounts(Struct, frozen=True):
    """The counts of the mirror at one moment; `listings` None: there are no listings.

    `daemon_seen_at`: the daemon's last sign of life that shops can read.
    """

    items: int
    variants: int
    sellable: int
    removed: int
    verifying: int
    oldest_confirmed_at: str | None
    unknown_values: UnknownValues
    refresh_queue: int
    quarantined: int
    listings: ListingCounts | None = None
    daemon_seen_at: str | None = None


class DeadListings(Struct, frozen=True):
    """SKUs that lead to no variant: how many, and the first of them."""

    count: int = 0
    first: tuple[str, ...] = ()


class ListingsSnapshot(Struct, frozen=True):
    """The state of the file `catalog.listings`; `error`: why its last version is not in force."""

    error: str | None = None
    dead: DeadListings = DeadListings()


class PushSnapshot(Struct, frozen=True):
    """The state of one push.

    `seq`: the last change that is taken; None before the first start. `error`: why the last batch
    was not taken. `failing_s`: since when no batch was taken, 0 without an error. `is_stopped`: the
    receiver answered 410. `failures`, `batches`: failed attempts and taken batches since the start.
    """

    name: str
    seq: int | None
    lag_changes: int
    is_copying: bool
    is_stopped: bool
    error: str | None
    failing_s: float
    failures: int
    batches: int


PublishState = Literal["active", "standby", "fenced", "failing"]


class PublishSnapshot(Struct, frozen=True, kw_only=True):
    """The state of the publication.

    `seq`: the last row of the target's feed; `mirror_seq`: the change of the mirror up to which all
    is published; both None before the first transaction. `host`: that of the active daemon, None if
    it is not known. `is_waiting`: this daemon takes no deliveries. `lag_s`: the age of the first
    change that is not published. `failing_since_s`: by the monotonic clock, None without an error.
    `batches`, `rows`, `failures`: since the start.
    """

    state: PublishState
    source: str
    seq: int | None = None
    mirror_seq: int | None = None
    epoch: int | None = None
    host: str | None = None
    is_waiting: bool = False
    lag_s: float = 0.0
    is_copying: bool = False
    error: str | None = None
    failing_since_s: float | None = None
    failing_s: float = 0.0
    batches: int = 0
    rows: int = 0
    failures: int = 0


class ReadingSnapshot(Struct, frozen=True):
    """How the daemon reads at one moment.

    `evidence_at`: when a read last found a change that no delivery reported, while older reads are
    still to be repeated because of it.
    """

    rate_per_minute: float = 0.0
    why: ReadingState = "stopped"
    evidence_at: datetime | None = None
    hints: HintCounts = HintCounts()


class DaySummary(Struct, frozen=True):
    """The events of the last 24 hours, and the last delivery and sweep.

    `missed`: changes that no delivery reported, also those while the daemon did not run.
    `last_sweep_removals_held`: missing variants of the last sweep that are too many to be removed
    without an operator. `removals_held`: the same for reads outside of a sweep. `confirmed_10m`:
    items whose last read began within 10 minutes.
    """

    last_delivery_at: datetime | None
    missed: int
    evidence: Evidence
    invalid_signatures: int
    throttled: int
    quarantined: int
    last_sweep_ended_at: str | None
    last_sweep_result: str | None
    last_sweep_error: str
    last_sweep_removals_held: int
    removals_held: int = 0
    confirmed_10m: int = 0
    confirmed_30m: int = 0
    confirmed_60m: int = 0


class DaemonSnapshot(Struct, frozen=True):
    """The state of the daemon at one moment.

    `write_error`: why deliveries cannot be made durable. `stuck_by`: why no item is read, because
    the mirror cannot store it. `unwritten`: a sentence about a part of it that stores nothing.
    `forged_since_delivery`: requests signed with an unknown key since the last authentic delivery.
    `down`: when the daemon did not run, if no complete sweep has begun since. `paused_until`: the
    end of the wait after a 429. `cached`: a sentence about a cache that answers instead of
    Dreamship. `max_connections`: how many connections all listeners accept together, by the limit
    of open files.
    """

    at: datetime
    mirror_path: str
    started_at: datetime
    write_error: SyncdError | None
    webhooks_state: WebhooksState
    down: tuple[datetime, datetime] | None
    paused_until: datetime | None
    refused: str | None
    unreachable: str | None
    progress: SweepProgress | None
    eta: timedelta | None
    next_sweep_at: datetime | None
    calls_per_minute: int
    used_last_minute: int
    invalid_signatures: int
    forged_since_delivery: int
    cached: str | None = None
    stuck_by: SyncdError | None = None
    unwritten: str | None = None
    max_connections: int = 0
    reading: ReadingSnapshot = ReadingSnapshot()
    listings: ListingsSnapshot = ListingsSnapshot()
    pushes: tuple[PushSnapshot, ...] = ()
    publish: PublishSnapshot | None = None
