"""Notifications: a command that receives JSON on its standard input, and a POST to a URL.

Notifications do not delay the daemon: a separate task sends each one, repeats it with backoff, and
gives up after some attempts.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Sequence

import httpx
import structlog

from syncd import child_process, http_client
from syncd.child_process import CommandFailed
from syncd.config import KEYS_VARIABLE
from syncd.core.backoff import backoff, retry
from syncd.core.model import JsonObject
from syncd.core.plain_text import json_text
from syncd.errors import ConfigurationError

log = structlog.get_logger(__name__)

ATTEMPTS = 6
COMMAND_LIMIT_S = 30.0
URL_LIMIT_S = 10.0
_JSON = {"Content-Type": "application/json"}


class _NotSent(Exception):
    """The reason why a notification was not sent; it contains no secret."""


class Notifier:
    """Sends notifications to the command and the URL of `[notify]`, whichever are set."""

    def __init__(
        self, *, sleep: Callable[[float], Awaitable[None]], limit_s: float = COMMAND_LIMIT_S
    ) -> None:
        self._sleep = sleep
        self._limit_s = limit_s
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, message: JsonObject, *, command: Sequence[str], url: str) -> None:
        """Start to send one notification; returns at once."""
        # Escaped, because the command may print the text on a terminal.
        body = json_text(message).encode()
        if command:
            self._start("command", lambda: self._run(command, body))
        if url:
            self._start("url", lambda: _post(url, body))

    async def settled(self) -> None:
        """Return when no notification is being sent."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """Cancel the notifications that are being sent."""
        for task in self._tasks:
            task.cancel()
        await self.settled()

    def _start(self, way: str, send: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.create_task(self._send(way, send), name=f"notify {way}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, way: str, send: Callable[[], Awaitable[None]]) -> None:
        def report(attempt: int, error: Exception) -> None:
            # An unexpected error, such as no descriptor left, is retried and reported as well.
            unexpected = f"notify.{way} failed: {type(error).__name__}"
            reason = str(error) if isinstance(error, _NotSent) else unexpected
            log.warning("a notification failed", way=way, error=reason, attempt=attempt)

        try:
            await retry(
                send,
                on=(Exception,),
                attempts=ATTEMPTS,
                # Jitter needs no secure randomness.
                wait=lambda attempt, _: backoff(attempt, random.uniform(0.5, 1), base_s=2),  # noqa: S311
                sleep=self._sleep,
                on_error=report,
            )
        except Exception:  # noqa: BLE001
            log.error("a notification was given up", way=way)

    async def _run(self, command: Sequence[str], body: bytes) -> None:
        """Run the command; its output may contain anything and is not repeated."""
        # The command does not need the api keys.
        environ = {name: value for name, value in os.environ.items() if name != KEYS_VARIABLE}
        try:
            await child_process.run(command, body, limit_s=self._limit_s, environ=environ)
        except CommandFailed as error:
            raise _NotSent(f"notify.command {error}") from None


async def _post(url: str, body: bytes) -> None:
    """Post to the URL, which may contain a token and is not repeated."""
    try:
        # Only the status is read, because a body may be very long or slow.
        async with (
            asyncio.timeout(URL_LIMIT_S),
            http_client.async_client(url, timeout=URL_LIMIT_S, follow_redirects=False) as client,
            client.stream("POST", url, content=body, headers=_JSON) as answer,
        ):
            pass
    except ConfigurationError as error:
        # The message names a variable of the environment, and does not repeat its value.
        raise _NotSent(f"notify.url cannot be reached: {error.message}") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise _NotSent(f"notify.url could not be reached: {http_client.cause(error)}") from None
    if not answer.is_success:
        raise _NotSent(f"notify.url answered {answer.status_code}")
