"""`syncd reconcile-now`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click
from msgspec.structs import asdict
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from syncd import control, logs
from syncd.cli.common import config_option, json_option, load_config, print_json
from syncd.config import Config
from syncd.errors import DaemonAbsent, UsageError
from syncd.model import MAX_ID
from syncd.ports import SweepSummary

_EXIT = {"complete": 0, "partial": 1, "failed": 4}
_TOLD = (
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
    epilog="""\b
Examples:
  syncd reconcile-now                 the whole mirrored catalogue
  syncd reconcile-now --item 77       one item
  syncd reconcile-now --json          for a script""",
)
@click.option(
    "--item",
    "items",
    metavar="ID",
    multiple=True,
    type=click.IntRange(1, MAX_ID),
    help="Only this item; may be given several times.",
)
@config_option
@json_option
def command(items: tuple[int, ...], config_path: str | None, *, as_json: bool) -> int:
    """Read the catalogue now, repair the mirror, wait for the end.

    With a daemon running the daemon does it, inside its call budget, and a second request joins
    the first; without one the command does it itself. Exit code 0 complete, 1 partial, 4 failed.
    """
    config = load_config(config_path)
    outside = set(items) - set(config.catalog.items)
    if config.catalog.items and not config.catalog.categories and outside:
        raise UsageError(
            f"not in catalog.items, so not mirrored: {', '.join(map(str, sorted(outside)))}",
            hint="add them to [catalog] in the configuration",
        )
    with _progress() as tell:
        try:
            summary = _by_daemon(config, list(items), tell)
        except DaemonAbsent as absent:
            if absent.was_reached:
                raise
            summary = asyncio.run(_by_itself(config, list(items), tell))
    told = {name: value for name, value in asdict(summary).items() if name in _TOLD}
    if as_json:
        print_json({name: told[name] for name in _TOLD})
    else:
        _show(summary)
    if summary.error:
        click.echo(f"Error: {summary.error}", err=True)
        click.echo("Try: check the network and the api key, then run it again", err=True)
    return _EXIT[summary.result]


class _Teller:
    """Shows how far a sweep is, on a terminal."""

    def __init__(self, bar: Progress | None) -> None:
        self._bar = bar
        self._task = None if bar is None else bar.add_task("asking Dreamship", total=None, eta="")

    def tell(self, progress: control.Progress) -> None:
        """Show one step."""
        if self._bar is None or self._task is None:
            return
        eta = "" if progress.eta_seconds is None else f"{_duration(progress.eta_seconds)} left"
        what = "joined a running sweep" if progress.joined else "reading items"
        self._bar.update(
            self._task, completed=progress.checked, total=progress.total, description=what, eta=eta
        )


@contextmanager
def _progress() -> Iterator[_Teller]:
    if not sys.stderr.isatty():
        yield _Teller(None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[eta]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _Teller(bar)


def _by_daemon(config: Config, items: list[int], teller: _Teller) -> SweepSummary:
    for told in control.ask_reconcile(config.control.socket, items):
        if isinstance(told, SweepSummary):
            return told
        teller.tell(told)
    raise DaemonAbsent("the daemon said nothing", was_reached=True)


async def _by_itself(config: Config, items: list[int], teller: _Teller) -> SweepSummary:
    from syncd.engine import Engine  # noqa: PLC0415 - with a daemon none of it is needed

    logs.configure("warning", config.log.format, secrets=[key.reveal() for key in config.keys])
    engine = Engine(config)
    await engine.open()
    try:
        sweep_id, _ = await engine.reconciler.request("operator", items=items or None)
        engine.start_reading()

        def tell(progress: control.SweepProgress) -> None:
            eta = engine.reconciler.eta(progress)
            seconds = None if eta is None else eta.total_seconds()
            teller.tell(control.Progress(progress.checked, progress.total, seconds))

        return await engine.reconciler.wait(sweep_id, tell=tell)
    finally:
        await engine.close()


def _show(summary: SweepSummary) -> None:
    click.echo(
        f"{summary.result}: {summary.items} items with {summary.variants} variants read "
        f"in {_duration(summary.seconds)}"
    )
    click.echo(
        f"  {summary.changed} changed, {summary.added} added, {summary.removed} removed; "
        f"{summary.missed} of the changes were told by no delivery"
    )
    click.echo(f"  {summary.calls} calls, {summary.throttled} times throttled")
    if summary.failed_items:
        click.echo(f"  not read: {', '.join(map(str, summary.failed_items))}")


def _duration(seconds: float) -> str:
    if seconds < 10:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
