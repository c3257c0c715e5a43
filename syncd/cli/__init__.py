"""The command line: one module a command, loaded when it is called; faults become two lines here.

Exit codes: 0 done or healthy, 1 finished but not all well, 2 wrong usage or
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
from syncd.cli import common, streams, telling
from syncd.errors import (
    ConfigurationError,
    DaemonAbsent,
    MirrorLocked,
    SourceError,
    SyncdError,
    UsageError,
)
from syncd.printing import show

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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that was asked for; raises UsageError with the one that was meant."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            message, hint = telling.no_such_command(args[0], COMMANDS)
            raise UsageError(message, hint=hint)
        return super().resolve_command(ctx, args)

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
    streams.make_whole()
    code = run(sys.argv[1:])
    if told := streams.flush():
        telling.say([f"the output cannot be written: {told}"], "send it somewhere else")
        code = code or 1
    streams.leave(code)


def run(arguments: list[str]) -> int:
    """Run one command; return its exit code, having told faults on stderr."""
    try:
        result = cli.main(arguments, prog_name="syncd", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as fault:
        fault.show()
        return fault.exit_code
    except click.exceptions.Abort:
        show("Interrupted.", err=True)
        return INTERRUPTED
    except KeyboardInterrupt:
        return INTERRUPTED
    except click.ClickException as fault:
        message, hint = telling.usage(fault)
        telling.say([message], hint)
        return fault.exit_code
    except SyncdError as fault:
        telling.tell(fault, common.secrets)
        return next(code for kind, code in EXIT_CODES if isinstance(fault, kind))
    except Exception as fault:  # noqa: BLE001 - the last one
        # Nothing translated it: a fault of ours, or of the host, but never a traceback of whoever
        # only called a command. What is left of the output would fail again for the same reason.
        streams.flush()
        telling.trace(fault, common.secrets)
        message, hint = telling.unexpected(fault)
        telling.say([message], hint, common.secrets)
        return 1
    return result if isinstance(result, int) else 0
