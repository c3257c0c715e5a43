"""The command line: one module for each command. Errors become two lines on stderr here.

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
from syncd.cli import common, error_output, streams
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
    "setup": "syncd.cli.setup",
    "init": "syncd.cli.init",
    "serve": "syncd.cli.serve",
    "reconcile-now": "syncd.cli.reconcile_now",
    "status": "syncd.cli.status",
    "availability": "syncd.cli.availability",
    "listings": "syncd.cli.listings",
    "explain": "syncd.cli.explain",
    "changes": "syncd.cli.changes",
    "push": "syncd.cli.push",
    "publish": "syncd.cli.publish",
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
    """Imports only the command that runs: `syncd --help` needs no database and no network."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; a closed pipe on stdout is not an error."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            if error.ctx is None and ctx.invoked_subcommand is not None:
                # click does not say which command an option without its value belongs to.
                name = ctx.invoked_subcommand
                command = self.get_command(ctx, name) or self
                error.ctx = click.Context(command, parent=ctx, info_name=name)
            raise
        except BrokenPipeError:
            # click would end with exit code 1.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command of this name; raises UsageError, which names a similar command."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            message, hint = error_output.describe_unknown_command(args[0], COMMANDS)
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
  syncd demo                         see it work; needs no set-up
  syncd setup                        set it up; asks for everything it needs
  syncd check-config -c config.toml  check a configuration
  syncd serve -c config.toml         run the daemon
  syncd reconcile-now                read the catalogue now
  eval "$(_SYNCD_COMPLETE=bash_source syncd)"    completion for this shell""",
)
@click.version_option(__version__, prog_name="syncd")
def cli() -> None:
    """Keep a shop's mirror of the availability at Dreamship up to date."""


def main() -> NoReturn:
    """Run the command line, and end the process with an exit code of the contract."""
    streams.prepare()
    code = run(sys.argv[1:])
    if reason := streams.flush():
        error_output.print_lines(
            [f"the output cannot be written: {reason}"], "send it somewhere else"
        )
        code = code or 1
    streams.exit_process(code)


def run(arguments: list[str]) -> int:
    """Run one command, write errors on stderr, and return the exit code."""
    try:
        result = cli.main(arguments, prog_name="syncd", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.exceptions.Abort:
        show("Interrupted.", err=True)
        return INTERRUPTED
    except KeyboardInterrupt:
        return INTERRUPTED
    except click.ClickException as error:
        message, hint = error_output.describe_usage(error)
        error_output.print_lines([message], hint)
        return error.exit_code
    except SyncdError as error:
        error_output.print_error(error, common.secrets)
        return next(code for kind, code in EXIT_CODES if isinstance(error, kind))
    except Exception as error:  # noqa: BLE001 - no traceback reaches a user
        # A bug of syncd, or a problem of the host. The rest of the output may fail for the same
        # reason, so its result is ignored.
        streams.flush()
        error_output.print_traceback(error, common.secrets)
        message, hint = error_output.describe_unexpected(error)
        error_output.print_lines([message], hint, common.secrets)
        return 1
    return result if isinstance(result, int) else 0
