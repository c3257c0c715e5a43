"""The receivers of pushes: a URL that gets a signed POST, or a command that gets JSON lines.

An error says why a receiver did not take a batch. It repeats no address, no argument and nothing of
an answer but its status.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Protocol
from urllib.parse import urlsplit

import httpx
from standardwebhooks.webhooks import Webhook

from syncd import __version__, child_process, http_client
from syncd.child_process import CommandFailed
from syncd.config import KEYS_VARIABLE, Push, SigningSecret, is_loopback
from syncd.core.pushes import Step
from syncd.core.timestamps import parse_http_date
from syncd.errors import ConfigurationError

URL_LIMIT_S = 30.0
COMMAND_LIMIT_S = 60.0
# The longest wait that a receiver can ask for.
MAX_RETRY_AFTER_S = 86_400.0
# With its end unread, the connection of an answer is not used again.
_MAX_ANSWER_BYTES = 64 * 1024
_ANSWER_LIMIT_S = 1.0


class NotTaken(Exception):
    """The batch has to be sent again, not before `wait_s` if the receiver asked for a wait."""

    def __init__(self, reason: str, *, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Gone(NotTaken):
    """The receiver wants nothing more: 410."""


class Sink(Protocol):
    """Takes batches, one after the other."""

    async def send(self, step: Step) -> None:
        """Return once the batch is taken; raises NotTaken."""
        ...

    async def close(self) -> None:
        """Close connections."""
        ...


def sink_for(push: Push, secret: SigningSecret | None, now: Callable[[], datetime]) -> Sink:
    """Return the receiver that a push names; `now` is the time in its signatures."""
    if push.url and secret is not None:
        return UrlSink(push.url, secret, now)
    return CommandSink(push.command)


class CommandSink:
    """A command, run once for each batch; it takes the batch with exit code 0."""

    def __init__(self, command: tuple[str, ...], *, limit_s: float = COMMAND_LIMIT_S) -> None:
        self._command = command
        self._limit_s = limit_s

    async def send(self, step: Step) -> None:
        """See Sink."""
        # The command does not need the api keys.
        environ = {name: value for name, value in os.environ.items() if name != KEYS_VARIABLE}
        lines = await asyncio.to_thread(step.lines)
        try:
            await child_process.run(self._command, lines, limit_s=self._limit_s, environ=environ)
        except CommandFailed as error:
            raise NotTaken(f"the command {error}") from None

    async def close(self) -> None:
        """See Sink."""


class UrlSink:
    """A URL, as the Standard Webhooks specification describes it; 2xx takes the batch."""

    def __init__(
        self,
        url: str,
        secret: SigningSecret,
        now: Callable[[], datetime],
        *,
        limit_s: float = URL_LIMIT_S,
    ) -> None:
        self._url = url
        self._webhook = Webhook(secret.reveal())
        self._now = now
        self._limit_s = limit_s
        self._client: httpx.AsyncClient | None = None

    async def send(self, step: Step) -> None:
        """See Sink."""
        body = await asyncio.to_thread(step.body)
        await self.post(step.cursor.message_id, body)

    async def post(self, message_id: str, body: bytes) -> None:
        """Sign a body and post it; raises NotTaken."""
        at = self._now()
        headers = {
            "content-type": "application/json",
            "user-agent": f"syncd/{__version__}",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": self._webhook.sign(message_id, at, body.decode()),
        }
        try:
            async with asyncio.timeout(self._limit_s):
                status, answer = await self._post(body, headers)
        except TimeoutError:
            raise NotTaken(f"did not answer within {self._limit_s:g} s") from None
        except ConfigurationError as error:
            # The message names a variable of the environment, and does not repeat its value.
            raise NotTaken(f"cannot be reached: {error.message}") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            raise NotTaken(f"could not be reached: {http_client.cause(error)}") from None
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            return
        if status == HTTPStatus.GONE:
            raise Gone("answered 410: it wants nothing more")
        redirect = "; redirects are not followed" if "location" in answer else ""
        raise NotTaken(f"answered {status}{redirect}", wait_s=wait_s(answer, self._now()))

    async def _post(self, body: bytes, headers: dict[str, str]) -> tuple[int, httpx.Headers]:
        if self._client is None:
            is_direct = self._url.startswith("http:") and is_loopback(
                urlsplit(self._url).hostname or ""
            )
            self._client = http_client.async_client(
                self._url, is_direct=is_direct, timeout=self._limit_s, follow_redirects=False
            )
        request = self._client.stream("POST", self._url, content=body, headers=headers)
        async with request as answer:
            # The status decides. The body may be long, slow or broken.
            with contextlib.suppress(TimeoutError, httpx.HTTPError):
                async with asyncio.timeout(_ANSWER_LIMIT_S):
                    size = 0
                    async for part in answer.aiter_raw():
                        size += len(part)
                        if size > _MAX_ANSWER_BYTES:
                            break
            return answer.status_code, answer.headers

    async def close(self) -> None:
        """See Sink."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None


def wait_s(headers: Mapping[str, str], now: datetime) -> float:
    """Return the seconds to wait by `Retry-After`, 0 without one."""
    header = headers.get("retry-after", "").strip()
    if header.isascii() and header.isdigit():
        return min(MAX_RETRY_AFTER_S, float(header[:9]))
    moment = parse_http_date(header)
    if moment is None:
        return 0.0
    # Both times are by the receiver's clock: this host's clock may differ from it.
    left = moment - (parse_http_date(headers.get("date")) or now)
    return min(MAX_RETRY_AFTER_S, max(0.0, left.total_seconds()))
