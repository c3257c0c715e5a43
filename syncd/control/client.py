"""The client of the control socket, for commands.

It does not import the server, so that a command does not load the web framework of the daemon.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from msgspec import convert, json

from syncd.control.messages import (
    MESSAGE_TYPES,
    PushRequest,
    ReconcileMessage,
    ReconcileRequest,
    ReplayRequest,
    decode_error,
)
from syncd.core.model import JsonObject
from syncd.core.records import ReplayResult
from syncd.core.status_document import StatusDocument
from syncd.errors import ControlDenied, DaemonAbsent, UsageError


def request_status(socket: Path) -> StatusDocument:
    """Return the running daemon's status document; raises DaemonAbsent when there is none."""
    with _connected(socket) as client:
        answer = client.get("/status")
        if answer.status_code != httpx.codes.OK:
            raise decode_error(json.decode(answer.content))
        return json.decode(answer.content, type=StatusDocument)


def request_replay(socket: Path, request: ReplayRequest) -> list[ReplayResult]:
    """Have the running daemon replay stored deliveries; raises DaemonAbsent without one."""
    with _connected(socket) as client:
        answer = client.post("/replay", content=json.encode(request))
        if answer.status_code != httpx.codes.OK:
            raise decode_error(json.decode(answer.content))
        return json.decode(answer.content, type=list[ReplayResult])


def request_push(socket: Path, request: PushRequest) -> None:
    """Have the running daemon continue a push elsewhere; raises DaemonAbsent without one."""
    with _connected(socket) as client:
        answer = client.post("/push", content=json.encode(request))
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise UsageError(
                "the daemon is older and has no pushes", hint="restart it with this version"
            )
        if answer.status_code != httpx.codes.OK:
            raise decode_error(json.decode(answer.content))


def request_reconcile(socket: Path, request: ReconcileRequest) -> Iterator[ReconcileMessage]:
    """Have the running daemon reconcile; yields progress, then the summary or the differences.

    Raises DaemonAbsent when there is none, or when it ends before the sweep does.
    """
    with (
        _connected(socket) as client,
        client.stream("POST", "/reconcile", content=json.encode(request)) as answer,
    ):
        if answer.status_code != httpx.codes.OK:
            answer.read()
            raise UsageError(f"the daemon does not understand this request: {answer.text}")
        for line in answer.iter_lines():
            document: JsonObject = json.decode(line)
            kind = next((name for name in MESSAGE_TYPES if name in document), None)
            if kind is None:
                raise decode_error(document)
            yield convert(document[kind], MESSAGE_TYPES[kind])
            if kind != "progress":
                return
    raise DaemonAbsent(
        "the daemon ended before the sweep did",
        hint="the sweep continues after the next start of the daemon",
        was_reached=True,
    )


@contextmanager
def _connected(socket: Path) -> Iterator[httpx.Client]:
    try:
        with httpx.Client(
            # The default TLS context would first read every certificate of the host.
            transport=httpx.HTTPTransport(
                uds=str(socket), verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            ),
            base_url="http://syncd",
            # A sweep reports progress several times a second; after a minute of silence the daemon
            # is dead.
            timeout=httpx.Timeout(60, connect=5),
        ) as client:
            yield client
    except httpx.ConnectError as error:
        if _is_denied(socket):
            raise ControlDenied(
                f"this user may not use {socket}",
                hint="run it as root or as a member of the daemon's group",
            ) from error
        raise DaemonAbsent(
            f"no daemon answers at {socket}",
            hint="start it with `syncd serve`, or check control.socket",
        ) from error
    except httpx.HTTPError as error:
        raise DaemonAbsent(
            f"the daemon at {socket} broke the connection: {str(error) or type(error).__name__}",
            hint="see the log of the daemon",
            was_reached=True,
        ) from error


def _is_denied(socket: Path) -> bool:
    """Return whether the permissions of a socket or of its folder exclude this user."""
    try:
        socket.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return not os.access(socket, os.W_OK)
