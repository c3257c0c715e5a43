"""`syncd status`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import click

from syncd.cli.common import config_option, json_option, load_config
from syncd.control import client
from syncd.core.status_document import (
    ListingsStatus,
    MirrorStatus,
    PushStatus,
    ReadingStatus,
    StatusDocument,
    SweepStatus,
)
from syncd.printing import MAX_LINE_CHARS, Colored, show, show_json

# The shown values that are not sellable; --json has more.
_MAX_VALUES = 10
_COLORS = {"ok": "green", "degraded": "yellow", "failing": "red"}


@click.command(
    "status",
    short_help="Show the daemon's health, with reasons.",
    epilog="Example:\n\n  syncd status --json | jq .webhooks",
)
@config_option
@json_option
def command(config_path: str | None, *, as_json: bool) -> int:
    """Show the daemon's health, with reasons.

    Ends with exit code 0 if the health is ok, 1 if not, and 3 if no daemon answers.
    """
    config = load_config(config_path, with_keys=False)
    document = client.request_status(config.control.socket)
    if as_json:
        show_json(document)
    else:
        _show(document)
    return 0 if document.health == "ok" else 1


def _show(status: StatusDocument) -> None:
    health = status.health
    show(Colored(health, _COLORS[health]))
    for reason in status.reasons:
        show("  - ", reason)
    for name, value in _rows(status):
        show(f"{name:16}  ", value, most=MAX_LINE_CHARS)


def _rows(status: StatusDocument) -> Iterator[tuple[str, str]]:
    webhooks, mirror, budget = status.webhooks, status.mirror, status.budget
    state = f"{webhooks.state}, last {webhooks.last_delivery_at}"
    is_waiting = status.waiting_for_first_delivery
    yield "webhooks", "waiting for the first delivery" if is_waiting else state
    invalid, throttled = webhooks.invalid_signatures_24h, budget.throttled_24h
    counts = f"{webhooks.missed_24h} missed, {invalid} without a valid signature"
    yield "last 24 hours", f"{counts}, {throttled} times throttled"
    yield "mirror", mirror.path
    known = f"{mirror.items} items, {mirror.variants} variants"
    yield "", f"{known}, {mirror.sellable} sellable, {mirror.removed} removed"
    if status.listings is not None:
        yield "listings", _listings(status.listings)
    for push in status.push:
        yield f"push {push.name}", push_line(push)
    yield "oldest confirmed", mirror.oldest_confirmed_at or "-"
    yield "reading", _reading(status.reading)
    if mirror.unknown_values:
        yield "not sellable", _unknown(mirror)
    yield "sweep", _sweep(status.sweep)
    yield "next sweep", status.sweep.next_at or "-"
    used, allowed = budget.used_last_minute, budget.calls_per_minute
    yield "budget", f"{used} of {allowed} calls a minute"
    yield "to confirm", f"{status.refresh_queue} items"
    yield "quarantined", f"{status.quarantined} deliveries"
    yield "daemon", f"{status.version}, since {status.started_at}"


def push_line(push: PushStatus) -> str:
    """Return the state of a push in one line."""
    state = "stopped: " if push.stopped else "failing: " if push.error else ""
    copying = ", sending a full copy" if push.copying else ""
    position = f"seq {push.seq}, {push.lag_changes} changes behind{copying}"
    return f"{position}; {state}{push.error}" if push.error else position


def _listings(listings: ListingsStatus) -> str:
    reasons = [f"{count} {reason}" for reason, count in listings.unsellable.items() if count]
    others = f"; not sellable: {', '.join(reasons)}" if reasons else ""
    return f"{listings.sellable} of {listings.total} SKUs sellable{others}"


def _reading(reading: ReadingStatus) -> str:
    rate = f"{reading.rate_per_minute:g} calls a minute ({reading.why})"
    lost = f"; a delivery was lost, noticed {reading.evidence_at}" if reading.evidence_at else ""
    return f"{rate}, {reading.confirmed_60m} items confirmed in the last hour{lost}"


def _unknown(mirror: MirrorStatus) -> str:
    """Return the most frequent values that are not sellable, and the number of other values."""
    values = mirror.unknown_values
    named = [f"{value!r} x {count}" for value, count in islice(values.items(), _MAX_VALUES)]
    # A daemon of version 0.1.0 names all values.
    more = len(values) - len(named) + mirror.more_unknown_values
    return ", ".join(named) + (f" and {more} more values" if more else "")


def _sweep(sweep: SweepStatus) -> str:
    if sweep.running:
        eta = "" if sweep.eta_seconds is None else f", about {sweep.eta_seconds} s left"
        return f"running, {sweep.checked} of {sweep.total or '?'} items{eta}"
    if sweep.last_result is None:
        return "none yet"
    return f"{sweep.last_result}, ended {sweep.last_finished_at}"
