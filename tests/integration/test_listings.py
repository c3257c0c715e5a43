"""The SKUs of the shop in a real daemon: their file, their states, and the items that they need."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import json

from syncd.config import load
from syncd.daemon import listings, listings_watch
from syncd.daemon.listings_watch import ListingsWatch
from syncd.daemon.services import Services

if TYPE_CHECKING:
    from collections.abc import Iterable

    from conftest import Daemon, Site

NOWHERE = 999_999


def write(site: Site, rows: Iterable[tuple[str, object]]) -> Path:
    """Write the file as its documentation says: beside the old one, then renamed over it."""
    path = site.folder / "listings.csv"
    lines = "".join(f"{sku};{variant_id};Title of {sku}\n" for sku, variant_id in rows)
    beside = path.with_suffix(".new")
    beside.write_text(f"\ufeffSKU;variant_id;title\n{lines}")
    beside.replace(path)
    site.configure(catalog={"listings": str(path)})
    return path


def reload(daemon: Daemon) -> None:
    before = len(daemon.logged("reloaded"))
    daemon.process.send_signal(signal.SIGHUP)
    daemon.site.until(lambda: len(daemon.logged("reloaded")) > before)


def reasons(daemon: Daemon) -> str:
    return " ".join(daemon.status()["reasons"])


def states(site: Site) -> dict[str, str | None]:
    """Return the reason of each SKU, None for a sellable one."""
    return {row["sku"]: row["reason"] for row in site.rows("SELECT sku, reason FROM listings")}


def first_variants(site: Site, value: str) -> list[int]:
    return [one for one, has in site.catalogue.current_values().items() if has == value]


def test_each_sku_says_whether_and_why_not(site: Site) -> None:
    """Every reason, in the view, in the command, in the status and in the metrics."""
    unsold = max(site.catalogue.names)
    for variant in site.catalogue.of_item(unsold):
        site.catalogue.set_availability(variant.variant_id, "in_stock")
    blocked = site.catalogue.of_item(unsold)[0].variant_id
    site.catalogue.details[unsold] = {"release_status": " Retired"}
    elsewhere = [
        one for one in first_variants(site, "in_stock")
        if site.catalogue.variants[one].item_id != unsold
    ]  # fmt: skip
    sold, moved, late, gone = elsewhere[:4]
    site.catalogue.set_availability(moved, "out_of_stock")
    site.configure(availability={"blocked_item_statuses": ["retired"]})
    write(
        site,
        [
            ("A", sold),
            ("A2", sold),
            ("B", moved),
            ("C", blocked),
            ("D", late),
            ("E", gone),
            ("F", NOWHERE),
        ],
    )
    daemon = site.serve()
    expected: dict[str, str | None] = {
        "A": None,
        "A2": None,
        "B": "value",
        "C": "item",
        "D": None,
        "E": None,
        "F": "unknown",
    }
    assert states(site) == expected
    (row,) = site.rows("SELECT * FROM listings WHERE sku = 'F'")
    assert (row["known"], row["sellable"], row["removed"], row["verifying"]) == (0, 0, 0, 0)
    (row,) = site.rows("SELECT * FROM listings WHERE sku = 'C'")
    assert (row["title"], row["availability"], row["known"]) == ("Title of C", "in_stock", 1)
    # A delivery without a usable time only puts a variant in doubt.
    site.api.faults.down = True
    daemon.deliver(site.catalogue.set_availability(late, "out_of_stock"), timestamp=None)
    assert states(site)["D"] == "verifying"
    site.api.faults.down = False
    site.catalogue.remove_variant(gone)
    assert site.syncd("reconcile-now").returncode == 0
    # The read that settles the delivery may come a second later.
    site.until(lambda: states(site) == expected | {"D": "value", "E": "removed"})
    listings = daemon.status()["listings"]
    assert (listings["total"], listings["sellable"]) == (7, 2)
    assert listings["unsellable"] == {
        "unknown": 1,
        "removed": 1,
        "verifying": 0,
        "item": 1,
        "value": 2,
    }
    shown = json.decode(site.syncd("listings", "--json", "--unsellable").stdout)["listings"]
    assert {one["sku"]: one["reason"] for one in shown} == {
        sku: reason for sku, reason in states(site).items() if reason
    }
    text = site.syncd("listings").stdout
    assert max(map(len, text.splitlines())) <= 80
    assert "no: status of its item" in text
    assert "`item`" in site.syncd("explain", str(blocked)).stdout


def test_the_command_names_skus_that_are_not_listed(site: Site) -> None:
    """The exit code is 1 for a SKU that is not in the file, and without any listings."""
    site.serve()
    missing = site.syncd("listings")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "set catalog.listings" in missing.stderr
    write(site, [("A", min(site.catalogue.variants)), ("B", NOWHERE)])
    site.close()
    site.serve()
    one = site.syncd("listings", "--sku", "A", "--sku", "Z", "--json")
    assert one.returncode == 1
    document = json.decode(one.stdout)
    assert [row["sku"] for row in document["listings"]] == ["A"]
    assert document["not_listed"] == ["Z"]
    unknown = site.syncd("listings", "--unknown")
    assert unknown.returncode == 0
    assert "B" in unknown.stdout
    assert "leads to no variant" in unknown.stdout


def test_an_invalid_file_changes_nothing_and_is_reported(site: Site) -> None:
    """Each error with its line, in the log, the status, doctor and check-config."""
    path = write(site, [("A", min(site.catalogue.variants))])
    daemon = site.serve()
    before = site.rows("SELECT * FROM listings")
    path.write_text("sku,variant_id\nA,1\nA,2\nB,\n")
    reload(daemon)
    (logged,) = daemon.logged("the listings are invalid; the old ones stay in force")
    assert logged["errors"] == [
        "line 3: sku 'A' occurs in line 2 too",
        "line 4: sku 'B' has no variant_id",
    ]
    assert site.rows("SELECT * FROM listings") == before
    assert "catalog.listings is invalid: line 3" in reasons(daemon)
    checked = site.syncd("check-config")
    assert checked.returncode == 2
    assert "catalog.listings: line 4: sku 'B' has no variant_id" in checked.stderr
    assert "catalog.listings: line 3" in site.syncd("doctor").stdout
    path.unlink()
    reload(daemon)
    assert site.rows("SELECT * FROM listings") == before
    assert "it cannot be read: No such file" in reasons(daemon)
    path.write_text("sku,variant_id\nB,2\n")
    reload(daemon)
    assert states(site) == {"B": "unknown"}
    assert "catalog.listings" not in reasons(daemon)
    site.configure(catalog={"listings": ""})
    reload(daemon)
    assert site.rows("SELECT * FROM listings") == []
    assert daemon.status()["listings"] is None


def test_a_sku_that_leads_nowhere_is_reported_after_a_whole_sweep(site: Site) -> None:
    """Before that, the mirror may just not have read it yet."""
    gone = min(site.catalogue.variants)
    write(site, [("GOOD", max(site.catalogue.variants)), ("TYPO", NOWHERE), ("GONE", gone)])
    daemon = site.serve()
    site.until(
        lambda: "1 of your SKUs leads to no variant: TYPO;" in " ".join(daemon.status()["reasons"])
    )
    site.catalogue.remove_variant(gone)
    assert site.syncd("reconcile-now").returncode == 0
    site.until(
        lambda: (
            "2 of your SKUs lead to no variant: GONE, TYPO;" in " ".join(daemon.status()["reasons"])
        )
    )
    assert daemon.status()["health"] == "degraded"


def test_only_items_of_listings_are_mirrored(site: Site) -> None:
    """One look through the catalogue finds them; then a sweep reads them and lists nothing."""
    items = sorted(site.catalogue.names)
    wanted = items[1]
    variant_id = site.catalogue.of_item(wanted)[0].variant_id
    write(site, [("A", variant_id)])
    site.configure(catalog={"listed_only": True})
    daemon = site.serve()
    site.until(lambda: daemon.status()["mirror"]["items"] == 1)
    mirrored = {row["item_id"] for row in site.rows("SELECT item_id FROM availability")}
    assert mirrored == {wanted}
    assert len(site.rows("SELECT * FROM availability")) == len(site.catalogue.of_item(wanted))
    assert not site.rows("SELECT * FROM changes WHERE item_id != ?", wanted)
    result = json.decode(site.syncd("reconcile-now", "--json").stdout)
    assert (result["items"], result["calls"]) == (1, 1)
    refused = site.syncd("reconcile-now", "--item", str(items[0]))
    assert refused.returncode == 2
    assert f"not mirrored, so not read: {items[0]}" in refused.stderr
    # A delivery about another item is ignored.
    other = site.catalogue.of_item(items[0])[0].variant_id
    assert daemon.deliver(site.change(other, "out_of_stock")) == "ignored"
    # Another SKU needs another item, which the mirror does not have.
    write(site, [("A", variant_id), ("B", other)])
    reload(daemon)
    site.until(lambda: states(site) == {"A": site.variant(variant_id)["reason"], "B": "value"})
    # A SKU that is no longer listed gives up its item.
    write(site, [("B", other)])
    reload(daemon)
    site.until(
        lambda: (
            site.rows("SELECT * FROM availability WHERE removed = 0 AND item_id = ?", wanted) == []
        )
    )
    site.until(lambda: daemon.status()["mirror"]["items"] >= 1)


def test_listed_only_never_empties_a_mirror_without_listings(site: Site) -> None:
    """An invalid file at the first start is no reason to mirror nothing."""
    path = write(site, [])
    site.configure(catalog={"listed_only": True})
    daemon = site.serve()
    assert site.differences == 0
    assert "it has no listing" in reasons(daemon)
    path.unlink()
    reload(daemon)
    assert site.differences == 0


def test_a_changed_file_is_loaded_within_a_minute(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a signal, and only if it has changed."""
    variant_id = min(site.catalogue.variants)
    path = write(site, [("A", variant_id)])
    monkeypatch.setattr(listings_watch, "CHECK_EVERY_S", 0.01)
    monkeypatch.setattr(listings, "REST_S", 0.5)

    async def story() -> tuple[list[str], int]:
        async with await Services.open(load(site.config, {})) as services:
            watch = asyncio.create_task(ListingsWatch(services).run())
            seen = sorted(states(site))
            write(site, [("A", variant_id), ("B", variant_id)])
            await asyncio.to_thread(site.until, lambda: len(states(site)) == 2)
            before = services.database.commits
            os.utime(path, (1, 1))
            await asyncio.sleep(0.1)
            watch.cancel()
            return seen, services.database.commits - before

    assert asyncio.run(story()) == (["A"], 0)


def test_a_blocked_item_goes_off_sale_with_rows_in_the_feed(site: Site) -> None:
    """By a read, by a reload, and back again."""
    site.configure(availability={"blocked_item_statuses": ["retired"]})
    daemon = site.serve()
    item_id = min(site.catalogue.names)
    variants = {one.variant_id for one in site.catalogue.of_item(item_id)}
    sold = {one for one in variants if site.variant(one)["sellable"]}
    assert sold
    newest = site.rows("SELECT max(seq) AS seq FROM changes")[0]["seq"]

    def feed() -> list[tuple[Any, ...]]:
        rows = site.rows("SELECT * FROM changes WHERE seq > ? ORDER BY seq", newest)
        return [(row["variant_id"], row["sellable"], row["cause"], row["missed"]) for row in rows]

    site.catalogue.details[item_id] = {"operational_status": "RETIRED"}
    assert site.syncd("reconcile-now", "--item", str(item_id)).returncode == 0
    assert {one for one in variants if site.variant(one)["sellable"]} == set()
    assert sorted(feed()) == [(one, 0, "read", 0) for one in sorted(sold)]
    assert {site.variant(one)["reason"] for one in sold} == {"item"}
    site.configure(availability={"blocked_item_statuses": []})
    reload(daemon)
    assert {one for one in variants if site.variant(one)["sellable"]} == sold
    assert sorted(feed()[len(sold) :]) == [(one, 1, "config", 0) for one in sorted(sold)]
    # A delivery does not lift it, and a new status of another kind neither.
    site.configure(availability={"blocked_item_statuses": ["Retired"]})
    reload(daemon)
    one = min(sold)
    assert daemon.deliver(site.change(one, "in_stock")) in {"unchanged", "applied"}
    assert not site.variant(one)["sellable"]
    del site.catalogue.details[item_id]
    assert site.syncd("reconcile-now", "--item", str(item_id)).returncode == 0
    assert site.variant(one)["sellable"]


def test_costs_statuses_and_countries_are_stored_once(site: Site) -> None:
    """As received; a read that changes none of them writes no row."""
    item_id = min(site.catalogue.names)
    variant_id = site.catalogue.of_item(item_id)[0].variant_id
    site.catalogue.costs[variant_id] = 12.25
    daemon = site.serve()
    row = site.variant(variant_id)
    assert (row["cost"], row["basic_cost"]) == ("12.25", "8.75")
    assert (row["item_release_status"], row["item_operational_status"]) == ("released", "normal")
    assert json.decode(row["countries"]) == ["US", "CA", "DE"]
    newest = site.rows("SELECT max(seq) AS seq FROM changes")
    site.catalogue.costs[variant_id] = "13.00"
    site.catalogue.details[item_id] = {"release_status": None, "ship_zones": "unknown"}
    assert site.syncd("reconcile-now", "--item", str(item_id)).returncode == 0
    row = site.variant(variant_id)
    assert row["cost"] == "13.00"
    assert row["item_release_status"] == "released"
    assert json.decode(row["countries"]) == ["US", "CA", "DE"]
    # A cost is no change of availability.
    assert site.rows("SELECT max(seq) AS seq FROM changes") == newest
    site.catalogue.costs[variant_id] = "14"
    daemon.deliver(site.change(variant_id, "in_stock"))
    assert site.variant(variant_id)["cost"] == "14"


def test_a_new_status_is_reported_once(site: Site) -> None:
    """The statuses of the first catalogue are no news."""
    daemon = site.serve()
    site.until(lambda: site.rows("SELECT * FROM state WHERE key = 'reported_release_status'"))
    item_id = min(site.catalogue.names)
    site.catalogue.details[item_id] = {"release_status": "sunset"}
    for _ in range(2):
        assert site.syncd("reconcile-now").returncode == 0
    site.until(lambda: daemon.logged("items have a new status"))
    (logged,) = daemon.logged("items have a new status")
    assert (logged["kind"], logged["items"]) == ("release_status", {"sunset": 1})
