"""The control socket: what acts, for owner and group only. Called here, served by `serving`.

`GET /status` answers the status document. `POST /reconcile` with a `ReconcileRequest` (no items:
the catalogue) answers JSON lines: `{"progress": …}` until one last `{"summary": …}`,
`{"dry_run": …}` or `{"error": …}`. `POST /replay` with a `ReplayRequest` answers what became of
each delivery.

Two modules, so that a command does not load the daemon's web framework to ask one question.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from msgspec import Struct, convert, json

from syncd.core.jobs import SweepSummary
from syncd.core.model import JsonObject
from syncd.core.records import Change, ReplayResult
from syncd.errors import (
    ControlDenied,
    DaemonAbsent,
    Overloaded,
    SourceError,
    SyncdError,
    UsageError,
)


class Progress(Struct, frozen=True):
    """How far a sweep is, as it is told to who waits for it."""

    checked: int
    total: int | None
    eta_seconds: float | None
    joined: bool = False


class Differences(Struct, frozen=True):
    """What a dry run found: what a sweep would have done, and the changes it would have written."""

    summary: SweepSummary
    differences: list[Change]


Told = Progress | SweepSummary | Differences


class ReplayRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """What `POST /replay` takes: deliveries by id, or every quarantined one."""

    ids: list[int] = []
    quarantined: bool = False


class ReconcileRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """What `POST /reconcile` takes."""

    items: list[int] = []
    accept_removals: bool = False
    dry_run: bool = False


FAULTS: dict[str, type[SyncdError]] = {
    "usage": UsageError,
    "source": SourceError,
    "absent": DaemonAbsent,
    "overloaded": Overloaded,
}
KINDS: dict[str, type[Told]] = {
    "progress": Progress,
    "summary": SweepSummary,
    "dry_run": Differences,
}


def _raised(told: JsonObject) -> SyncdError:
    """Return what the daemon raised; the kinds that have an exit code of their own keep it."""
    kind = FAULTS.get(told.get("kind", ""), SyncdError)
    return kind(told.get("error", "?"), hint=told.get("hint", ""))


def ask_status(socket: Path) -> JsonObject:
    """Return the running daemon's status document; raises DaemonAbsent when there is none."""
    with _reaching(socket) as client:
        answer = client.get("/status")
        document: JsonObject = json.decode(answer.content)
        if answer.status_code != httpx.codes.OK:
            raise _raised(document)
        return document


def ask_replay(socket: Path, request: ReplayRequest) -> list[ReplayResult]:
    """Have the running daemon judge kept deliveries again; raises DaemonAbsent without one."""
    with _reaching(socket) as client:
        answer = client.post("/replay", content=json.encode(request))
        if answer.status_code != httpx.codes.OK:
            document: JsonObject = json.decode(answer.content)
            raise _raised(document)
        return json.decode(answer.content, type=list[ReplayResult])


def ask_reconcile(socket: Path, request: ReconcileRequest) -> Iterator[Told]:
    """Have the running daemon reconcile; yields progress, then the summary or the differences.

    Raises DaemonAbsent when there is none, or when it ends before the sweep does.
    """
    with (
        _reaching(socket) as client,
        client.stream("POST", "/reconcile", content=json.encode(request)) as answer,
    ):
        if answer.status_code != httpx.codes.OK:
            answer.read()
            raise UsageError(f"the daemon did not understand: {answer.text}")
        for line in answer.iter_lines():
            told: dict[str, Any] = json.decode(line)
            kind = next((name for name in KINDS if name in told), None)
            if kind is None:
                raise _raised(told)
            yield convert(told[kind], KINDS[kind])
            if kind != "progress":
                return
    raise DaemonAbsent(
        "the daemon ended before the sweep did",
        hint="the sweep goes on when it is started again",
        was_reached=True,
    )


@contextmanager
def _reaching(socket: Path) -> Iterator[httpx.Client]:
    try:
        with httpx.Client(
            # No TLS here; a context of its own would read every certificate of the host first.
            transport=httpx.HTTPTransport(
                uds=str(socket), verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            ),
            base_url="http://syncd",
            # A sweep tells something several times a second; a minute of silence is a dead one.
            timeout=httpx.Timeout(60, connect=5),
        ) as client:
            yield client
    except httpx.ConnectError as fault:
        if _is_denied(socket):
            raise ControlDenied(
                f"this user may not use {socket}",
                hint="run it as root or as a member of the daemon's group",
            ) from fault
        raise DaemonAbsent(
            f"no daemon answers at {socket}",
            hint="start it with `syncd serve`, or check control.socket",
        ) from fault
    except httpx.HTTPError as fault:
        raise DaemonAbsent(
            f"the daemon at {socket} broke off: {str(fault) or type(fault).__name__}",
            hint="see its log",
            was_reached=True,
        ) from fault


def _is_denied(socket: Path) -> bool:
    """Tell whether this user may not use a socket, or not even look whether there is one."""
    try:
        socket.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return not os.access(socket, os.W_OK)
