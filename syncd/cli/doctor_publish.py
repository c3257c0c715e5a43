"""The checks of the target by `syncd doctor`: connection, tables, rights, clock, lease."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from syncd.cli.doctor_checks import Finding
from syncd.cli.mirror_id import mirror_id
from syncd.config import Config
from syncd.core.lease import LEASE_S
from syncd.errors import TargetError

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from syncd.core.publishing import Source
    from syncd.publish.target import Target

# A smaller difference does not matter to the limits of a shop's statement.
CLOCK_LIMIT_S = 30.0


def findings(config: Config) -> Iterator[Finding]:
    """Connect to the target and write nothing into it."""
    if config.target is None:
        return
    # It imports SQLAlchemy, which a daemon without a target does not need.
    from syncd.publish.target import Target  # noqa: PLC0415

    check = "the target of [publish] can be used"
    with closing(Target(config.target, config.publish.schema)) as target:
        try:
            version = target.refuse_newer()
        except TargetError as error:
            yield Finding(check, "fail", error.message, error.hint)
            return
        if not version:
            hint = "start the daemon, or run `syncd publish init` as a user who may create tables"
            yield Finding(check, "warn", "it has no tables yet", hint)
            return
        yield Finding(check, "pass", f"tables of version {version}")
        try:
            yield from _about_source(target, config)
        except TargetError as error:
            yield Finding("the role may write the target", "fail", error.message, error.hint)


def _about_source(target: Target, config: Config) -> Iterator[Finding]:
    from syncd.publish import sources  # noqa: PLC0415 - see above

    with target.transaction() as db:
        now = sources.clock(db, target.tables)
        # It needs the same rights as the daemon: to lock the row is an update.
        source = sources.load(db, target.tables, config.publish.source, is_locked=True)
        missing = target.missing_rights(db)
        has_skus = not missing and _has_skus(target, db, config.publish.source)
    check = "the role may write the target"
    if missing:
        hint = "syncd/docs/publish.md has the GRANTs"
        yield Finding(check, "fail", f"it may not: {', '.join(missing)}", hint)
    else:
        yield Finding(check, "pass", "it may read and write the tables")
    ahead_s = (now - datetime.now(UTC)).total_seconds()
    check = "the clock of the database agrees with this host's"
    if abs(ahead_s) > CLOCK_LIMIT_S:
        hint = "synchronise both clocks (NTP): shops compare times of both"
        yield Finding(check, "warn", f"it differs by {ahead_s:+.0f} s", hint)
    else:
        yield Finding(check, "pass", f"difference {ahead_s:+.1f} s")
    yield _check_lease(source, now, config)
    if has_skus and config.catalog.listings is None:
        yield Finding(
            "this host has the SKUs of the target",
            "warn",
            "the target has SKUs, and this host has no catalog.listings",
            "copy the file to this host, and set catalog.listings: while this host is active, the "
            "SKUs of the target do not change",
        )


def _has_skus(target: Target, db: Connection, source: str) -> bool:
    import sqlalchemy as sa  # noqa: PLC0415 - see above

    skus = target.tables.skus
    query = sa.select(skus.c.sku).where(skus.c.source == source).limit(1)
    return db.execute(query).first() is not None


def _check_lease(source: Source | None, now: datetime, config: Config) -> Finding:
    check = "this mirror has the lease of its source"
    if source is None or source.lease_seen_at is None:
        return Finding(check, "warn", "nobody has published yet", "start the daemon")
    age_s = (now - source.lease_seen_at).total_seconds()
    if source.holder is None:
        return Finding(check, "warn", "it is released", "start the daemon")
    if source.holder != mirror_id(config):
        if config.publish.standby:
            active = source.host or f"mirror {source.holder}"
            verdict = f"this host is the standby; {active} has the lease, seen {age_s:.0f} s ago"
            return Finding("a standby knows the active host", "pass", verdict)
        verdict = f"mirror {source.holder} has it, seen {age_s:.0f} s ago"
        hint = "two syncd need two values of publish.source; `syncd publish take-over` takes it"
        return Finding(check, "fail", verdict, hint)
    if age_s > LEASE_S:
        return Finding(check, "warn", f"seen {age_s:.0f} s ago", "start the daemon, see its log")
    return Finding(check, "pass", f"epoch {source.epoch}, seen {age_s:.0f} s ago")
