"""The daemon as a process, with real sockets and files, and a simulated Dreamship."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from msgspec import json
from payloads import PAYLOADS, body_of

from syncd.clock import SteadyClock
from syncd.config import Config
from syncd.config.runtime import ActiveConfig
from syncd.core.signature import HEADER, sign
from syncd.demo.fake_dreamship import UPDATED, Event, stale_event
from syncd.dreamship.remote_clock import RemoteClock
from syncd.http_server.server import HttpServer
from syncd.http_server.sockets import bind_tcp
from syncd.store import Database
from syncd.webhook.batch_writer import BatchWriter
from syncd.webhook.endpoint import WebhookEndpoint, application

if TYPE_CHECKING:
    from conftest import Daemon, Site


def one_of(site: Site, value: str = "in_stock", *, items: Collection[int] = ()) -> int:
    """Return a variant that no other test has touched, of none of these items.

    No read is in progress: it could find a change before the delivery arrives.
    """
    site.until(lambda: site.rows("SELECT 1 FROM refresh_queue") == [])
    for variant in site.catalogue.variants.values():
        if variant.item_id in items:
            continue
        if variant.availability == value and len(variant.history) == 1:
            # The next caller gets another variant.
            variant.history.append(variant.history[0])
            return variant.variant_id
    pytest.fail(f"the catalogue has no more {value}")


def is_settled(site: Site, variant_id: int) -> bool:
    return not site.variant(variant_id)["verifying"]


def deliveries(site: Site) -> int:
    return int(site.rows("SELECT count(*) AS n FROM deliveries")[0]["n"])


# Deliveries: all tests of this part share one daemon.


def test_the_first_start_fills_an_empty_mirror(shared: Daemon) -> None:
    """From a configuration alone; afterwards the mirror equals the source."""
    assert shared.site.differences == 0
    assert shared.logged("sweep ended")[0]["result"] == "complete"
    assert shared.site.rows("SELECT count(*) AS n FROM changes WHERE cause = 'read'") == [
        {"n": len(shared.site.catalogue.current_values())}
    ]


def test_an_applied_delivery_is_in_the_file_before_it_is_answered(shared: Daemon) -> None:
    """A reader finds value and change right after the answer."""
    site, variant_id = shared.site, one_of(shared.site)
    event = site.change(variant_id, "out_of_stock")
    assert shared.deliver(event) == "applied"
    row = site.variant(variant_id)
    assert (row["availability"], row["sellable"], row["verifying"]) == ("out_of_stock", 0, 0)
    assert row["source"] == "webhook"
    change = site.rows(
        "SELECT * FROM changes WHERE variant_id = ? ORDER BY seq DESC LIMIT 1", variant_id
    )[0]
    assert (change["old_availability"], change["availability"]) == ("in_stock", "out_of_stock")
    assert (change["old_sellable"], change["sellable"], change["cause"]) == (1, 0, "webhook")
    assert change["missed"] == 0


def test_a_delivery_is_not_answered_before_its_commit(shared: Daemon) -> None:
    """While another process holds the write lock, no delivery is answered."""
    site, event = shared.site, shared.site.change(one_of(shared.site), "low_stock")
    with closing(sqlite3.connect(site.mirror, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with ThreadPoolExecutor(1) as pool:
            delivering = pool.submit(shared.deliver, event)
            with pytest.raises(TimeoutError):
                delivering.result(0.3)
            other.execute("ROLLBACK")
            assert delivering.result(10) == "applied"
    assert site.variant(event.object_id)["availability"] == "low_stock"


def test_a_delivery_with_a_foreign_signature_is_not_stored(shared: Daemon) -> None:
    """401, and no byte of it on the disk."""
    site, variant_id, before = shared.site, one_of(shared.site), deliveries(shared.site)
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
    assert deliveries(site) == before
    assert marker.encode() not in site.bytes_on_disk()
    assert shared.status()["webhooks"]["invalid_signatures_24h"] >= 6


def test_the_same_body_again_is_a_duplicate(shared: Daemon) -> None:
    """The second copy changes nothing, and the first row counts it."""
    # A confirming read that another test caused could find the change before the delivery.
    shared.site.until(lambda: shared.status()["refresh_queue"] == 0)
    site, event = shared.site, shared.site.change(one_of(shared.site), "out_of_stock")
    assert shared.deliver(event) == "applied"
    assert shared.deliver(event) == "duplicate"
    assert site.rows("SELECT duplicates FROM deliveries WHERE event_id = ?", event.uuid) == [
        {"duplicates": 1}
    ]
    changes = site.rows(
        "SELECT seq FROM changes WHERE variant_id = ? AND cause = 'webhook'", event.object_id
    )
    assert len(changes) == 1


def test_concurrent_copies_are_applied_once(shared: Daemon) -> None:
    """However many arrive at the same time."""
    event = shared.site.change(one_of(shared.site), "low_stock")
    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(lambda _: shared.deliver(event), range(16)))
    assert sorted(outcomes) == ["applied", *["duplicate"] * 15]


def test_a_delivery_of_the_known_value_is_unchanged(shared: Daemon) -> None:
    """It writes no change."""
    site, variant_id = shared.site, one_of(shared.site)
    event = Event(UPDATED, "item_variant", variant_id, site.catalogue.now())
    before = site.rows("SELECT max(seq) AS seq FROM changes WHERE variant_id = ?", variant_id)
    assert shared.deliver(event) == "unchanged"
    assert before == site.rows(
        "SELECT max(seq) AS seq FROM changes WHERE variant_id = ?", variant_id
    )


def test_an_order_event_is_ignored_and_not_stored(shared: Daemon) -> None:
    """It contains a customer's address."""
    address = f"Ada Lovelace {uuid.uuid4()}"
    data = {"id": 9, "shipping_address": {"first_name": address}}
    order = Event("order-created", "order", 9, shared.site.catalogue.now(), data=data)
    assert shared.deliver(order) == "ignored"
    assert address.encode() not in shared.site.bytes_on_disk()
    assert shared.site.rows("SELECT body FROM deliveries WHERE event_id = ?", order.uuid) == [
        {"body": None}
    ]


def test_a_delivery_that_is_not_understood_is_quarantined_whole(shared: Daemon) -> None:
    """200, so that Dreamship does not disable the webhook, and every byte is kept."""
    body = b"\x00\xff no JSON at all " + uuid.uuid4().bytes
    answer = shared.post(body)
    assert (answer.status_code, answer.json()) == (200, {"outcome": "quarantined"})
    stored = shared.site.rows("SELECT body, reason FROM deliveries WHERE outcome = 'quarantined'")
    assert body in [row["body"] for row in stored]
    assert all(row["reason"] for row in stored)
    status = shared.status()
    assert status["health"] == "degraded"
    assert any("not understood" in reason for reason in status["reasons"])


def test_an_older_delivery_after_a_newer_one_is_verified(shared: Daemon) -> None:
    """The variant is unsellable until a read decides."""
    site, variant_id = shared.site, one_of(shared.site, "out_of_stock")
    item_id = site.catalogue.variants[variant_id].item_id
    newer = site.change(variant_id, "in_stock")
    assert shared.deliver(newer) == "applied"
    assert site.variant(variant_id)["sellable"] == 1
    site.api.faults.always[item_id] = "503"
    old = stale_event(variant_id, "discontinued", newer.at - timedelta(minutes=5), item_id)
    assert shared.deliver(old) == "verifying"
    conflicting = site.variant(variant_id)
    assert (conflicting["availability"], conflicting["verifying"]) == ("in_stock", 1)
    assert conflicting["sellable"] == 0
    del site.api.faults.always[item_id]
    site.until(partial(is_settled, site, variant_id))
    settled = site.variant(variant_id)
    assert (settled["availability"], settled["sellable"]) == ("in_stock", 1)


def test_a_delivery_without_a_usable_timestamp_is_verified(shared: Daemon) -> None:
    """A read decides whether it is new."""
    site = shared.site
    timestamps: list[str | None] = [None, "yesterday", "2999-01-01T00:00:00Z"]
    output: list[int] = []
    # Different items: the read that one delivery requests must not find the change of the next.
    items: set[int] = set()
    for timestamp in timestamps:
        variant_id = one_of(site, items=items)
        output.append(variant_id)
        items.add(site.catalogue.variants[variant_id].item_id)
        event = site.change(variant_id, "out_of_stock")
        assert shared.deliver(event, timestamp=timestamp) == "verifying"
        assert site.variant(variant_id)["sellable"] == 0
    for variant_id in output:
        site.until(partial(is_settled, site, variant_id))
        assert site.variant(variant_id)["availability"] == "out_of_stock"


def test_a_delivery_need_not_name_its_item(shared: Daemon) -> None:
    """The mirror knows the item of the variant."""
    site, variant_id = shared.site, one_of(shared.site)
    assert shared.deliver(site.change(variant_id, "low_stock"), form="none") == "applied"
    assert site.variant(variant_id)["item_id"] == site.catalogue.variants[variant_id].item_id


def test_an_unknown_variant_is_added(shared: Daemon) -> None:
    """Its delivery counts, and the read that follows adds the names."""
    site = shared.site
    event = site.catalogue.add_variant(min(site.catalogue.names), value="in_stock")
    item_id = site.catalogue.variants[event.object_id].item_id
    later = Event(
        event.action, event.object_type, event.object_id, event.at + timedelta(seconds=1.3)
    )
    assert shared.deliver(later) == "applied"
    row = site.variant(event.object_id)
    assert (row["availability"], row["item_id"], row["sellable"]) == ("in_stock", item_id, 1)
    site.until(lambda: site.variant(event.object_id)["source"] == "webhook")
    assert site.variant(event.object_id)["item_name"] == site.catalogue.names[item_id]


def test_a_variant_without_an_item_is_placed_by_a_sweep(shared: Daemon) -> None:
    """Until then the row has no item."""
    site = shared.site
    item_id = site.catalogue.add_item("An item without a delivery", variants=1)
    (variant,) = site.catalogue.of_item(item_id)
    event = Event(UPDATED, "item_variant", variant.variant_id, site.catalogue.now())
    assert shared.deliver(event, form="none") == "applied"
    assert site.variant(variant.variant_id)["item_id"] is None
    assert site.syncd("reconcile-now").returncode == 0
    assert site.variant(variant.variant_id)["item_id"] == item_id


@pytest.mark.parametrize("path", PAYLOADS, ids=lambda path: path.stem)
def test_every_payload_file_has_its_outcome(shared: Daemon, path: Path) -> None:
    """Posted to a real daemon."""
    payload = json.decode(path.read_bytes())
    # Many files have one uuid; none that is not plain UTF-8 has.
    shared_uuid, new_uuid = b"85fd0f85-6e93-4bba-a0cb-3cd0755ede24", str(uuid.uuid4()).encode()
    answer = shared.post(body_of(payload).replace(shared_uuid, new_uuid))
    assert answer.status_code == 200
    outcome = answer.json()["outcome"]
    if "update" in payload["expected"]:
        assert outcome in {"applied", "unchanged", "verifying"}
    else:
        assert outcome in payload["expected"]


# Requests that are no delivery.


def raw(daemon: Daemon, *parts: bytes) -> bytes:
    """Send bytes as they are, and return what came back until the other side was done."""
    url = httpx.URL(daemon.webhook_url)
    with socket.create_connection((url.host, url.port or 0), timeout=10) as connection:
        for part in parts:
            try:
                connection.sendall(part)
            except (BrokenPipeError, ConnectionResetError):
                break  # it has answered and will not read on
        answer = b""
        while b"\r\n\r\n" not in answer:
            received = connection.recv(65536)
            if not received:
                break
            answer += received
        return answer


def head(daemon: Daemon, signature: str, *lines: str) -> bytes:
    """Return the head of a request."""
    path = httpx.URL(daemon.webhook_url).path
    sent = [f"POST {path} HTTP/1.1", "Host: shop", f"{HEADER}: {signature}", *lines, "", ""]
    return "\r\n".join(sent).encode()


def test_a_body_over_the_limit_gets_413(shared: Daemon) -> None:
    """With a true, a false or no Content-Length."""
    body = b" " * (1_048_576 + 1)
    assert shared.post(body).status_code == 413
    signature = sign(body, (shared.site.key,))
    chunk = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    chunked = raw(shared, head(shared, signature, "Transfer-Encoding: chunked"), chunk)
    assert chunked.startswith(b"HTTP/1.1 413 ")
    # It claims more than it sends: refused before a byte of it is waited for.
    claimed = raw(shared, head(shared, signature, f"Content-Length: {10**9}"), b"{}")
    assert claimed.startswith(b"HTTP/1.1 413 ")
    # It claims less than was signed: the body is cut, so the signature does not match.
    less = raw(shared, head(shared, signature, "Content-Length: 10"), body[:10])
    assert less.startswith(b"HTTP/1.1 401 ")


def test_the_largest_allowed_body_is_accepted(shared: Daemon) -> None:
    """One byte less than too much."""
    order = json.encode({"object": "order", "event": {"action": "order-created"}})
    body = order + b" " * (1_048_576 - len(order))
    assert shared.post(body).json() == {"outcome": "ignored"}


def test_other_methods_get_405(shared: Daemon) -> None:
    """A browser shows what is wrong."""
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


# Starts and stops: each test has its own daemon.


def test_changes_while_the_daemon_was_stopped_are_found(site: Site) -> None:
    """No listener took the deliveries; a reconcile finds the changes."""
    site.serve().stop()
    changed, gone = list(site.catalogue.variants)[:2]
    site.catalogue.set_availability(changed, "made to order")
    site.catalogue.remove_variant(gone)
    added = site.catalogue.add_item()
    assert site.differences > 0
    site.serve()
    done = site.syncd("reconcile-now", "--json")
    assert done.returncode == 0, done.stderr
    assert site.differences == 0
    summary = json.decode(done.stdout)
    assert (summary["changed"], summary["added"], summary["removed"]) == (1, 2, 1)
    assert len(site.rows("SELECT * FROM availability WHERE item_id = ?", added)) == 2


def test_a_start_after_a_long_time_sweeps_by_itself(site: Site) -> None:
    """The last complete sweep is older than `every`."""
    site.configure(reconcile={"every": "60s"})
    site.serve().stop()
    site.catalogue.set_availability(next(iter(site.catalogue.variants)), "made to order")
    site.configure(reconcile={"every": "1s"})
    site.serve()
    site.until(lambda: site.differences == 0)


def test_answered_deliveries_survive_a_kill(site: Site) -> None:
    """Each 200, even in the middle of a storm of deliveries."""
    daemon = site.serve()
    variants = list(site.catalogue.variants)
    answered: list[tuple[str, str]] = []
    go_on = threading.Event()
    go_on.set()

    def storm(number: int) -> None:
        with httpx.Client(trust_env=False) as client:
            while go_on.is_set():
                output = Event(UPDATED, "item_variant", variants[number % 20], site.catalogue.now())
                try:
                    answer = daemon.post(site.body(output), client=client)
                except httpx.HTTPError:
                    return
                if answer.status_code == 200:
                    answered.append((output.uuid, answer.json()["outcome"]))

    with ThreadPoolExecutor(8) as pool:
        for number in range(8):
            pool.submit(storm, number)
        site.until(lambda: len(answered) > 200)
        daemon.kill()
        go_on.clear()
    stored = {row["event_id"] for row in site.rows("SELECT event_id FROM deliveries")}
    assert {event_id for event_id, _ in answered} <= stored
    site.serve()
    assert {event_id for event_id, _ in answered} <= {
        row["event_id"] for row in site.rows("SELECT event_id FROM deliveries")
    }


def test_accepted_requests_are_answered_before_the_stop(site: Site) -> None:
    """SIGTERM during requests: 200 or 503, and never a reset."""
    daemon = site.serve()
    url = httpx.URL(daemon.webhook_url)
    variants = list(site.catalogue.variants)
    bodies = [
        site.body(Event(UPDATED, "item_variant", variant_id, site.catalogue.now()))
        for variant_id in variants
    ]
    connections = [socket.create_connection((url.host, url.port or 0), timeout=10) for _ in bodies]
    try:
        halves = []
        for number, body in enumerate(bodies):
            whole = head(daemon, sign(body, (site.key,)), f"Content-Length: {len(body)}") + body
            # Every second connection has been accepted, and has sent nothing yet.
            cut = len(whole) - 20 if number % 2 else 0
            halves.append((whole[:cut], whole[cut:]))
        for connection, (first, _) in zip(connections, halves, strict=True):
            connection.sendall(first)
        site.until(daemon.status)
        daemon.process.send_signal(signal.SIGTERM)
        site.until(lambda: daemon.logged("stopping"))
        # Longer than uvicorn alone would wait for them, shorter than the daemon does.
        time.sleep(0.14)
        for connection, (_, rest) in zip(connections, halves, strict=True):
            connection.sendall(rest)
        answers = [connection.recv(65536) for connection in connections]
    finally:
        for connection in connections:
            connection.close()
    assert daemon.process.wait(20) == 0
    assert {answer.split()[1] for answer in answers} <= {b"200", b"503"}
    taken = sum(answer.split()[1] == b"200" for answer in answers)
    assert deliveries(site) == taken
    assert taken == len(bodies)


def test_a_reload_applies_a_valid_configuration_only(site: Site) -> None:
    """SIGHUP: a faulty one is reported and not applied."""
    daemon = site.serve()
    body = site.body(site.change(next(iter(site.catalogue.variants)), "low_stock"))
    assert daemon.post(body, key="the_second_key").status_code == 401
    site.configure(dreamship={"api_keys": [site.key, "the_second_key"]})
    daemon.process.send_signal(signal.SIGHUP)
    site.until(lambda: daemon.logged("reloaded"))
    assert daemon.post(body, key="the_second_key").status_code == 200
    assert daemon.post(body).status_code == 200
    site.configure(dreamship={"api_keys": ["the_third_key"]}, retention={"deliveries": "soon"})
    daemon.process.send_signal(signal.SIGHUP)
    broken = "the new configuration is invalid; the old one stays in force"
    site.until(lambda: daemon.logged(broken))
    assert "retention.deliveries" in daemon.logged(broken)[0]["error"]
    assert daemon.post(body, key="the_third_key").status_code == 401
    assert daemon.post(body, key="the_second_key").status_code == 200
    daemon.stop()


def test_a_second_daemon_is_refused(site: Site) -> None:
    """Exit 5 with the pid of the first, which goes on."""
    daemon = site.serve()
    second = site.syncd("serve")
    assert second.returncode == 5, second.stderr
    assert f"pid {daemon.process.pid}" in second.stderr
    assert "Traceback" not in second.stderr
    event = site.change(next(iter(site.catalogue.variants)), "low_stock")
    assert daemon.deliver(event) == "applied"


def test_a_second_daemon_leaves_the_sockets_of_the_first(site: Site) -> None:
    """The control socket still answers."""
    site.serve().deliver_first()
    assert site.syncd("serve").returncode == 5
    assert site.syncd("status").returncode == 0


def test_without_a_configuration_the_start_fails_with_a_hint(idle: Site) -> None:
    """Exit 2 and the places that were searched."""
    idle.config.unlink()
    done = idle.syncd("serve", config=False)
    assert done.returncode == 2
    assert "`syncd setup` asks and writes one" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_signal_during_the_start_is_exit_0(idle: Site, number: str) -> None:
    """Before the daemon has read its configuration."""
    program = f"""
import os, signal
from syncd.cli import run, serve
serve.load_for_daemon = lambda _: os.kill(os.getpid(), signal.{number})
raise SystemExit(run(["serve"]))
"""
    done = subprocess.run([sys.executable, "-c", program], env=idle.environ, check=False)
    assert done.returncode == 0


def test_without_a_key_the_start_fails(idle: Site) -> None:
    """It could verify and read nothing."""
    idle.configure(dreamship={"api_keys": []})
    done = idle.syncd("serve")
    assert done.returncode == 2
    assert "api key" in done.stderr
    assert not idle.mirror.exists()


def test_log_and_mirror_contain_no_key(site: Site) -> None:
    """Also in the log and in the mirror."""
    site.configure(log={"level": "debug"})
    daemon = site.serve(environ={"SYNCD_DREAMSHIP_API_KEYS": f"{site.key},old_key_0123456789"})
    daemon.deliver(site.change(next(iter(site.catalogue.variants)), "low_stock"))
    daemon.post(b"no JSON")
    daemon.post(b"no JSON", key="wrong")
    site.api.faults.refused_with = 401
    assert site.syncd("reconcile-now").returncode == 4
    page = httpx.get(f"{daemon.admin_url}/status.json", trust_env=False).content
    daemon.stop()
    found = site.bytes_on_disk() + daemon.log.read_bytes() + page
    for secret in (site.key, "old_key_0123456789"):
        assert secret.encode() not in found


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


def test_an_address_in_use_is_named(idle: Site) -> None:
    """Exit 2 with its configuration key."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        idle.configure(webhook={"listen": f"127.0.0.1:{taken.getsockname()[1]}"})
        done = idle.syncd("serve")
    assert done.returncode == 2
    assert "webhook.listen" in done.stderr


def test_it_can_listen_on_a_unix_socket(site: Site) -> None:
    """For a web server on the same host, perhaps of another user."""
    path = site.folder / "web.sock"
    site.configure(webhook={"listen": f"unix:{path}"})
    daemon = site.serve(filled=False)
    assert daemon.webhook_url.startswith(f"unix:{path}")
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
        assert client.get("http://syncd/healthz").status_code == 200
    assert path.stat().st_mode & 0o777 == 0o666
    daemon.stop(signal.SIGINT)
    assert daemon.logged("stopped")


def test_a_late_body_gets_408(database: Database) -> None:
    """On a real socket; here after 2 s instead of 10 s."""

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
    before = deliveries(shared.site)
    url = httpx.URL(shared.webhook_url)
    for _ in range(5):
        with socket.create_connection((url.host, url.port or 0)) as connection:
            connection.sendall(head(shared, "0" * 64, "Content-Length: 100") + b"{")
    assert deliveries(shared.site) == before
    assert not [line for line in shared.lines() if line["level"] == "error"]


def test_a_refused_key_is_reported_until_a_reload_has_a_valid_one(site: Site) -> None:
    """Reading stops, and resumes by itself."""
    site.configure(dreamship={"api_keys": ["wrong", site.key]})
    daemon = site.serve(filled=False)
    site.until(lambda: daemon.status()["health"] == "failing")
    assert any("refuses the api key" in reason for reason in daemon.status()["reasons"])
    calls = len(site.api.calls)
    assert daemon.post(site.body(site.change(next(iter(site.catalogue.variants)), "x"))).is_success
    site.configure(dreamship={"api_keys": [site.key]})
    daemon.process.send_signal(signal.SIGHUP)
    site.until(lambda: daemon.logged("reloaded"))
    site.until(lambda: site.differences == 0)
    assert not any("refuses" in reason for reason in daemon.status()["reasons"])
    assert calls <= 3


def test_a_reload_with_another_wrong_key_is_reported_at_once(site: Site) -> None:
    """Not only after the next sweep hours later."""
    site.configure(dreamship={"api_keys": ["wrong", site.key]})
    daemon = site.serve(filled=False)
    site.until(lambda: len(daemon.logged("Dreamship refuses the api key")) == 1)
    site.configure(dreamship={"api_keys": ["another_wrong_one", site.key]})
    daemon.process.send_signal(signal.SIGHUP)
    site.until(lambda: len(daemon.logged("Dreamship refuses the api key")) == 2)
    assert daemon.status()["health"] == "failing"


def test_reloads_do_not_delay_the_next_sweep(site: Site) -> None:
    """Else a host that reloads often would never sweep."""
    daemon = site.serve()
    site.until(lambda: daemon.logged("sweep ended"))

    def reload() -> str:
        before = len(daemon.logged("reloaded"))
        daemon.process.send_signal(signal.SIGHUP)
        site.until(lambda: len(daemon.logged("reloaded")) > before)
        next_at: str = daemon.status()["sweep"]["next_at"]
        return next_at

    first = reload()
    assert reload() <= first
    site.configure(reconcile={"every": "10m"})
    sooner = reload()
    assert sooner < first
    site.configure(reconcile={"every": "6h"})
    assert reload() == sooner
