"""Logs: lines for people on a terminal, JSON lines otherwise, and never a secret in either."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any, Literal, TextIO, cast

import structlog
from structlog.typing import EventDict, WrappedLogger

MASK = "********"

# Libraries that tell of every request, which at a thousand a second nobody reads.
_TALKATIVE = ("httpx", "httpcore", "apscheduler", "uvicorn", "uvicorn.error", "asyncio")


def configure(
    level: str,
    style: Literal["auto", "json", "console"],
    *,
    secrets: Sequence[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Set up every logger of the process; may be called again after a reload."""
    stream = cast("TextIO", _Unfailing(stream or sys.stderr))
    is_console = style == "console" or (style == "auto" and stream.isatty())
    has_colors = stream.isatty() and "NO_COLOR" not in os.environ
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _Masking(secrets),
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=has_colors)
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
    root.setLevel(level.upper())
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)


class _Unfailing:
    """A stream whose full disk or closed pipe is nobody's fault: the line is lost, not the work."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, if that is possible."""
        with contextlib.suppress(OSError, ValueError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, if that is possible."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        """Tell whether a person reads it."""
        return self._stream.isatty()


class _Masking:
    """Replaces the text of a secret wherever it appears, whoever logged it."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = [secret for secret in secrets if secret]

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        """Return the event without secrets."""
        del logger, method
        if self._secrets:
            for key, value in event.items():
                event[key] = self._plain(value)
        return event

    def _plain(self, value: Any) -> Any:
        if isinstance(value, int | float | None):
            return value
        if isinstance(value, list | tuple):
            return [self._plain(one) for one in value]
        if isinstance(value, dict):
            return {self._masked(str(key)): self._plain(one) for key, one in value.items()}
        return self._masked(str(value))

    def _masked(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text
