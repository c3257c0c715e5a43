"""`syncd publish`."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click
from msgspec import to_builtins

from syncd.cli.common import config_option, json_option, load_config
from syncd.cli.mirror_id import mirror_id
from syncd.config import Config, TargetUrl
from syncd.config.publish import require_driver
from syncd.control import client
from syncd.core.headline import publication
from syncd.core.lease import LEASE_S
from syncd.core.model import JsonObject
from syncd.core.status_document import PublishStatus
from syncd.core.timestamps import maybe_text
from syncd.errors import SyncdError, UsageError
from syncd.printing import show, show_json

if TYPE_CHECKING:
    from syncd.core.publishing import Source
    from syncd.publish.target import Target


@click.command(
    "publish",
    short_help="Create the tables of the target database, show its state, take the lease.",
    epilog="""\b
Examples:
  syncd publish init --print    the statements, for the administrator of the database
  syncd publish init            create or upgrade the tables
  syncd publish status          the lease, the position and the lag
  syncd publish take-over       give the lease to this mirror
  syncd publish take-over --yes
                                also if the host that has it is alive""",
)
@click.argument("action", type=click.Choice(["init", "status", "take-over"]))
@click.option("--print", "prints", is_flag=True, help="init: print the statements, run none.")
@click.option("--yes", is_flag=True, help="take-over: also from a host that is alive.")
@config_option
@json_option
def command(action: str, config_path: str | None, *, prints: bool, yes: bool, as_json: bool) -> int:
    """Work with the target: the database of the section [publish].

    status ends with exit code 1 if this syncd does not publish.
    """
    if prints and action != "init":
        raise UsageError("--print belongs to init", hint="syncd publish init --print")
    # Members of the mirror's group may run this, and may not read the api keys.
    publish = load_config(config_path, with_keys=False).publish
    if (publish.url, publish.url_file, os.environ.get("CREDENTIALS_DIRECTORY")) == (None,) * 3:
        raise _no_target()
    config = load_config(config_path)
    url = _url(config)
    require_driver(url)
    # It imports SQLAlchemy, which no other command needs.
    from syncd.publish.target import Target  # noqa: PLC0415

    with closing(Target(url, config.publish.schema)) as target:
        if action == "init":
            return _init(target, prints=prints, as_json=as_json)
        if action == "take-over":
            return _take_over(target, config, yes=yes, as_json=as_json)
        return _status(target, config, as_json=as_json)


def _url(config: Config) -> TargetUrl:
    if config.target is None:
        raise _no_target()
    return config.target


def _no_target() -> UsageError:
    return UsageError(
        "nothing is published: the configuration has no target database",
        hint="set publish.url or publish.url_file; syncd/docs/publish.md has the steps",
    )


def _init(target: Target, *, prints: bool, as_json: bool) -> int:
    statements = target.tables.statements()
    if prints:
        if as_json:
            show_json({"statements": statements})
        else:
            for statement in statements:
                for line in f"{statement};".split("\n"):
                    show(line, most=None)
        return 0
    target.refuse_newer()
    target.create()
    if as_json:
        show_json({"schema": target.tables.schema, "version": target.version()})
    else:
        show(f"the tables exist in {target.tables.schema}, version {target.version()}")
    return 0


def _take_over(target: Target, config: Config, *, yes: bool, as_json: bool) -> int:
    from syncd.publish import sources  # noqa: PLC0415 - see above

    mirror = mirror_id(config)
    if mirror is None:
        raise UsageError(
            "the mirror has no id yet", hint="start the daemon once with [publish], then try again"
        )
    name = config.publish.source
    target.prepare()
    with target.transaction() as db:
        before = sources.load(db, target.tables, name, is_locked=True)
        if before is not None and not yes:
            _require_silence(before, mirror, sources.clock(db, target.tables))
        if before is not None and before.holder != mirror:
            sources.grant(db, target.tables, name, mirror, socket.gethostname())
    if before is None:
        raise UsageError(f"the target has no source {name!r}", hint="start the daemon")
    if as_json:
        show_json({"source": name, "before": before.holder, "holder": mirror})
    elif before.holder == mirror:
        show(f"this mirror has the lease of {name} already")
    else:
        show(
            f"the lease of {name} goes from {before.host or before.holder} to this mirror, {mirror}"
        )
    return 0


def _require_silence(source: Source, mirror: str, now: datetime) -> None:
    """Raise UsageError if the holder of the lease is alive."""
    if source.holder in {None, mirror} or source.lease_seen_at is None:
        return
    age_s = (now - source.lease_seen_at).total_seconds()
    if abs(age_s) < LEASE_S:
        raise UsageError(
            f"{source.host or source.holder} has the lease, and was seen {age_s:.0f} s ago",
            hint="add --yes to take it anyway; that host takes no more deliveries then",
        )


def _status(target: Target, config: Config, *, as_json: bool) -> int:
    from syncd.publish import sources  # noqa: PLC0415 - see above

    try:
        running = client.request_status(config.control.socket).publish
    except SyncdError:
        running = None
    # Without tables, the error of the driver would be a line of SQL.
    target.version()
    with target.transaction() as db:
        now = sources.clock(db, target.tables)
        source = sources.load(db, target.tables, config.publish.source)
    stored = None if source is None else _stored(source, now, mirror_id(config))
    if as_json:
        show_json({"publish": to_builtins(running), "target": stored})
    else:
        for name, value in _rows(running, stored):
            show(f"{name:16}  ", value)
    return 0 if running is not None and running.state == "active" else 1


def _stored(source: Source, now: Any, mirror: str | None) -> JsonObject:
    """Return the row of the source; ages are by the clock of the database."""

    def age_s(moment: Any) -> float | None:
        return None if moment is None else round((now - moment).total_seconds(), 3)

    return {
        "source": source.source,
        "holder": source.holder,
        "host": source.host,
        "is_this_mirror": mirror is not None and source.holder == mirror,
        "epoch": source.epoch,
        "lease_age_seconds": age_s(source.lease_seen_at),
        "seq": source.seq,
        "mirror_seq": None if source.cursor is None else source.cursor.seq,
        "filled": source.is_filled,
        "copying": source.copy is not None,
        "oldest_confirmed_at": maybe_text(source.freshness.oldest_confirmed_at),
        "daemon_seen_seconds": age_s(source.daemon_seen_at),
    }


def _rows(running: PublishStatus | None, stored: JsonObject | None) -> Iterator[tuple[str, str]]:
    yield "daemon", publication(running) or "does not answer, or has no target"
    if stored is None:
        yield "target", "has no such source yet"
        return
    other = f"mirror {stored['holder']}" + (f" on {stored['host']}" if stored["host"] else "")
    holder = "this mirror" if stored["is_this_mirror"] else other
    age = stored["lease_age_seconds"]
    lease = f"{holder}, epoch {stored['epoch']}, seen {age} s ago"
    yield "lease", lease if stored["holder"] else f"released, epoch {stored['epoch']}"
    state = "filled" if stored["filled"] else "not filled yet"
    copying = ", a comparison of everything runs" if stored["copying"] else ""
    yield "target", f"{state}, seq {stored['seq']}, mirror seq {stored['mirror_seq']}{copying}"
    yield "oldest confirmed", stored["oldest_confirmed_at"] or "-"
