"""The command line: one module a command, loaded when it is called; faults become two lines here.

Exit codes (contract.md): 0 done or healthy, 1 finished but not all well, 2 wrong usage or
configuration, 3 no daemon, 4 the source refused or could not be reached, 5 another process holds
the mirror, 130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, NoReturn

import click

from syncd import __version__
from syncd.errors import (
    ConfigurationError,
    DaemonAbsent,
    MirrorLocked,
    SourceError,
    SyncdError,
    UsageError,
)

COMMANDS = {
    "init": "syncd.cli.init",
    "serve": "syncd.cli.serve",
    "reconcile-now": "syncd.cli.reconcile_now",
    "status": "syncd.cli.status",
    "availability": "syncd.cli.availability",
    "explain": "syncd.cli.explain",
    "changes": "syncd.cli.changes",
    "deliveries": "syncd.cli.deliveries",
    "replay": "syncd.cli.replay",
    "check-config": "syncd.cli.check_config",
    "doctor": "syncd.cli.doctor",
    "backup": "syncd.cli.backup",
    "demo": "syncd.cli.demo",
}

EXIT_CODES: tuple[tuple[type[SyncdError], int], ...] = (
    (ConfigurationError, 2),
    (UsageError, 2),
    (DaemonAbsent, 3),
    (SourceError, 4),
    (MirrorLocked, 5),
    (SyncdError, 1),
)
INTERRUPTED = 130


class _Commands(click.Group):
    """Imports a command when it is asked for: `syncd --help` needs no database and no network."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; whoever read its output may have gone, and then nothing is wrong."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # click itself would make it exit code 1.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name]).command
        return command


@click.command(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  syncd demo                         see it work, with nothing to set up
  syncd check-config -c config.toml  is this configuration right?
  syncd serve -c config.toml         the daemon
  syncd reconcile-now                read the catalogue now
  eval "$(_SYNCD_COMPLETE=bash_source syncd)"    completion for this shell""",
)
@click.version_option(__version__, prog_name="syncd")
def cli() -> None:
    """Keep a shop's mirror of what Dreamship can make right now."""


def main() -> NoReturn:
    """Run the command line and leave with the exit code of the contract."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; return its exit code, having told faults on stderr."""
    try:
        result = cli.main(arguments, prog_name="syncd", standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("Interrupted.", err=True)
        return INTERRUPTED
    except KeyboardInterrupt:
        return INTERRUPTED
    except click.ClickException as fault:
        fault.show()
        return fault.exit_code
    except SyncdError as fault:
        _tell(fault)
        return next(code for kind, code in EXIT_CODES if isinstance(fault, kind))
    return result if isinstance(result, int) else 0


def _tell(fault: SyncdError) -> None:
    lines = fault.faults if isinstance(fault, ConfigurationError) else [fault.message]
    for line in lines:
        click.echo(f"{click.style('Error:', fg='red')} {line}", err=True, color=_wants_color())
    if fault.hint:
        click.echo(
            f"{click.style('Try:', fg='yellow')} {fault.hint}", err=True, color=_wants_color()
        )


def _wants_color() -> bool:
    return sys.stderr.isatty() and "NO_COLOR" not in os.environ
