"""FastAPI with Python's sqlite3, one commit a request, on the HTTP server of the daemon.

python fastapi_app.py DATABASE    prints its URL
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import sys
from pathlib import Path
from typing import Any

import uvloop
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

from benchmarks.peers.database import keep, open_durable
from benchmarks.servers import PATH, serve
from syncd.core.signature import HEADER

KEY = os.environ["DREAMSHIP_API_KEY"].encode()


def application(path: Path) -> FastAPI:
    """Return the application; it has one connection, because SQLite has one writer."""
    database = open_durable(path)
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


if __name__ == "__main__":
    uvloop.run(serve(application(Path(sys.argv[1]))))
