"""Error messages for a person: `Error:` says what is wrong, `Try:` says how to fix it."""

from __future__ import annotations

import difflib
import errno
import os
import traceback
from collections.abc import Collection, Sequence

import click

from syncd.cli.program import with_program
from syncd.config import Secret
from syncd.errors import ConfigurationError, SyncdError
from syncd.printing import MAX_LINE_CHARS, Colored, show

DEBUG_VARIABLE = "SYNCD_DEBUG"
_ISSUES_URL = "https://github.com/syncd/syncd/issues"
_HINTS = {
    errno.EMFILE: "raise the limit of open files: ulimit -n, or LimitNOFILE= of the unit",
    errno.ENFILE: "this host has too many files open: end programs that you do not need",
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space: this user's quota is used up",
    errno.EROFS: "name a place that can be written",
    errno.EFBIG: "raise the limit of file sizes: ulimit -f, or LimitFSIZE= of the unit",
    errno.EACCES: "check the permissions, or run it as the owner of the file",
    errno.EPERM: "check the permissions, or run it as the owner of the file",
    errno.ENOENT: "check the path",
    errno.ENOMEM: "give it more memory: ulimit -v, or MemoryMax= of the unit",
}


def print_error(error: SyncdError, secrets: Collection[str] = ()) -> None:
    """Write an error and its hint on stderr."""
    lines = error.errors if isinstance(error, ConfigurationError) else [error.message]
    print_lines(lines, error.hint, secrets)


def print_lines(lines: Sequence[str], hint: str, secrets: Collection[str] = ()) -> None:
    """Write each error and the hint on stderr, each in one line, with secrets masked."""
    labelled = [(Colored("Error:", "red"), line) for line in lines]
    labelled += [(Colored("Try:", "yellow"), with_program(hint))] if hint else []
    for label, text in labelled:
        try:
            show(label, " ", _masked(text, secrets), err=True, most=MAX_LINE_CHARS)
        except OSError:
            return  # stderr is closed or full


def describe_unexpected(error: BaseException) -> tuple[str, str]:
    """Return the message and the hint for an exception that no other code has translated."""
    if isinstance(error, OSError) and error.errno in _HINTS:
        name = error.filename if isinstance(error.filename, str) else ""
        return f"{f'{name}: ' if name else ''}{error.strerror}", _HINTS[error.errno]
    if isinstance(error, MemoryError):
        return "there is not enough memory", _HINTS[errno.ENOMEM]
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return (
            "this process may not start another thread",
            "raise the limit: ulimit -u and -v, or TasksMax= and MemoryMax= of the unit",
        )
    if isinstance(error, ImportError):
        return (
            f"a part of syncd or of its dependencies cannot be loaded: {error}",
            "install it again into a new environment; give it memory (ulimit -v)",
        )
    return (
        f"an unexpected error occurred: {_in_short(error)}",
        f"report it at {_ISSUES_URL} with the output of {DEBUG_VARIABLE}=1 in the environment",
    )


def print_traceback(error: BaseException, secrets: Collection[str]) -> None:
    """Write the traceback of an error on stderr, if the environment requests it."""
    if os.environ.get(DEBUG_VARIABLE):
        text = _masked("".join(traceback.format_exception(error)), secrets)
        for line in text.removesuffix("\n").split("\n"):
            show(line, err=True, most=MAX_LINE_CHARS)


def describe_usage(error: click.ClickException) -> tuple[str, str]:
    """Return the message and the hint for wrong usage."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "syncd"
    hint = f"`{path} --help` explains it, with an example"
    if isinstance(error, click.NoSuchOption):
        near = [f"{path} {option}" for option in error.possibilities or ()][:1]
        return f"there is no option {error.option_name}", _or_help(near, hint)
    if isinstance(error, click.MissingParameter) and error.param is not None:
        return f"{_name(error.param)} is missing", hint
    if isinstance(error, click.BadParameter) and error.param is not None:
        return f"{_name(error.param)}: {error.message.rstrip('.')}", hint
    if isinstance(error, click.BadOptionUsage):
        return f"{error.option_name} takes a value, and has none", hint
    message = error.format_message().rstrip(".").removeprefix("Got unexpected ")
    return message[:1].lower() + message[1:], hint


def describe_unknown_command(name: str, commands: Collection[str]) -> tuple[str, str]:
    """Return the message for a command that does not exist; the hint names the most similar one."""
    near = difflib.get_close_matches(name, commands, n=1, cutoff=0.5)
    near = near or [command for command in commands if name and command.startswith(name)][:1]
    return f"there is no command {name}", _or_help([f"syncd {command}" for command in near], _LIST)


_LIST = "`syncd --help` lists the commands"


def _or_help(near: Sequence[str], hint: str) -> str:
    return f"`{near[0]}`, or {hint}" if near else hint


def _name(parameter: click.Parameter) -> str:
    if isinstance(parameter, click.Argument):
        metavar = parameter.make_metavar(click.Context(click.Command("")))
        return metavar.replace("[", "").replace("]", "")
    return max(parameter.opts, key=len)


def _in_short(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}{f': {text[:200]}' if text else ''}"


def _masked(text: str, secrets: Collection[str]) -> str:
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, Secret.MASK)
    return text
