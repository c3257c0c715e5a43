"""The answers of the webhook's listener: 401, 404, 405, 408, 413, 503, and the health check.

test_delivery_outcomes has 200 with each outcome, and test_disk_faults has the causes of 503.
"""

from __future__ import annotations

import asyncio
import resource
import uuid
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import httpx
from msgspec import json
from raw_requests import dial, exchange, head

from syncd.clock import SteadyClock
from syncd.config import Config
from syncd.config.runtime import ActiveConfig
from syncd.core.signature import HEADER, sign
from syncd.demo.fake_dreamship import UPDATED, Event
from syncd.dreamship.remote_clock import RemoteClock
from syncd.http_server.server import HttpServer
from syncd.http_server.sockets import bind_tcp
from syncd.store import Database
from syncd.webhook.batch_writer import BatchWriter
from syncd.webhook.endpoint import WebhookEndpoint, application

if TYPE_CHECKING:
    from conftest import Daemon, Site


def test_a_delivery_with_a_foreign_signature_is_not_stored(shared: Daemon) -> None:
    """401, and no byte of it on the disk."""
    site, before = shared.site, shared.site.delivery_count
    variant_id = min(site.catalogue.variants)
    marker = str(uuid.uuid4())
    body = site.body(Event(UPDATED, "item_variant", variant_id, site.catalogue.now(), marker))
    assert shared.post(body, key="another_key").status_code == 401
    for header in ("", "0" * 64, sign(body, (site.key,))[:-1], "ü"):
        answer = httpx.post(
            shared.webhook_url,
            content=body,
            headers=[(HEADER.encode(), header.encode())],
            trust_env=False,
        )
        assert answer.status_code == 401
    assert httpx.post(shared.webhook_url, content=body, trust_env=False).status_code == 401
    assert site.delivery_count == before
    assert marker.encode() not in site.bytes_on_disk()
    assert shared.status()["webhooks"]["invalid_signatures_24h"] >= 6


def test_a_body_over_the_limit_gets_413(shared: Daemon) -> None:
    """With a true, a false or no Content-Length."""
    body = b" " * (1_048_576 + 1)
    assert shared.post(body).status_code == 413
    chunk = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    signed = f"{HEADER}: {sign(body, (shared.site.key,))}"
    assert exchange(shared, head(shared, signed, "Transfer-Encoding: chunked"), chunk) == [b"413"]
    # The length is more than the bytes: the refusal does not wait for a byte of the body.
    assert exchange(shared, head(shared, signed, f"Content-Length: {10**9}"), b"{}") == [b"413"]
    # The length is less than the signed bytes: the body is cut, so the signature does not match.
    assert exchange(shared, head(shared, signed, "Content-Length: 10"), body[:10]) == [b"401"]


def test_the_largest_allowed_body_is_accepted(shared: Daemon) -> None:
    """One byte less than too much."""
    order = json.encode({"object": "order", "event": {"action": "order-created"}})
    body = order + b" " * (1_048_576 - len(order))
    assert shared.post(body).json() == {"outcome": "ignored"}


def test_other_methods_get_405(shared: Daemon) -> None:
    """The answer names the method, and another path is 404."""
    answer = httpx.get(shared.webhook_url, trust_env=False)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    elsewhere = shared.webhook_url.removesuffix("/webhooks/dreamship")
    assert httpx.post(elsewhere + "/", trust_env=False).status_code == 404


def test_healthz_shows_no_details(shared: Daemon) -> None:
    """It is for load balancers; the admin listener has the reasons."""
    answer = httpx.get(shared.webhook_url.replace("/webhooks/dreamship", "/healthz"))
    assert answer.status_code == 200
    status = httpx.get(f"{shared.admin_url}/status.json", trust_env=False).json()
    assert status.keys() == shared.status().keys()


def test_a_full_disk_gets_503(site: Site) -> None:
    """With Retry-After, and 200 as soon as writes succeed."""
    daemon = site.serve()
    pid = daemon.process.pid
    variants = iter(site.catalogue.variants)
    healthz = daemon.webhook_url.replace("/webhooks/dreamship", "/healthz")
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    wal = site.mirror.with_name(site.mirror.name + "-wal")
    # The kernel refuses every write past this size, as it does on a full disk.
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (max(8192, daemon.log.stat().st_size), before[1]))
    assert wal.stat().st_size > 8192
    events = [site.change(next(variants), "low_stock") for _ in range(3)]
    for event in events:
        answer = daemon.post(site.body(event))
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
    assert httpx.get(healthz, trust_env=False).status_code == 503
    resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
    for event in events:
        assert daemon.deliver(event) in {"applied", "unchanged", "verifying"}
    assert httpx.get(healthz, trust_env=False).status_code == 200
    daemon.stop()


def test_a_late_body_gets_408(database: Database) -> None:
    """On a real socket; here after 0.2 s instead of 10 s."""

    async def scenario() -> tuple[bytes, int]:
        now = partial(datetime.now, UTC)
        clock = SteadyClock()
        batch_writer = BatchWriter(database, clock, RemoteClock(clock), ActiveConfig(Config()))
        webhook = WebhookEndpoint(batch_writer, lambda: ["key"], now, max_body_bytes=lambda: 1000)
        bound = bind_tcp("127.0.0.1", 0, key="webhook.listen")
        server = HttpServer(
            application(webhook, "/hook", lambda: True),
            bound,
            arrival_s=0.2,
            refusals=webhook.refusals,
        )
        await server.start()
        reader, writer = await asyncio.open_connection(*bound.getsockname())
        writer.write(f"POST /hook HTTP/1.1\r\nHost: x\r\n{HEADER}: 0\r\n".encode())
        writer.write(b"Content-Length: 100\r\n\r\n{")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        await server.drain()
        await server.stop()
        await batch_writer.close()
        return answer, webhook.answered["408"]

    answer, counted = asyncio.run(scenario())
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert counted == 1


def test_an_aborted_request_has_no_effect(shared: Daemon) -> None:
    """Half a body and a closed connection: nothing is stored or logged as an error."""
    before = shared.site.delivery_count
    for _ in range(5):
        with dial(shared) as connection:
            connection.sendall(head(shared, f"{HEADER}: {'0' * 64}", "Content-Length: 100") + b"{")
    assert shared.site.delivery_count == before
    assert not [line for line in shared.lines() if line["level"] == "error"]
