"""Telling a person: a command that gets JSON on its standard input, and a URL it is posted to.

Neither ever holds the daemon up: each message is carried by a task of its own, tried again with
back-off, and given up after some tries.
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
    """Carries messages to `[notify]`'s command and URL, whichever are set."""

    def __init__(
        self, *, sleep: Callable[[float], Awaitable[None]], limit_s: float = COMMAND_LIMIT_S
    ) -> None:
        self._sleep = sleep
        self._limit_s = limit_s
        self._underway: set[asyncio.Task[None]] = set()

    def tell(self, message: JsonObject, *, command: Sequence[str], url: str) -> None:
        """Begin to carry one message; returns at once."""
        # The command may print it.
        body = json_text(message).encode()
        if command:
            self._begin("command", lambda: self._run(command, body))
        if url:
            self._begin("url", lambda: _post(url, body))

    async def settled(self) -> None:
        """Return when nothing is under way."""
        while self._underway:
            await asyncio.gather(*self._underway, return_exceptions=True)

    async def close(self) -> None:
        """Give up what is under way."""
        for task in self._underway:
            task.cancel()
        await self.settled()

    def _begin(self, way: str, carry: Callable[[], Awaitable[str | None]]) -> None:
        task = asyncio.create_task(self._carry(way, carry), name=f"notify {way}")
        self._underway.add(task)
        task.add_done_callback(self._underway.discard)

    async def _carry(self, way: str, carry: Callable[[], Awaitable[str | None]]) -> None:
        for attempt in range(1, TRIES + 1):
            try:
                fault = await carry()
            except Exception as unknown:  # noqa: BLE001
                # No thread to look up the name, no descriptor left: it must not be lost in silence.
                fault = f"notify.{way} failed: {type(unknown).__name__}"
            if fault is None:
                return
            log.warning("a notification failed", way=way, fault=fault, attempt=attempt)
            if attempt < TRIES:
                chance = random.uniform(0.5, 1)  # noqa: S311 - jitter, no secret
                await self._sleep(backoff(attempt, chance, base_s=2).total_seconds())
        log.error("a notification was given up", way=way)

    async def _run(self, command: Sequence[str], body: bytes) -> str | None:
        """Return why it failed; its own words may hold anything and are not repeated."""
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                # A group of its own, so that what it starts can be ended with it.
                start_new_session=True,
                # What it is told it needs; our keys it does not.
                env={name: value for name, value in os.environ.items() if name != KEYS_VARIABLE},
            )
        except (OSError, ValueError) as fault:
            # ValueError: an argument that this locale cannot write.
            why = getattr(fault, "strerror", None) or type(fault).__name__
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
    except ConfigurationError as fault:
        # What the environment names for the way there; it repeats no value either.
        return f"notify.url cannot be reached: {fault.message}"
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as fault:
        return f"notify.url could not be reached: {type(fault).__name__}"
    return None if answer.is_success else f"notify.url answered {answer.status_code}"
