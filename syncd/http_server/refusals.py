"""Counts the requests that one listener refuses, by status code, and logs some of them.

Most are refused below the application (by the HTTP parser or the limits of connections) or by the
router. Without this module no metric and no log line would show them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus

import structlog
from starlette.types import Scope

from syncd.config import is_loopback
from syncd.errors import Overloaded

log = structlog.get_logger(__name__)

# A client that sends invalid requests all day causes one line a minute for each kind.
LOG_EVERY_S = 60.0
_LONGEST_CLIENT = 64
_FORWARDED_FOR = b"x-forwarded-for"

Headers = Iterable[tuple[bytes, bytes]]


class Refusals:
    """Counts and logs the refused requests of one listener; `counted` has the codes as text."""

    def __init__(self, listener: str) -> None:
        self.listener = listener
        self.counted: Counter[str] = Counter()
        self._logged_at: dict[str, float] = {}

    def count(self, code: int, reason: str, client: str, hint: str = "") -> None:
        """Count one refused request, and log it unless the same kind was just logged."""
        self.counted[str(code)] += 1
        if self.is_due(f"{code} {reason} {hint}"):
            log.warning(
                "a request was refused",
                listener=self.listener,
                code=code,
                error=reason,
                client=client,
                refused_so_far=self.counted[str(code)],
                **({"hint": hint} if hint else {}),
            )

    def count_answer(self, code: int, scope: Scope) -> None:
        """Count the answer of an application if it is a refusal."""
        if code >= HTTPStatus.BAD_REQUEST:
            client = client_of(scope.get("client"), scope["headers"])
            self.count(code, HTTPStatus(code).phrase.lower(), client)

    def is_due(self, kind: str) -> bool:
        """Return whether to log this kind of refusal now; `kind` comes from a fixed set."""
        now, last = time.monotonic(), self._logged_at.get(kind)
        if last is not None and now - last < LOG_EVERY_S:
            return False
        self._logged_at[kind] = now
        return True


class Places:
    """Limits the number of requests of one kind that the daemon answers at the same time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Take one place for a while; raises Overloaded if none is free."""
        if self._taken >= self._most:
            count = "1 request" if self._most == 1 else f"{self._most} requests"
            raise Overloaded(
                f"only {count} of this kind may run at the same time",
                hint="repeat the request when one has ended",
            )
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


def client_of(peer: tuple[str, int] | None, headers: Headers = ()) -> str:
    """Return the address of a client for the log.

    A proxy on this host (loopback or a unix socket) names its client: the last address in
    `X-Forwarded-For`. Any other client could invent it.
    """
    host = peer[0] if peer else ""
    if not host or is_loopback(host):
        forwarded = [value for name, value in headers if name == _FORWARDED_FOR]
        last = forwarded[-1].rpartition(b",")[2].strip() if forwarded else b""
        host = last[:_LONGEST_CLIENT].decode("latin-1") or host
    return host or "unix"
