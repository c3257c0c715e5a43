"""Requests to a running demo: `syncd demo flip` reaches it through a socket in its folder.

The protocol is one JSON line each way. Only the user of the demo can connect.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

from msgspec import DecodeError, Struct, ValidationError, json

from syncd.demo.state import Place
from syncd.errors import DaemonAbsent, SyncdError, UsageError

FOLDER_PREFIX = "syncd-demo-"
SOCKET_NAME = "demo.sock"
_TIMEOUT_S = 40.0


class FlipRequest(Struct, frozen=True):
    """Change one variant at the simulated Dreamship. `lose`: the network loses its delivery."""

    variant_id: int
    value: str
    lose: bool = False


class Flipped(Struct, frozen=True):
    """The result of a flip; `outcome` is the daemon's answer to the delivery, or `lost`."""

    variant_id: int
    item_id: int
    old: str
    value: str
    outcome: str


class _Request(Struct, frozen=True):
    flip: FlipRequest | None = None


class _Answer(Struct, frozen=True):
    place: Place | None = None
    flipped: Flipped | None = None
    error: str = ""
    hint: str = ""


@contextlib.asynccontextmanager
async def answering(
    folder: Path, place: Place, flip: Callable[[FlipRequest], Awaitable[Flipped]]
) -> AsyncIterator[None]:
    """Answer requests until the end of the block; errors of `flip` reach the other process."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
            answer = await _answer(await reader.readline(), place, flip)
            writer.write(json.encode(answer) + b"\n")
            await writer.drain()
        writer.close()

    path = folder / SOCKET_NAME
    server = await asyncio.start_unix_server(answer, path)
    path.chmod(0o600)
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)


async def _answer(
    line: bytes, place: Place, flip: Callable[[FlipRequest], Awaitable[Flipped]]
) -> _Answer:
    try:
        request = json.decode(line, type=_Request)
        if request.flip is None:
            return _Answer(place)
        return _Answer(flipped=await flip(request.flip))
    except (DecodeError, ValidationError):
        return _Answer(error="the demo does not understand this request", hint="start it again")
    except SyncdError as error:
        return _Answer(error=error.message, hint=error.hint)


class RunningDemo:
    """A demo of this user that answers."""

    def __init__(self, path: Path) -> None:
        """Ask the demo for its addresses; raises OSErrors if none answers."""
        self._path = path
        place = self._ask(_Request()).place
        if place is None:
            raise OSError("no demo answers here")
        self.place = place

    @property
    def ports(self) -> set[int]:
        """The ports that the demo uses."""
        place = self.place
        urls = (place.webhook, place.status_page, place.dreamship)
        return {int(url.split("/")[2].rpartition(":")[2]) for url in urls}

    def flip(self, request: FlipRequest) -> Flipped:
        """Change a variant; raises SyncdError with the reason if the demo refuses."""
        try:
            answer = self._ask(_Request(request))
        except OSError as error:
            raise DaemonAbsent(
                "the demo ended before it answered", hint="start it again"
            ) from error
        if answer.flipped is None:
            raise SyncdError(answer.error, hint=answer.hint)
        return answer.flipped

    def _ask(self, request: _Request) -> _Answer:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_TIMEOUT_S)
            connection.connect(str(self._path))
            connection.sendall(json.encode(request) + b"\n")
            with connection.makefile("rb") as answers:
                line = answers.readline()
        try:
            return json.decode(line, type=_Answer)
        except (DecodeError, ValidationError) as error:
            raise OSError("no demo answers here") from error


def find(folder: Path | None = None, port: int | None = None) -> RunningDemo:
    """Return the running demo of this user, in this folder or with this port if one is named.

    Raises DaemonAbsent if none runs, and UsageError if several run and none is named.
    """
    running = list(running_demos())
    if not running:
        raise DaemonAbsent(
            "no demo runs", hint="start one in another terminal: `syncd demo --seconds 0`"
        )
    found = [
        demo
        for demo in running
        if (folder is None or Path(demo.place.folder).resolve() == folder.resolve())
        and (port is None or port in demo.ports)
    ]
    listed = ", ".join(
        f"--folder {demo.place.folder} (--port {min(demo.ports)})" for demo in running
    )
    if not found:
        where = f"in {folder}" if folder is not None else f"with port {port}"
        raise DaemonAbsent(f"no demo runs {where}", hint=f"these run: {listed}")
    if len(found) > 1:
        raise UsageError(f"{len(found)} demos run", hint=f"choose one: {listed}")
    return found[0]


def running_demos() -> Iterator[RunningDemo]:
    """Give each demo of this user that answers."""
    for path in sorted(Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*/{SOCKET_NAME}")):
        # Another user may have made a folder with such a name.
        with contextlib.suppress(OSError):
            if path.stat().st_uid == os.geteuid():
                yield RunningDemo(path)
