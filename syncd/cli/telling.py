"""What went wrong, in two lines for a person: what it is, and what to try."""

from __future__ import annotations

import difflib
import errno
import os
import traceback
from collections.abc import Collection, Sequence

import click

from syncd.config import Secret
from syncd.errors import ConfigurationError, SyncdError
from syncd.printing import MAX_LINE_CHARS, Colored, show

DEBUG_VARIABLE = "SYNCD_DEBUG"
_REPORTS = "https://github.com/syncd/syncd/issues"
_HINTS = {
    errno.EMFILE: "raise the limit of open files: ulimit -n, or LimitNOFILE= of the unit",
    errno.ENFILE: "this host has too many files open: end what is not needed",
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space: this user's quota is used up",
    errno.EROFS: "name a place that can be written",
    errno.EFBIG: "raise the limit of file sizes: ulimit -f, or LimitFSIZE= of the unit",
    errno.EACCES: "check the permissions, or run it as the user it belongs to",
    errno.EPERM: "check the permissions, or run it as the user it belongs to",
    errno.ENOENT: "check the path",
    errno.ENOMEM: "give it more memory: ulimit -v, or MemoryMax= of the unit",
}


def tell(fault: SyncdError, secrets: Collection[str] = ()) -> None:
    """Write a fault on stderr."""
    lines = fault.errors if isinstance(fault, ConfigurationError) else [fault.message]
    say(lines, fault.hint, secrets)


def say(lines: Sequence[str], hint: str, secrets: Collection[str] = ()) -> None:
    """Write what is wrong and what to try on stderr, each on one line, without these secrets."""
    told = [(Colored("Error:", "red"), line) for line in lines]
    told += [(Colored("Try:", "yellow"), hint)] if hint else []
    for word, text in told:
        try:
            show(word, " ", _masked(text, secrets), err=True, most=MAX_LINE_CHARS)
        except OSError:
            return  # nobody can be told


def unexpected(fault: BaseException) -> tuple[str, str]:
    """Return what to say of an exception that nothing translated: what it is, and what to try."""
    if isinstance(fault, OSError) and fault.errno in _HINTS:
        name = fault.filename if isinstance(fault.filename, str) else ""
        return f"{f'{name}: ' if name else ''}{fault.strerror}", _HINTS[fault.errno]
    if isinstance(fault, MemoryError):
        return "there is not enough memory", _HINTS[errno.ENOMEM]
    if isinstance(fault, RuntimeError) and "start new thread" in str(fault):
        return (
            "this process may not start another thread",
            "raise the limit: ulimit -u and -v, or TasksMax= and MemoryMax= of the unit",
        )
    if isinstance(fault, ImportError):
        return (
            f"a part of syncd or of what it is built on cannot be loaded: {fault}",
            "install it again into an environment of its own; give it memory (ulimit -v)",
        )
    return (
        f"something happened that syncd does not know: {_in_short(fault)}",
        f"report it at {_REPORTS} with what {DEBUG_VARIABLE}=1 in the environment shows",
    )


def trace(fault: BaseException, secrets: Collection[str]) -> None:
    """Write the traceback of a fault on stderr, where somebody asked for it."""
    if os.environ.get(DEBUG_VARIABLE):
        text = _masked("".join(traceback.format_exception(fault)), secrets)
        for line in text.removesuffix("\n").split("\n"):
            show(line, err=True, most=MAX_LINE_CHARS)


def usage(fault: click.ClickException) -> tuple[str, str]:
    """Return what a wrong call is in plain words, and what to try."""
    context = getattr(fault, "ctx", None)
    path = context.command_path if context is not None else "syncd"
    hint = f"`{path} --help` explains it, with an example"
    if isinstance(fault, click.NoSuchOption):
        near = [f"{path} {one}" for one in fault.possibilities or ()][:1]
        return f"there is no option {fault.option_name}", _or_help(near, hint)
    if isinstance(fault, click.MissingParameter) and fault.param is not None:
        return f"{_name(fault.param)} is missing", hint
    if isinstance(fault, click.BadParameter) and fault.param is not None:
        return f"{_name(fault.param)}: {fault.message.rstrip('.')}", hint
    if isinstance(fault, click.BadOptionUsage):
        return f"{fault.option_name} takes a value, and has none", hint
    message = fault.format_message().rstrip(".").removeprefix("Got unexpected ")
    return message[:1].lower() + message[1:], hint


def no_such_command(name: str, commands: Collection[str]) -> tuple[str, str]:
    """Return the same of a command that does not exist, with the one that was probably meant."""
    near = difflib.get_close_matches(name, commands, n=1, cutoff=0.5)
    near = near or [one for one in commands if name and one.startswith(name)][:1]
    return f"there is no command {name}", _or_help([f"syncd {one}" for one in near], _LIST)


_LIST = "`syncd --help` lists the commands"


def _or_help(near: Sequence[str], hint: str) -> str:
    return f"`{near[0]}`, or {hint}" if near else hint


def _name(parameter: click.Parameter) -> str:
    if isinstance(parameter, click.Argument):
        return parameter.make_metavar(click.Context(click.Command(""))).strip("[]")
    return max(parameter.opts, key=len)


def _in_short(fault: BaseException) -> str:
    text = " ".join(str(fault).split())
    return f"{type(fault).__name__}{f': {text[:200]}' if text else ''}"


def _masked(text: str, secrets: Collection[str]) -> str:
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, Secret.MASK)
    return text
