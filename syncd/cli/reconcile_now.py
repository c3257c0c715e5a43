"""`syncd reconcile-now`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from syncd import logs
from syncd.cli import error_output
from syncd.cli.common import (
    ID,
    config_option,
    json_option,
    load_config,
    load_for_daemon,
    secrets,
)
from syncd.cli.ownership import require_owner
from syncd.config import Config
from syncd.control import client, messages
from syncd.core.jobs import SweepProgress, SweepSummary
from syncd.core.model import JsonObject
from syncd.core.records import Change
from syncd.errors import DaemonAbsent, MirrorError, MirrorMissing, UsageError
from syncd.printing import show, show_json
from syncd.store import Queries, listings

_EXIT = {"complete": 0, "partial": 1, "failed": 4}
# The shown items that could not be read; --json has all of them.
_MAX_FAILED_ITEMS = 20
_SUMMARY_KEYS = (
    "result",
    "items",
    "variants",
    "changed",
    "added",
    "removed",
    "missed",
    "calls",
    "throttled",
    "seconds",
    "failed_items",
)


@click.command(
    "reconcile-now",
    short_help="Read the catalogue now, repair the mirror.",
    epilog="""\b
Examples:
  syncd reconcile-now                 the whole mirrored catalogue
  syncd reconcile-now --item 77       only this item
  syncd reconcile-now --dry-run       show the differences, write nothing
  syncd reconcile-now --json          for a script""",
)
@click.option(
    "--item",
    "items",
    metavar="ID",
    multiple=True,
    type=ID,
    help="Read only this item; may be repeated, e.g. --item 77 --item 81, for at most 1,000 items.",
)
@click.option(
    "--accept-removals",
    is_flag=True,
    help="Remove everything that is not found, also more than reconcile.removal_limit_percent "
    "allows in 24 hours, e.g. after Dreamship has dropped half of its catalogue.",
)
@click.option("--dry-run", is_flag=True, help="Report the differences and write nothing.")
@config_option
@json_option
def command(
    items: tuple[int, ...],
    config_path: str | None,
    *,
    accept_removals: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Read the catalogue now, repair the mirror, and wait for the end.

    If a daemon runs, the daemon does the work within its call budget, and a second request joins
    the first. Without a daemon, the command does the work itself. The exit code is 0 for complete,
    1 for partial and 4 for failed.
    """
    config = load_config(config_path, with_keys=False)
    _require_mirrored(config, set(items))
    request = messages.ReconcileRequest(list(items), accept_removals, dry_run)
    with _progress() as bar:
        try:
            result = _by_daemon(config, request, bar)
        except DaemonAbsent as error:
            if error.was_reached:
                raise
            config = load_for_daemon(config_path)
            require_owner(config.mirror.path)
            from syncd import running  # noqa: PLC0415 - slow to import

            result = running.run(_without_daemon(config, request, bar))
    summary = result.summary if isinstance(result, messages.Differences) else result
    document = {name: getattr(summary, name) for name in _SUMMARY_KEYS}
    if isinstance(result, messages.Differences):
        document["differences"] = [_difference(change) for change in result.differences]
    if as_json:
        show_json(document)
    elif isinstance(result, messages.Differences):
        _show_differences(result)
    else:
        _show(summary)
    if summary.error:
        error_output.print_lines([summary.error], _hint(summary), secrets)
    return _EXIT[summary.result]


def _hint(summary: SweepSummary) -> str:
    if "Dreamship has no item" in summary.error:
        return "check the id in the Dreamship app"
    if summary.removals_held:
        return "check some of them in the Dreamship app, then run it with --accept-removals"
    if summary.result == "partial":
        return "run it again"
    return "check the network and the api key, then run it again"


def _difference(change: Change) -> JsonObject:
    return {
        "variant_id": change.variant_id,
        "item_id": change.item_id,
        "mirror": change.old_availability,
        "source": change.availability,
        "mirror_sellable": change.old_sellable,
        "source_sellable": change.sellable,
    }


def _show_differences(result: messages.Differences) -> None:
    for change in result.differences:
        old = "(new)" if change.old_availability is None else change.old_availability
        new = "(removed)" if change.availability is None else change.availability
        show(f"variant {change.variant_id} of item {change.item_id}: ", old, " -> ", new)
    show(f"{len(result.differences)} differences; nothing was written")


class _ProgressBar:
    """Shows the progress of a sweep, on a terminal."""

    def __init__(self, bar: Progress | None) -> None:
        self._bar = bar
        self._task = None if bar is None else bar.add_task("listing items", total=None, eta="")

    def update(self, progress: messages.Progress) -> None:
        """Show the newest progress."""
        if self._bar is None or self._task is None:
            return
        eta = "" if progress.eta_seconds is None else f"{_duration(progress.eta_seconds)} left"
        description = "joined a running sweep" if progress.joined else "reading items"
        self._bar.update(
            self._task,
            completed=progress.checked,
            total=progress.total,
            description=description,
            eta=eta,
        )


@contextmanager
def _progress() -> Iterator[_ProgressBar]:
    if not sys.stderr.isatty():
        yield _ProgressBar(None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[eta]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _ProgressBar(bar)


def _by_daemon(
    config: Config, request: messages.ReconcileRequest, bar: _ProgressBar
) -> SweepSummary | messages.Differences:
    for message in client.request_reconcile(config.control.socket, request):
        if not isinstance(message, messages.Progress):
            return message
        bar.update(message)
    raise DaemonAbsent("the daemon gave no answer", was_reached=True)


def _require_mirrored(config: Config, items: set[int]) -> None:
    """Raise UsageError if an item is not mirrored by the configuration or the listings."""
    catalog, outside, hint = config.catalog, set[int](), ""
    if catalog.items and not catalog.categories:
        outside = items - set(catalog.items)
        hint = "add them to catalog.items in the configuration"
    elif catalog.listed_only and items:
        # Without a mirror, nothing is known about the items of the listings.
        with suppress(MirrorError), closing(Queries(config.mirror.path)) as queries:
            if queries.run(listings.has_any):
                outside = items - queries.run(listings.items)
        hint = "by catalog.listed_only, the listings must have a variant of them"
    if outside:
        named = ", ".join(map(str, sorted(outside)))
        raise UsageError(f"not mirrored, so not read: {named}", hint=hint)


async def _without_daemon(
    config: Config, request: messages.ReconcileRequest, bar: _ProgressBar
) -> SweepSummary | messages.Differences:
    from syncd.daemon.services import Services  # noqa: PLC0415 - slow to import

    logs.configure("warning", config.log.format, secrets=config.secrets)
    if request.dry_run and not config.mirror.path.exists():
        raise MirrorMissing(
            f"there is no mirror at {config.mirror.path} to compare with",
            hint="run it without --dry-run to fill the mirror",
        )
    async with await Services.open(config) as services:

        def report(progress: SweepProgress) -> None:
            eta = services.sweep_manager.eta(progress)
            seconds = None if eta is None else eta.total_seconds()
            bar.update(messages.Progress(progress.checked, progress.total, seconds))

        if request.dry_run:
            dry_run = services.dry_run()
            summary = await dry_run.run(request.items, on_progress=report)
            return messages.Differences(summary, dry_run.differences)
        sweep_id, _ = await services.sweep_manager.request(
            "operator", items=request.items or None, accept_removals=request.accept_removals
        )
        services.start_reading()
        return await services.sweep_manager.wait(sweep_id, on_progress=report)


def _show(summary: SweepSummary) -> None:
    show(
        f"{summary.result}: read {summary.items} items with {summary.variants} variants "
        f"in {_duration(summary.seconds)}"
    )
    show(
        f"  {summary.changed} changed, {summary.added} added, {summary.removed} removed; "
        f"{summary.missed} of the changes were reported by no delivery"
    )
    show(f"  {summary.calls} calls, {summary.throttled} times throttled")
    if summary.failed_items:
        named = ", ".join(map(str, summary.failed_items[:_MAX_FAILED_ITEMS]))
        more = len(summary.failed_items) - _MAX_FAILED_ITEMS
        show(f"  not read: {named}{f' and {more} more' if more > 0 else ''}")


def _duration(seconds: float) -> str:
    if seconds < 10:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
