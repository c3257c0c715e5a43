"""`syncd status`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice

import click

from syncd.cli.common import config_option, json_option, load_config
from syncd.cli.program import with_program
from syncd.control import client
from syncd.core.explain import REASONS
from syncd.core.headline import Headline, headline, publication
from syncd.core.relative_time import ago, duration, either, exact, with_moments
from syncd.core.status_document import (
    ListingsStatus,
    MirrorStatus,
    PushStatus,
    ReadingStatus,
    StatusDocument,
    SweepStatus,
)
from syncd.core.timestamps import to_text
from syncd.printing import MAX_LINE_CHARS, Colored, show, show_json

# The shown values that are not sellable; --json has more.
_MAX_VALUES = 10
_COLORS = {"green": "green", "blue": "blue", "amber": "yellow", "red": "red"}


@click.command(
    "status",
    short_help="Show what the shop sells, and what to do.",
    epilog="Example:\n\n  syncd status --json | jq .webhooks",
)
@config_option
@json_option
def command(config_path: str | None, *, as_json: bool) -> int:
    """Show what the shop sells, what is wrong and what to do.

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
    moment = datetime.now(UTC)
    now = to_text(moment)
    head = headline(status, moment)
    show(Colored(head.label, _COLORS[head.color]))
    show(head.sentences(now), most=MAX_LINE_CHARS)
    if head.fill:
        show(head.fill)
    for line in _problem_lines(head):
        show(with_program(with_moments(line, lambda at: f"{exact(at)} ({either(at, now)})")))
    for name, value in _rows(status, head, now):
        show(f"{name:16}  ", value, most=MAX_LINE_CHARS)


def _problem_lines(head: Headline) -> Iterator[str]:
    if head.problem is not None:
        yield f"  - {head.problem.message}."
        yield f"    Meanwhile: {head.meanwhile}"
        if head.problem.hint:
            yield f"    To do: {head.problem.hint}."
    for problem in head.others:
        yield f"  - {problem.reason}"


def _rows(status: StatusDocument, head: Headline, now: str) -> Iterator[tuple[str, str]]:
    webhooks, mirror, budget = status.webhooks, status.mirror, status.budget
    for at, line in enumerate(head.next):
        yield "" if at else "next", with_moments(line, lambda moment: _at(moment, now))
    yield "health", status.health
    last = (
        "" if webhooks.last_delivery_at is None else f", last {ago(webhooks.last_delivery_at, now)}"
    )
    yield "deliveries", head.deliveries + last
    invalid, throttled = webhooks.invalid_signatures_24h, budget.throttled_24h
    counts = f"{webhooks.missed_24h} lost, {invalid} without a valid signature"
    yield "last 24 hours", f"{counts}, {throttled} times throttled"
    yield "mirror", mirror.path
    known = f"{mirror.items} items, {mirror.variants} variants"
    yield "", f"{known}, {mirror.sellable} sellable, {mirror.removed} removed"
    if status.listings is not None:
        yield "listings", _listings(status.listings)
    if published := publication(status.publish):
        yield "publication", published
    for push in status.push:
        yield f"push {push.name}", push_line(push)
    yield "oldest confirmed", _moment(mirror.oldest_confirmed_at, now)
    # A waiting host has a rate and a next sweep too, but it asks Dreamship nothing.
    waits = status.publish is not None and status.publish.waiting
    reading = "nothing while this host waits" if waits else _reading(status.reading, now)
    yield "reading", reading
    if mirror.unknown_values:
        yield "not sellable", _unknown(mirror)
    yield "sweep", _sweep(status.sweep, now)
    if not waits:
        yield "next sweep", _moment(status.sweep.next_at, now)
    used, allowed = budget.used_last_minute, budget.calls_per_minute
    yield "budget", f"{used} of {allowed} calls a minute"
    queued = status.refresh_queue
    yield "to confirm", f"{queued} item{'s' * (queued != 1)}"
    yield "quarantined", f"{status.quarantined} deliveries"
    yield "daemon", f"{status.version}, started {ago(status.started_at, now)}"


def _moment(at: str | None, now: str) -> str:
    """Return a moment in relation to now, and exactly."""
    return "-" if at is None else f"{either(at, now)} ({exact(at)})"


def _at(moment: str, now: str) -> str:
    """Return a moment as a part of a sentence."""
    return f"{exact(moment)}, {either(moment, now)}"


def push_line(push: PushStatus) -> str:
    """Return the state of a push in one line."""
    state = "stopped: " if push.stopped else "failing: " if push.error else ""
    copying = ", sending a full copy" if push.copying else ""
    position = f"seq {push.seq}, {push.lag_changes} changes behind{copying}"
    return f"{position}; {state}{push.error}" if push.error else position


def _listings(listings: ListingsStatus) -> str:
    reasons = [
        f"{count} {REASONS[reason].short if reason in REASONS else reason}"
        for reason, count in listings.unsellable.items()
        if count
    ]
    others = f"; not sellable: {', '.join(reasons)}" if reasons else ""
    return f"{listings.sellable} of {listings.total} SKUs sellable{others}"


def _reading(reading: ReadingStatus, now: str) -> str:
    rate = f"{reading.rate_per_minute:g} calls a minute ({reading.why})"
    # It counts as lost only after `reconcile.missed_grace`: the delivery may be late.
    found = "" if reading.evidence_at is None else ago(reading.evidence_at, now)
    lost = f"; a change without a delivery was found {found}" if found else ""
    return f"{rate}, {reading.confirmed_60m} items confirmed in the last hour{lost}"


def _unknown(mirror: MirrorStatus) -> str:
    """Return the most frequent values that are not sellable, and the number of other values."""
    values = mirror.unknown_values
    named = [f"{value!r} x {count}" for value, count in islice(values.items(), _MAX_VALUES)]
    # A daemon of version 0.1.0 names all values.
    more = len(values) - len(named) + mirror.more_unknown_values
    return ", ".join(named) + (f" and {more} more values" if more else "")


def _sweep(sweep: SweepStatus, now: str) -> str:
    if sweep.running:
        eta = "" if sweep.eta_seconds is None else f", about {duration(sweep.eta_seconds)} left"
        return f"running, {sweep.checked} of {sweep.total or '?'} items{eta}"
    if sweep.last_result is None:
        return "none yet"
    ended = "" if sweep.last_finished_at is None else f", ended {ago(sweep.last_finished_at, now)}"
    return f"{sweep.last_result}{ended}"
