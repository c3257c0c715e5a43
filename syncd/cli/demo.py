"""`syncd demo`."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import click

from syncd import running
from syncd.cli import demo_flip
from syncd.cli.common import WholeNumber, json_option, secrets
from syncd.cli.program import program
from syncd.config.publish import parse_target_url, require_driver
from syncd.demo import (
    Demo,
    DemoTarget,
    Folders,
    LiveOutput,
    Place,
    PlainOutput,
    Ports,
    Result,
    is_live,
    make_folders,
    open_in_browser,
    sums,
)
from syncd.errors import UsageError
from syncd.printing import show, show_json

_QUERY = "SELECT variant_id, availability, sellable FROM availability LIMIT 5"
# The lines below the last picture, and the prompt of the shell.
_ROOM = 8


class Seconds(WholeNumber):
    """A duration, or 0 for a demo without an end."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number, or raise click.BadParameter."""
        if value in {0, "0"}:
            return 0
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            self.fail(f"{error.message}, or 0", param, ctx)


class _Subcommands(click.Group):
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command of this name; raises UsageError if there is none."""
        if args[0] not in self.commands:
            raise UsageError(
                f"there is no command demo {args[0]}",
                hint="`syncd demo flip`, or `syncd demo --help` explains it, with an example",
            )
        return super().resolve_command(ctx, args)


@click.group(
    "demo",
    cls=_Subcommands,
    invoke_without_command=True,
    short_help="See it work with a simulated Dreamship.",
    epilog="""\b
Examples:
  syncd demo                              one minute, with an outage and the repair
  syncd demo --seconds 20 --open          a shorter one, with its status page
  syncd demo --seconds 0 --port 9000      until Ctrl-C: a mirror to develop a shop with
  syncd demo flip 48002 out_of_stock      change a variant of the demo that runs""",
)
@click.option(
    "--seconds",
    metavar="N",
    type=Seconds(5, 3600),
    default=60,
    show_default=True,
    help="The approximate duration, e.g. 20; 0 runs until Ctrl-C and keeps the mirror fresh.",
)
@click.option(
    "--port",
    metavar="N",
    type=WholeNumber(1024, 65533),
    help="The port of the webhook; the status page has the next one, and the simulated Dreamship "
    "the one after it, e.g. 9000, 9001 and 9002. [default: free ports]",
)
@click.option(
    "--folder",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Where the mirror is, e.g. ./demo. It replaces the mirror of an earlier demo. "
    "[default: a new folder in $TMPDIR]",
)
@click.option(
    "--publish",
    "publish_url",
    metavar="URL",
    help="Publish the mirror to this PostgreSQL or MySQL, e.g. postgresql://user@host/database, in "
    "the schema syncd_demo.",
)
@click.option("--open", "is_opened", is_flag=True, help="Open the status page in a browser.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    seconds: int,
    port: int | None,
    folder: Path | None,
    publish_url: str | None,
    *,
    is_opened: bool,
    as_json: bool,
) -> int:
    """Show how syncd works: a simulated Dreamship, a real daemon, an outage and the repair.

    Needs no account, no configuration and no network. Ends with exit code 0 only if the mirror
    equals the source at the end. Ctrl-C or SIGTERM ends it at any time, with exit code 130.
    """
    if ctx.invoked_subcommand is not None:
        return 0
    target = None if publish_url is None else _target(publish_url)
    ports = Ports.starting_at(port)
    folders = make_folders(folder)
    is_shown = is_live()
    output = LiveOutput() if is_shown else PlainOutput()

    def on_ready(place: Place) -> None:
        if as_json and not seconds:
            show_json(place)
        elif not is_shown:
            _print_place(place, as_json=as_json)
        if is_opened and not open_in_browser(place.status_page):
            show(f"There is no browser here: open {place.status_page}", err=True, most=None)

    try:
        with output:
            demo = Demo(
                folders,
                seconds,
                output,
                ports=ports,
                program=program(),
                on_ready=on_ready,
                target=target,
            )
            result = running.run(_interruptible(demo))
    except BaseException as error:
        output.print_last(_ROOM - 3)
        ended = "The demo was stopped." if _is_interrupt(error) else "The demo has failed."
        _print_folder(ended, folders, err=as_json)
        if isinstance(error, asyncio.CancelledError):
            raise KeyboardInterrupt from None
        raise
    finally:
        _remove_sockets(folders)
    if as_json:
        show_json(result)
    else:
        output.print_last(_ROOM)
        _print_result(result, folders, with_sums=not (is_shown and sys.stdout.isatty()))
    return 1 if result.differences or result.target_differences else 0


command.add_command(demo_flip.command)


def _target(url: str) -> DemoTarget:
    """Return the target of the option; raises UsageError and ConfigurationError."""
    try:
        parsed = parse_target_url(url)
    except ValueError as error:
        raise UsageError(f"--publish {error}", hint="see syncd/docs/publish.md") from None
    secrets.update(parsed.secrets)
    require_driver(parsed)
    return DemoTarget(parsed)


async def _interruptible(demo: Demo) -> Result:
    """Run the demo; SIGTERM and the end of the terminal cancel it, as Ctrl-C does."""
    task = asyncio.current_task()
    if task is not None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup and background jobs of a script ignore some.
            if signal.getsignal(number) is not signal.SIG_IGN:
                asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await demo.run()


def _is_interrupt(error: BaseException) -> bool:
    return isinstance(error, KeyboardInterrupt | asyncio.CancelledError)


def _print_place(place: Place, *, as_json: bool) -> None:
    for name, value in (("Status page", place.status_page), ("Folder", place.folder)):
        show(f"{name + ':':13}{value}", err=as_json, most=None)
    config = shlex.quote(place.config)
    show(f"Try meanwhile: {program()} status -c {config}", err=as_json, most=None)


def _print_result(result: Result, folders: Folders, *, with_sums: bool) -> None:
    for sentence in sums(result) if with_sums else ():
        show(sentence)
    show(
        f"{result.differences} differences between mirror and source, "
        f"{result.variants} variants compared."
    )
    if result.target_differences is not None:
        show(f"{result.target_differences} differences between target and source.")
    show("The mirror remains. To look into it:")
    for line in _query_lines(folders.folder):
        show(f"  {line}", most=None)
    _print_folder("The daemon has stopped.", folders)


def _query_lines(folder: Path) -> list[str]:
    """Return a command that a person can paste; each line fits a terminal, as does its output."""
    if shutil.which("sqlite3") is None:
        return [
            f"{program()} changes --limit 5 \\",
            f"  -c {shlex.quote(str(folder / 'config.toml'))}",
        ]
    mirror = shlex.quote(str(folder / "availability.db"))
    return [f"sqlite3 -readonly -box {mirror} \\", f"  '{_QUERY}'"]


def _print_folder(ended: str, folders: Folders, *, err: bool = False) -> None:
    show(f"{ended} The folder remains; to remove it:", err=err)
    show(f"  rm -r {shlex.quote(str(folders.folder))}", err=err, most=None)


def _remove_sockets(folders: Folders) -> None:
    """Remove the folder of the sockets, unless the mirror is in it."""
    if folders.sockets != folders.folder:
        with contextlib.suppress(OSError):
            shutil.rmtree(folders.sockets)
