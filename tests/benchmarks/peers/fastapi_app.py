"""FastAPI with Python's sqlite3, one commit a request, on the HTTP server of the daemon.

python fastapi_app.py DATABASE    prints its URL
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import sqlite3
import sys
from pathlib import Path
from typing import Any

import uvloop
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

from benchmarks.peers.database import STATEMENTS
from benchmarks.servers import PATH, serve
from syncd.core.signature import HEADER

KEY = os.environ["DREAMSHIP_API_KEY"].encode()


def application(path: Path) -> FastAPI:
    """Return the application; it has one connection, because SQLite has one writer."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    app = FastAPI()

    # `Any`: FastAPI evaluates annotations, and would make a response model of a class.
    async def receive(request: Request) -> Any:
        body = await request.body()
        expected = hmac.new(KEY, body, hashlib.sha256).hexdigest()
        given = request.headers.get(HEADER, "").split(",")
        if not any(hmac.compare_digest(expected, one) for one in given):
            return JSONResponse({"error": "bad signature"}, 401)
        document = json.loads(body)
        database.execute("BEGIN IMMEDIATE")
        try:
            outcome = keep(database, document["event"], document["data"], body)
            database.execute("COMMIT")
        except BaseException:
            database.execute("ROLLBACK")
            raise
        return JSONResponse({"outcome": outcome})

    app.add_api_route(PATH, receive, methods=["POST"])
    return app


def keep(
    database: sqlite3.Connection, event: dict[str, str], data: dict[str, Any], body: bytes
) -> str:
    """Store one authentic delivery inside a transaction, and return its outcome."""
    row: dict[str, Any] = {
        "event_id": event["uuid"],
        "event_at": event["timestamp"],
        "action": event["action"],
        "variant_id": data["id"],
        "item_id": data["item"],
        "availability": data["availability"],
        "body": body,
    }
    found = database.execute(STATEMENTS["find"], row).fetchone()
    row["outcome"], row["old_availability"], row["old_sellable"] = found
    if not database.execute(STATEMENTS["delivery"], row).rowcount:
        return "duplicate"
    for name in ("variant", "change", "refresh"):
        database.execute(STATEMENTS[name], row)
    return str(row["outcome"])


if __name__ == "__main__":
    uvloop.run(serve(application(Path(sys.argv[1]))))
