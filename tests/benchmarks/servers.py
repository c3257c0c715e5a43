"""What the daemon is measured against, each on the daemon's own HTTP server settings.

python tests/benchmarks/servers.py empty|signed|fastapi MIRROR    prints its URL
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.deliveries import KEY
from syncd.core.signature import HEADER, is_authentic
from syncd.http_server.server import HttpServer
from syncd.http_server.sockets import bind_tcp

PATH = "/webhooks/dreamship"


def empty() -> ASGIApp:
    """Answer at once: what the HTTP server and the framework cost alone."""

    async def receive(request: Request) -> Response:
        del request
        return Response(b'{"outcome":"applied"}', media_type="application/json")

    return _starlette(receive)


def signed() -> ASGIApp:
    """Verify and parse, and keep nothing."""

    async def receive(request: Request) -> Response:
        body = await request.body()
        if not is_authentic(body, request.headers[HEADER].encode(), (KEY,)):
            return Response(b"", 401)
        json.loads(body)
        return Response(b'{"outcome":"applied"}', media_type="application/json")

    return _starlette(receive)


def _starlette(receive: Callable[[Request], Awaitable[Response]]) -> ASGIApp:
    return Starlette(routes=[Route(PATH, receive, methods=["POST"])])


def straightforward(mirror: Path) -> ASGIApp:
    """Keep each delivery in a commit of its own, as one would write it in an afternoon.

    The same tables and the same durability, the newer timestamp wins; no second thoughts.
    """
    from fastapi import FastAPI  # noqa: PLC0415 - an extra of its own

    database = sqlite3.connect(mirror, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    sellable = {"available", "in_stock", "in stock", "low_stock"}

    async def receive(request: Request) -> Response:
        body = await request.body()
        expected = hmac.new(KEY.encode(), body, hashlib.sha256).hexdigest()
        given = request.headers.get(HEADER, "").split(",")
        if not any(hmac.compare_digest(expected, one) for one in given):
            return JSONResponse({"error": "bad signature"}, 401)
        document = json.loads(body)
        database.execute("BEGIN IMMEDIATE")
        try:
            outcome = keep(document["event"], document["data"], body)
            database.execute("COMMIT")
        except BaseException:
            database.execute("ROLLBACK")
            raise
        return JSONResponse({"outcome": outcome})

    def keep(event: dict[str, str], data: dict[str, Any], body: bytes) -> str:
        variant_id, item_id, value = data["id"], data["item"], data["availability"]
        event_at, now = event["timestamp"], datetime.now(UTC)
        at, settle_at = now.isoformat(), (now + timedelta(seconds=60)).isoformat()
        known = database.execute(
            "SELECT value, sellable, event_at FROM variants WHERE variant_id = ?", (variant_id,)
        ).fetchone()
        outcome = "applied"
        if known is not None and known[2] is not None and known[2] >= event_at:
            outcome = "ignored"
        elif known is not None and known[0] == value:
            outcome = "unchanged"
        kept = database.execute(
            """INSERT INTO deliveries (event_id, content_key, received_at, event_at, action,
                   variant_id, item_id, outcome, rule, body)
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'newer', ?)
               ON CONFLICT DO NOTHING""",
            (event["uuid"], value, at, event_at, event["action"], variant_id, item_id, outcome,
             body),
        )  # fmt: skip
        if not kept.rowcount:
            return "duplicate"
        if outcome == "applied":
            sells = value.strip().casefold() in sellable
            database.execute(
                """INSERT INTO variants (variant_id, item_id, value, sellable, event_at,
                       delivered_at, confirmed_at, changed_at, source, rule, decided_at)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?6, 'webhook', 'newer', ?6)
                   ON CONFLICT (variant_id) DO UPDATE SET
                       value = excluded.value, sellable = excluded.sellable,
                       event_at = excluded.event_at, delivered_at = excluded.delivered_at,
                       confirmed_at = excluded.confirmed_at, changed_at = excluded.changed_at,
                       source = excluded.source, rule = excluded.rule,
                       decided_at = excluded.decided_at""",
                (variant_id, item_id, value, sells, event_at, at),
            )
            database.execute(
                """INSERT INTO change_log (variant_id, item_id, old_availability, availability,
                       old_sellable, sellable, cause, rule, missed, during_downtime, occurred_at,
                       recorded_at)
                   VALUES (?, ?, ?, ?, ?, ?, 'webhook', 'newer', 0, 0, ?, ?)""",
                (variant_id, item_id, known and known[0], value, bool(known and known[1]), sells,
                 event_at, at),
            )  # fmt: skip
        database.execute(
            """INSERT INTO refresh_queue (item_id, settle_at, final_at) VALUES (?1, ?2, ?2)
               ON CONFLICT (item_id) DO UPDATE SET final_at = excluded.final_at""",
            (item_id, settle_at),
        )
        return outcome

    app = FastAPI()
    app.add_api_route(PATH, receive, methods=["POST"])
    served: ASGIApp = app
    return served


async def _serve(app: ASGIApp) -> None:
    server = HttpServer(app, bind_tcp("127.0.0.1", 0, key="benchmark"))
    await server.start()
    print(server.address, flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Serve until killed."""
    kind, mirror = sys.argv[1], Path(sys.argv[2])
    apps: dict[str, Callable[[], ASGIApp]] = {
        "empty": empty,
        "signed": signed,
        "fastapi": lambda: straightforward(mirror),
    }
    uvloop.run(_serve(apps[kind]()))


if __name__ == "__main__":
    main()
