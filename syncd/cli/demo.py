"""`syncd demo`."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

import click

from syncd.cli.common import WholeNumber, json_option
from syncd.demo import Demo, PlainOutput, Result, live_output
from syncd.errors import UsageError
from syncd.printing import show, show_json


@click.command(
    "demo",
    short_help="See it work with a simulated Dreamship.",
    epilog="""\b
Examples:
  syncd demo               one minute
  syncd demo --seconds 20  a shorter one""",
)
@click.option(
    "--seconds",
    metavar="N",
    type=WholeNumber(5, 3600),
    default=60,
    show_default=True,
    help="The approximate duration.",
)
@json_option
def command(seconds: int, *, as_json: bool) -> int:
    """Show how syncd works: a simulated Dreamship, a real daemon, an outage and the repair.

    Needs no account, no configuration and no network. Ends with exit code 0 only if the mirror
    equals the source at the end.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix="syncd-demo-"))
    except OSError as error:
        raise UsageError(
            f"there is no folder to run in: {error.strerror}",
            hint="set TMPDIR to a folder that this user can write",
        ) from error
    if not as_json:
        show(f"The mirror is {folder / 'availability.db'}; while this runs, try:", most=None)
        show(f"  {_sqlite_line(folder)}", most=None)
        show(f"  {sys.argv[0]} status -c {folder / 'config.toml'}", most=None)
    if sys.stderr.isatty():
        with live_output() as draw:
            result = asyncio.run(Demo(folder, seconds, draw).run())
    else:
        result = asyncio.run(Demo(folder, seconds, PlainOutput()).run())
    if as_json:
        show_json(result)
    else:
        _print_result(result, folder)
    return 0 if result.differences == 0 else 1


def _print_result(result: Result, folder: Path) -> None:
    reconcile = result.reconcile
    show(
        f"Dreamship made {result.changes} changes and sent {result.doubled} of them twice; "
        f"{result.sent} deliveries were accepted and {result.lost} lost."
    )
    show(
        f"{result.repaired} changes without a delivery were repaired, the last one "
        f"{result.repaired_s:.1f} s after the outage; nobody asked for it."
    )
    show(
        f"reconcile-now then read {reconcile['items']} items in {reconcile['seconds']:.1f} s with "
        f"{reconcile['calls']} calls and changed {reconcile['changed']} variants."
    )
    show("The daemon has stopped. Its mirror remains:")
    show(f"  {_sqlite_line(folder)}", most=None)
    show(
        f"{result.differences} differences between mirror and source, "
        f"{result.variants} variants compared."
    )


def _sqlite_line(folder: Path) -> str:
    query = "SELECT * FROM availability LIMIT 5"
    return f"sqlite3 -readonly -box {folder / 'availability.db'} '{query}'"
