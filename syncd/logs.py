"""Logs: readable lines on a terminal, JSON lines otherwise, and never a secret.

One event is one line, also if it contains long or unusual foreign text.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import threading
from collections.abc import Collection
from typing import Any, Literal, TextIO, cast

import structlog
from structlog.typing import EventDict, WrappedLogger

from syncd.core.plain_text import shortened, visible
from syncd.log_stream import LogStream

MASK = "********"

# The most entries of one list or table; its values have limits too. A log collector truncates a
# longer line, and then the line is no JSON.
MAX_ENTRIES = 50
# A longer traceback is cut in the middle: its ends have the origin and the error.
MAX_TRACEBACK_CHARS = 8000
# How long the process waits at its end until the last lines are read.
DRAIN_LIMIT_S = 1.0


def configure(
    level: str,
    style: Literal["auto", "json", "console"],
    *,
    secrets: Collection[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Set up every logger of the process; may be called again after a reload."""
    global _stream  # noqa: PLW0603 - a reload replaces it
    _stream = _Unfailing(stream or sys.stderr, drawn=_stream.drawn)
    stream = cast("TextIO", _stream)
    is_console = style == "console" or (style == "auto" and stream.isatty())
    has_colors = stream.isatty() and "NO_COLOR" not in os.environ
    _stream.has_progress = is_console and stream.isatty() and _can_erase()
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _Plain(secrets, is_console=is_console),
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(
            exception_formatter=structlog.dev.plain_traceback,
            columns=_columns(has_colors=has_colors),
        )
        if is_console
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries log every request at info and below.
    root.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()]))


def never_wait() -> None:
    """Let stderr accept every line at once, even if its reader is slow: for the daemon.

    Call it before `configure`. A line that cannot be written is dropped and counted.
    """
    stream = LogStream(sys.stderr.fileno(), on_dropped=_report_dropped)
    atexit.register(stream.drain, DRAIN_LIMIT_S)
    sys.stderr = cast("TextIO", stream)


def dropped_lines() -> int:
    """Return how many lines were dropped: their reader was too slow, or the disk was full."""
    return sys.stderr.dropped if isinstance(sys.stderr, LogStream) else 0


def catch_all() -> None:
    """Log warnings and uncaught exceptions, instead of writing them to stderr: for the daemon."""
    logging.captureWarnings(capture=True)
    sys.excepthook = lambda _, error, __: report(error)
    threading.excepthook = lambda hook: report(hook.exc_value or hook.exc_type())
    sys.unraisablehook = lambda hook: report(hook.exc_value or hook.exc_type())


def report(error: BaseException) -> None:
    """Log an unexpected exception with its traceback."""
    log = structlog.get_logger(__name__)
    log.critical("an unexpected error", exc_info=error)


def _report_dropped(lines: int) -> None:
    log = structlog.get_logger(__name__)
    log.warning(
        "log lines were dropped",
        lines=lines,
        hint="the reader of the log was too slow or stuck, or its disk was full",
    )


def has_progress() -> bool:
    """Return whether the log is a terminal that can show a line of progress below it."""
    return _stream.has_progress


def show_progress(text: str) -> None:
    """Show one line below the log, in place of the last one; empty text removes it."""
    _stream.draw(visible(text))


def _can_erase() -> bool:
    return os.environ.get("TERM", "dumb") not in {"dumb", "unknown", ""} and "CI" not in os.environ


def _columns(*, has_colors: bool) -> list[structlog.dev.Column]:
    """Return the parts of a readable line: time, event, the level unless it is info, the rest."""

    def colored(color: str, text: str) -> str:
        return f"{color}{text}{structlog.dev.RESET_ALL}" if has_colors else text

    def time(key: str, value: object) -> str:  # noqa: ARG001
        return f"{str(value)[:10]} {str(value)[11:19]}Z"

    def event(key: str, value: object) -> str:  # noqa: ARG001
        return colored(structlog.dev.BRIGHT, f"{value!s:<20}")

    def level(key: str, value: object) -> str:  # noqa: ARG001
        # Yellow is hardly legible on a light background.
        colors = {"info": "", "debug": "", "warning": structlog.dev.MAGENTA}
        color = colors.get(str(value), structlog.dev.RED)
        return "" if value == "info" else colored(color, f"[{value}]")

    def rest(key: str, value: object) -> str:
        return f"{colored(structlog.dev.CYAN, key)}={value}"

    columns = {"timestamp": time, "event": event, "level": level, "": rest}
    return [structlog.dev.Column(key, column) for key, column in columns.items()]


class _Unfailing:
    """A stream that drops a line if its disk is full or its pipe is closed, and never fails.

    A drawn line of progress stays below all others.
    """

    def __init__(self, stream: TextIO, *, drawn: str = "") -> None:
        self._stream = stream
        self.drawn = drawn
        self.has_progress = False

    def write(self, text: str) -> int:
        """Write, if that is possible."""
        # Erased and drawn again in the same write, so that no line appears between them.
        whole = f"{_ERASE}{text}{self.drawn}" if self.drawn else text
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(whole)
        return len(text)

    def draw(self, text: str) -> None:
        """Replace the drawn line."""
        text = text[: _columns_of(self._stream) - 1]
        if not self.has_progress or text == self.drawn:
            return
        self.drawn = text
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(f"{_ERASE}{text}")
        self.flush()

    def flush(self) -> None:
        """Flush, if that is possible."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self._stream.isatty()


_ERASE = "\r\x1b[K"
_stream = _Unfailing(sys.stderr)


def _columns_of(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


class _Plain:
    """Makes an event safe: without secrets, with limited length, and in one line."""

    def __init__(self, secrets: Collection[str], *, is_console: bool) -> None:
        # The longest first: a secret that begins with another one would leave its rest.
        self._secrets = sorted(filter(None, secrets), key=len, reverse=True)
        self._is_console = is_console

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        """Return the event with plain values."""
        del logger, method
        trace = event.pop("exception", None)
        plain: EventDict = {key: self._plain(value) for key, value in event.items()}
        if trace is not None:
            plain["exception"] = self._traceback(str(trace))
        return plain

    def _plain(self, value: Any) -> Any:
        if isinstance(value, int | float | None):
            return value
        if isinstance(value, list | tuple):
            return [self._plain(one) for one in value[:MAX_ENTRIES]] + _more(value)
        if isinstance(value, dict):
            some = list(value.items())[:MAX_ENTRIES]
            plain = {self._text(str(key)): self._plain(one) for key, one in some}
            return plain | dict.fromkeys(_more(value), "")
        return self._text(str(value))

    def _text(self, text: str) -> str:
        # Masked before it is shortened, otherwise the beginning of a secret would stay.
        text = shortened(self._masked(text).strip())
        # JSON in ASCII escapes all such characters by itself.
        return visible(text) if self._is_console else text

    def _traceback(self, text: str) -> str:
        text = self._masked(text)
        if len(text) > MAX_TRACEBACK_CHARS:
            half = MAX_TRACEBACK_CHARS // 2
            text = f"{text[:half]}\n…\n{text[-half:]}"
        if not self._is_console:
            return text
        # Indented, so that no part of it looks like a line of the log.
        return "\n".join(f"    {visible(line)}" for line in text.splitlines())

    def _masked(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text


def _more(entries: Collection[Any]) -> list[str]:
    return [f"… ({len(entries)} in all)"] if len(entries) > MAX_ENTRIES else []
