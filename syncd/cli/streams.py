"""The standard streams of the process: one may be closed, full, or unable to write a character."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import warnings
from typing import NoReturn, TextIO

_STREAMS = ("stdin", "stdout", "stderr")


def prepare() -> None:
    """Open closed streams, let them take every character, and keep the rights to created files.

    The next file that is opened would get the number of a closed stream, and printed text would end
    up in the mirror.
    """
    for number, name in enumerate(_STREAMS):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is this one.
            os.open(os.devnull, os.O_RDWR)
        stream: TextIO | None = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115
        elif number:
            # A character that the locale or PYTHONIOENCODING cannot write must not end the output.
            with contextlib.suppress(AttributeError, ValueError, LookupError):
                stream.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]
    if not os.environ.get("SYNCD_DEBUG"):
        # Warnings are for developers; PYTHONWARNINGS can turn them into errors that end a command.
        warnings.simplefilter("ignore")
    # With a mask that removes the owner's rights, no created file could be opened again.
    os.umask(os.umask(0o077) & 0o077)


def flush() -> str:
    """Write the buffered output; return the reason of a failure, or empty text.

    At its end the interpreter would print a traceback for this failure.
    """
    failure = ""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            _redirect_to_null(stream)
        except OSError as error:
            failure = failure or error.strerror or "cannot be written"
            _redirect_to_null(stream)
        except ValueError:
            continue  # the stream is closed
    return failure


def exit_process(code: int) -> NoReturn:
    """End the process with this exit code, after `flush`.

    Python would wait for every thread, and a name lookup in a thread may take minutes.
    """
    atexit._run_exitfuncs()  # noqa: SLF001 - all of Python's end without that wait
    os._exit(code)


def _redirect_to_null(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
