"""The same rows as the peers, in one commit for all deliveries that wait, and no rules.

It shows the cost that Python, the HTTP server of the daemon and SQLite leave to any design: it
verifies, parses, and stores with the statements of the peers. There is no merge rule, no limit, no
reload and no other work in its process.

python shared_commit.py DATABASE    prints its URL
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import uvloop
from msgspec import json
from starlette.types import ASGIApp, Receive, Scope, Send

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

from benchmarks.peers.database import keep, open_durable
from benchmarks.servers import serve
from syncd.core.signature import HEADER, is_authentic

KEYS = (os.environ["DREAMSHIP_API_KEY"],)
_HEADER = HEADER.lower().encode()

Waiting = list[tuple[bytes, dict[str, Any], asyncio.Future[str]]]


class SharedCommit:
    """Stores the deliveries that arrive during one commit in the next one."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._executor = ThreadPoolExecutor(1)
        self._waiting: Waiting = []
        self._writer: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one delivery after its commit."""
        body = (await receive())["body"]
        signature = next((value for name, value in scope["headers"] if name == _HEADER), b"")
        if not is_authentic(body, signature, KEYS):
            await _answer(send, 401, b"{}")
            return
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.append((body, json.decode(body), future))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_all())
        await _answer(send, 200, b'{"outcome":"%b"}' % (await future).encode())

    async def _write_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting, []
            outcomes = await loop.run_in_executor(self._executor, self._write, batch)
            for (_, _, future), outcome in zip(batch, outcomes, strict=True):
                if not future.done():  # the client may have disconnected
                    future.set_result(outcome)
        self._writer = None

    def _write(self, batch: Waiting) -> list[str]:
        self._database.execute("BEGIN IMMEDIATE")
        outcomes = [
            keep(self._database, document["event"], document["data"], body)
            for body, document, _ in batch
        ]
        self._database.execute("COMMIT")
        return outcomes


async def _answer(send: Send, status: int, body: bytes) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    """Serve until killed."""
    app: ASGIApp = SharedCommit(open_durable(Path(sys.argv[1])))
    uvloop.run(serve(app))


if __name__ == "__main__":
    main()
