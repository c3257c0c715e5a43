"""Notifications: a command gets them as JSON on its standard input, and a URL by POST.

Neither ever blocks the daemon: each notification is sent by a task of its own, again with back-off
after a failure, and dropped after some tries.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import Awaitable, Callable, Sequence

import httpx
import structlog

from syncd import http_client
from syncd.config import KEYS_VARIABLE
from syncd.core.backoff import backoff
from syncd.core.model import JsonObject
from syncd.core.plain_text import json_text
from syncd.errors import ConfigurationError

log = structlog.get_logger(__name__)

TRIES = 6
COMMAND_LIMIT_S = 30.0
URL_LIMIT_S = 10.0
KILL_LIMIT_S = 2.0
_JSON = {"Content-Type": "application/json"}


class Notifier:
    """Sends notifications to the command and the URL of `[notify]`, if they are set."""

    def __init__(
        self, *, sleep: Callable[[float], Awaitable[None]], limit_s: float = COMMAND_LIMIT_S
    ) -> None:
        self._sleep = sleep
        self._limit_s = limit_s
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, message: JsonObject, *, command: Sequence[str], url: str) -> None:
        """Begin to send one notification; returns at once."""
        # The command may print it.
        body = json_text(message).encode()
        if command:
            self._begin("command", lambda: self._run(command, body))
        if url:
            self._begin("url", lambda: _post(url, body))

    async def settled(self) -> None:
        """Return once no notification is on its way."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """Cancel the notifications that are on their way."""
        for task in self._tasks:
            task.cancel()
        await self.settled()

    def _begin(self, way: str, send: Callable[[], Awaitable[str | None]]) -> None:
        task = asyncio.create_task(self._send(way, send), name=f"notify {way}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, way: str, send: Callable[[], Awaitable[str | None]]) -> None:
        for attempt in range(1, TRIES + 1):
            try:
                failure = await send()
            except Exception as error:  # noqa: BLE001
                # For instance no thread to look up the name, or no descriptor: it must be logged.
                failure = f"notify.{way} failed: {type(error).__name__}"
            if failure is None:
                return
            log.warning("a notification failed", way=way, fault=failure, attempt=attempt)
            if attempt < TRIES:
                chance = random.uniform(0.5, 1)  # noqa: S311 - jitter, no secret
                await self._sleep(backoff(attempt, chance, base_s=2).total_seconds())
        log.error("a notification was given up", way=way)

    async def _run(self, command: Sequence[str], body: bytes) -> str | None:
        """Return why it failed, without the output of the command: that may contain anything."""
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                # A group of its own, so that what it starts can be ended with it.
                start_new_session=True,
                # It needs its own environment, but not our keys.
                env={name: value for name, value in os.environ.items() if name != KEYS_VARIABLE},
            )
        except (OSError, ValueError) as error:
            # ValueError: an argument that this locale cannot write.
            why = getattr(error, "strerror", None) or type(error).__name__
            return f"notify.command cannot be run: {why}"
        try:
            async with asyncio.timeout(self._limit_s):
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    await process.communicate(body)
        except TimeoutError:
            return f"notify.command did not end within {self._limit_s:g} s"
        finally:
            if process.returncode is None:
                await _end(process)
        return None if process.returncode == 0 else f"notify.command ended {process.returncode}"


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill a command that still runs, with what it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # It stays while the kernel waits for a disk that does not answer; nobody else waits for that.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(KILL_LIMIT_S):
            await process.wait()


async def _post(url: str, body: bytes) -> str | None:
    """Return why it failed; the address may hold a token and is not repeated."""
    try:
        # The code alone is read: a body may be as long and as slow as its sender likes.
        async with (
            asyncio.timeout(URL_LIMIT_S),
            http_client.async_client(url, timeout=URL_LIMIT_S, follow_redirects=False) as client,
            client.stream("POST", url, content=body, headers=_JSON) as answer,
        ):
            pass
    except ConfigurationError as error:
        # What the environment names for the way there; it repeats no value either.
        return f"notify.url cannot be reached: {error.message}"
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        return f"notify.url could not be reached: {type(error).__name__}"
    return None if answer.is_success else f"notify.url answered {answer.status_code}"
