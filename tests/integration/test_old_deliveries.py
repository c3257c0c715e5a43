"""Genuine deliveries that an attacker stored and sends again after Dreamship's last retry."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Site


def stored(site: Site, variant_id: int, value: str, days: float) -> bytes:
    """Return the body of an event of some days ago; the truth is what it was before."""
    truth = site.catalogue.variants[variant_id].availability
    event = site.catalogue.set_availability(variant_id, value)
    body = site.body(replace(event, at=event.at - timedelta(days=days)))
    site.catalogue.set_availability(variant_id, truth)
    return body


def test_an_old_delivery_makes_nothing_sellable_in_a_new_mirror(site: Site) -> None:
    """Dreamship is unreachable, and a genuine body from 180 days ago says `in_stock`."""
    variant_id = min(site.catalogue.variants)
    site.api.faults.down = True
    daemon = site.serve(filled=False)
    assert daemon.post(stored(site, variant_id, "in_stock", 180)).json()["outcome"] == "verifying"
    assert site.variant(variant_id)["sellable"] == 0
    # A current delivery has the same value, but only a read ends the verification.
    assert daemon.deliver(site.change(variant_id, "in_stock")) == "unchanged"
    assert site.variant(variant_id)["sellable"] == 0
    site.api.faults.down = False
    site.until(lambda: site.variant(variant_id)["sellable"] == 1)
    daemon.stop()


@pytest.mark.parametrize(("days", "asks"), [(2.9, True), (3.1, False)])
def test_a_copy_requests_no_read_after_the_last_retry(site: Site, days: float, asks: bool) -> None:
    """Its first arrival requests a read; more reads would let anybody use up the budget."""
    variant_id = min(site.catalogue.variants)
    site.catalogue.set_availability(variant_id, "in_stock")
    daemon = site.serve()
    body = stored(site, variant_id, "out_of_stock", days)
    assert daemon.post(body).json()["outcome"] == "verifying"
    site.until(lambda: not site.rows("SELECT 1 FROM refresh_queue"))
    assert site.variant(variant_id)["sellable"] == 1
    for _ in range(3):
        assert daemon.post(body).json()["outcome"] == "duplicate"
        assert len(site.rows("SELECT 1 FROM refresh_queue")) == asks
    assert site.variant(variant_id)["sellable"] == 1
    daemon.stop()
