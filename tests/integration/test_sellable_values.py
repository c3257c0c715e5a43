"""Only listed values are sellable; a reload applies another list to every variant."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from msgspec import json

if TYPE_CHECKING:
    from conftest import Daemon, Site

UNLISTED = "not sold: availability.sellable does not list these values"


def reload(daemon: Daemon, sellable: list[str]) -> None:
    """Give a running daemon another list, and return when the list is in force."""
    before = len(daemon.logged("reloaded"))
    daemon.site.configure(availability={"sellable": sellable})
    daemon.process.send_signal(signal.SIGHUP)
    daemon.site.until(lambda: len(daemon.logged("reloaded")) > before)


def by_config(site: Site) -> list[dict[str, Any]]:
    return site.rows(
        """SELECT variant_id, old_availability, availability, old_sellable, sellable, missed
           FROM changes WHERE cause = 'config' ORDER BY seq"""
    )


def sold(site: Site) -> set[int]:
    return {row["variant_id"] for row in site.rows("SELECT * FROM availability WHERE sellable")}


def test_a_reload_applies_another_list(site: Site) -> None:
    """To each variant that it affects, with a row in the feed, and to no other."""
    daemon = site.serve()
    truth = site.catalogue.current_values()
    new = min(truth)
    daemon.deliver(site.change(new, "Made To Order "))
    truth[new] = "Made To Order "
    in_stock = {one for one, value in truth.items() if value == "in_stock"}
    low_stock = {one for one, value in truth.items() if value == "low_stock"}
    assert sold(site) == in_stock | low_stock
    reload(daemon, ["in_stock", "low_stock", "made to order"])
    assert sold(site) == in_stock | low_stock | {new}
    assert by_config(site) == [
        {
            "variant_id": new,
            "old_availability": "Made To Order ",
            "availability": "Made To Order ",
            "old_sellable": 0,
            "sellable": 1,
            "missed": 0,
        }
    ]
    reload(daemon, ["made to order"])
    assert sold(site) == {new}
    assert {row["variant_id"] for row in by_config(site)[1:]} == in_stock | low_stock
    # The same list again, spelled otherwise, changes nothing.
    rows = len(by_config(site))
    reload(daemon, ["MADE to order"])
    assert len(by_config(site)) == rows
    daemon.stop()
    # What changed while no daemon ran is in force at the start.
    site.configure(availability={"sellable": ["in_stock"]})
    daemon = site.serve(filled=False)
    assert sold(site) == in_stock
    daemon.stop()


def test_an_unlisted_value_is_reported_once(site: Site) -> None:
    """With the number of variants and the remedy; not again after a restart."""
    values = site.catalogue.current_values().values()
    first = {value: [*values].count(value) for value in {*values} - {"in_stock", "low_stock"}}
    daemon = site.serve()
    site.until(lambda: daemon.logged(UNLISTED))
    (line,) = daemon.logged(UNLISTED)
    assert line["variants"] == first
    assert line["level"] == "warning"
    assert "availability.sellable" in line["hint"]
    one, other = sorted(site.catalogue.variants)[:2]
    daemon.deliver(site.change(one, "backordered"))
    daemon.deliver(site.change(other, "backordered"))
    assert site.syncd("reconcile-now").returncode == 0
    site.until(lambda: len(daemon.logged(UNLISTED)) == 2)
    assert daemon.logged(UNLISTED)[1]["variants"] == {"backordered": 2}
    daemon.stop()
    daemon = site.serve(filled=False)
    assert site.syncd("reconcile-now").returncode == 0
    # A reload reports too: it names every value that no earlier line named.
    site.configure(availability={"sellable": ["in_stock"]})
    daemon.process.send_signal(signal.SIGHUP)
    assert "low_stock" in site.catalogue.current_values().values()
    site.until(lambda: daemon.logged(UNLISTED))
    assert [[*line["variants"]] for line in daemon.logged(UNLISTED)] == [["low_stock"]]
    done = site.syncd("status", "--json")
    assert {"backordered", "low_stock"} <= {*json.decode(done.stdout)["mirror"]["unknown_values"]}
    daemon.stop()
