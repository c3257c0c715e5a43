"""The process as it was started, made fit: streams that are closed or cannot write what we say."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import warnings
from typing import NoReturn, TextIO

_STREAMS = ("stdin", "stdout", "stderr")


def make_whole() -> None:
    """Have three open streams that take every character, and own what we create.

    A descriptor below 3 that is closed would be given to the next file that is opened, and what is
    printed would end up in the mirror.
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
            # An odd locale or PYTHONIOENCODING must not keep a command from saying the rest.
            with contextlib.suppress(AttributeError, ValueError, LookupError):
                stream.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]
    if not os.environ.get("SYNCD_DEBUG"):
        # For developers; made errors (PYTHONWARNINGS), they would end a sound command.
        warnings.simplefilter("ignore")
    # With a mask that takes our own rights, no file could be opened a second time.
    os.umask(os.umask(0o077) & 0o077)


def flush() -> str:
    """Write out what is still held back; return why that failed, or an empty text.

    Later, at the end of the interpreter, it would be told with a traceback.
    """
    told = ""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            _point_nowhere(stream)
        except OSError as fault:
            told = told or fault.strerror or "cannot be written"
            _point_nowhere(stream)
        except ValueError:
            continue  # it is closed already
    return told


def leave(code: int) -> NoReturn:
    """End the process with this exit code, after `flush`.

    Python would wait for every thread, and one may be looking up a name for minutes.
    """
    atexit._run_exitfuncs()  # noqa: SLF001 - it does all of Python's end but that wait
    os._exit(code)


def _point_nowhere(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
