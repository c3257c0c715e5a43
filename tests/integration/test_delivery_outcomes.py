"""Deliveries to a running daemon: their outcomes, and the rows that a shop reads afterwards."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from msgspec import json
from payloads import PAYLOADS, body_of

from syncd.demo.fake_dreamship import UPDATED, Event, stale_event

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
    # Many files share one uuid, all of them in plain UTF-8; each test needs a new one.
    shared_uuid, new_uuid = b"85fd0f85-6e93-4bba-a0cb-3cd0755ede24", str(uuid.uuid4()).encode()
    answer = shared.post(body_of(payload).replace(shared_uuid, new_uuid))
    assert answer.status_code == 200
    outcome = answer.json()["outcome"]
    if "update" in payload["expected"]:
        assert outcome in {"applied", "unchanged", "verifying"}
    else:
        assert outcome in payload["expected"]
