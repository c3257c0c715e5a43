"""Receive syncd's pushes: turn products off, and on again only what this program turned off.

Copy this file; it needs Python and the package `standardwebhooks`. Write your shop's own calls into
`is_on_sale` and `put_on_sale`. Then run it behind your web server's TLS:

    SYNCD_PUSH_SECRET=whsec_... python receiver.py --port 9000 --database receiver.db

To see it work before you have such calls, put some SKUs of your `catalog.listings` into its own
table, and look at the column `on_sale`:

    sqlite3 receiver.db "INSERT INTO products VALUES ('TEE-M', 1)"

It takes one message at a time, so that the order stays. It answers 204 once a message is applied;
after any other answer, syncd sends the same message again.
"""

from __future__ import annotations

import argparse
import logging
import os
import sqlite3
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

# A batch has at most 1,000 changes; syncd bounds their texts to about 1 MB.
MAX_BODY_BYTES = 16 * 1024 * 1024

TABLES = """
CREATE TABLE IF NOT EXISTS variants (       -- the newest change of each variant
    variant_id INTEGER PRIMARY KEY, seq INTEGER NOT NULL, copy INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS turned_off (sku TEXT PRIMARY KEY);   -- by this program
CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS products (       -- stands for your shop
    sku TEXT PRIMARY KEY, on_sale INTEGER NOT NULL);
"""

_log = logging.getLogger(__name__)


class Receiver:
    """Applies messages to the shop. Each statement is stored at once."""

    def __init__(self, path: str) -> None:
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.executescript(TABLES)

    def is_on_sale(self, sku: str) -> bool:
        """Ask your shop here."""
        found = self.db.execute("SELECT on_sale FROM products WHERE sku = ?", (sku,)).fetchone()
        return found is not None and bool(found[0])

    def put_on_sale(self, sku: str, *, on_sale: bool) -> None:
        """Call your shop here. The same call may come twice."""
        self.db.execute("UPDATE products SET on_sale = ? WHERE sku = ?", (on_sale, sku))

    def apply(self, message_id: str, message: Mapping[str, Any]) -> None:
        """Apply a message; after an error syncd sends it again, and each step may be repeated."""
        if message.get("test") or self._state("message") == message_id:
            return  # a test, or the answer to the last message was lost
        if self._state("mirror") != message["mirror"]:
            # Another mirror counts its changes from 1 again; it begins with a full copy.
            self.db.execute("DELETE FROM variants")
            self._put_state("mirror", message["mirror"])
        if message.get("begin"):
            self._put_state("copy", str(int(self._state("copy") or 0) + 1))
        for change in message["changes"]:
            self._apply_change(change, is_copy=message["full"])
        if message.get("end"):
            # A variant that the copy did not have is not listed any more: this program forgets it.
            self.db.execute("DELETE FROM variants WHERE copy != ?", (self._state("copy"),))
        self._put_state("message", message_id)

    def _apply_change(self, change: Mapping[str, Any], *, is_copy: bool) -> None:
        variant_id, seq = change["variant_id"], change["seq"] or 0
        row = self.db.execute("SELECT seq FROM variants WHERE variant_id = ?", (variant_id,))
        known = row.fetchone()
        if not is_copy and known is not None and seq <= known[0]:
            return  # a full copy had a newer state of the variant
        for sku in change["skus"]:
            if change["sellable"]:
                self._turn_on(sku)
            else:
                self._turn_off(sku)
        self.db.execute(
            "INSERT OR REPLACE INTO variants VALUES (?, ?, ?)",
            (variant_id, seq, int(self._state("copy") or 0)),
        )

    def _turn_off(self, sku: str) -> None:
        if self.is_on_sale(sku):
            # Before the call: after a crash, nobody else would know who turned it off.
            self.db.execute("INSERT OR IGNORE INTO turned_off VALUES (?)", (sku,))
            self.put_on_sale(sku, on_sale=False)

    def _turn_on(self, sku: str) -> None:
        found = self.db.execute("SELECT 1 FROM turned_off WHERE sku = ?", (sku,)).fetchone()
        if found is None:
            return  # a product that a person turned off stays off
        self.put_on_sale(sku, on_sale=True)
        self.db.execute("DELETE FROM turned_off WHERE sku = ?", (sku,))

    def _state(self, key: str) -> str | None:
        row = self.db.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def _put_state(self, key: str, value: str) -> None:
        self.db.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (key, value))


class Server(HTTPServer):
    """Takes one request at a time."""

    def __init__(self, port: int, secret: str, receiver: Receiver) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.webhook = Webhook(secret)
        self.receiver = receiver


class Handler(BaseHTTPRequestHandler):
    """Verifies a request, and applies it."""

    server: Server
    # A connection that sends nothing must not stop all others.
    timeout = 10

    def do_POST(self) -> None:
        """Answer 204, 401 for a wrong signature, or 500: then syncd sends it again."""
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or int(length) > MAX_BODY_BYTES:
            self._answer(413)
            return
        try:
            body = self.rfile.read(int(length))
            message = self.server.webhook.verify(body, dict(self.headers))
        except (WebhookVerificationError, ValueError):
            self._answer(401)
            return
        try:
            self.server.receiver.apply(self.headers["webhook-id"], message)
        except Exception:
            _log.exception("a message could not be applied")
            self._answer(500)
            return
        self._answer(204)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


def main() -> None:
    """Receive messages until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--database", default="receiver.db")
    arguments = parser.parse_args()
    receiver = Receiver(arguments.database)
    with Server(arguments.port, os.environ["SYNCD_PUSH_SECRET"], receiver) as server:
        _log.warning("receiving on port %s", server.server_port)
        server.serve_forever()


if __name__ == "__main__":
    main()
