"""A receiver of pushes on a real socket, and a shop that stores the messages."""

from __future__ import annotations

import contextlib
import json
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from standardwebhooks.webhooks import Webhook

if TYPE_CHECKING:
    from conftest import Site

SECRET = "whsec_" + "A1b2" * 10
WRONG_SECRET = "whsec_" + "Z9y8" * 10


class Receiver(ThreadingHTTPServer):
    """Verifies each message, answers with `answer`, and stores the accepted ones in order."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        # Every verified message, taken or not.
        self.messages: list[dict[str, Any]] = []
        self.taken: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.statuses: list[int] = []
        self.headers_sent: dict[str, str] = {}
        self.answer: Callable[[dict[str, Any]], int] = lambda _: 200
        self.lock = threading.Lock()
        self.connections: set[socket.socket] = set()
        self.accepted = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook/token-in-the-path"

    @property
    def changes(self) -> list[dict[str, Any]]:
        """Every change that was taken outside of a full copy, in the order of arrival."""
        return [one for body in self.taken if not body["full"] for one in body["changes"]]

    def taken_ids(self) -> list[str]:
        """Return the ids of the messages that were taken, in the order of arrival."""
        return [one for one, status in zip(self.ids, self.statuses, strict=True) if status < 300]


class _Handler(BaseHTTPRequestHandler):
    server: Receiver
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.server.accepted += 1
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        message = Webhook(SECRET).verify(body, dict(self.headers))
        with self.server.lock:
            self.server.messages.append(message)
            self.server.ids.append(self.headers["webhook-id"])
            status = self.server.answer(message)
            self.server.statuses.append(status)
            if status < 300:
                self.server.taken.append(message)
        self.send_response(status)
        for name, value in self.server.headers_sent.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def receiving(port: int = 0) -> Iterator[Receiver]:
    """Give a receiver; it stops at the end."""
    server = Receiver(port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        # A process that is killed leaves no connection.
        for connection in [*server.connections]:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def configure_push(site: Site, *tables: dict[str, Any]) -> None:
    """Write the configuration of a site with pushes."""
    site.configure()
    lines = [""]
    for table in tables:
        lines.append("[[push]]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    with site.config.open("a") as file:
        file.write("\n".join(lines))


def state_after(bodies: list[dict[str, Any]]) -> dict[int, tuple[str | None, int]]:
    """Return the state of a receiver that applies each message in the order of arrival.

    As the document says: a change that is not newer than the row it has is skipped; a full copy
    replaces everything.
    """
    known: dict[int, tuple[int, str | None, int]] = {}
    seen: set[int] = set()
    for body in bodies:
        if body.get("begin"):
            seen = set()
        for one in body["changes"]:
            variant_id, seq = one["variant_id"], one["seq"] or 0
            before = known.get(variant_id)
            if body["full"] or before is None or seq > before[0]:
                known[variant_id] = seq, one["availability"], one["sellable"]
            seen.add(variant_id)
        if body.get("end"):
            known = {variant_id: row for variant_id, row in known.items() if variant_id in seen}
    return {variant_id: row[1:] for variant_id, row in known.items()}


def state_of(rows: list[dict[str, Any]]) -> dict[int, tuple[str | None, int]]:
    """Return the same of rows of `availability`."""
    return {row["variant_id"]: (row["availability"], row["sellable"]) for row in rows}


def lines_of(text: str) -> list[dict[str, Any]]:
    """Return each JSON document of a text."""
    return [json.loads(line) for line in text.splitlines()]


def cursor_of(db: sqlite3.Connection, name: str) -> dict[str, Any]:
    """Return the stored position of a push."""
    found = db.execute("SELECT * FROM pushes WHERE name = ?", (name,))
    names = [column[0] for column in found.description]
    return dict(zip(names, found.fetchone(), strict=True))
