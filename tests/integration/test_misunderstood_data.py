"""A daemon gets deliveries and answers that it understands only in part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from msgspec import json
from payloads import PAYLOADS, body_at

pytestmark = pytest.mark.long

if TYPE_CHECKING:
    from conftest import Site

# As the payload files name them.
ITEM, VARIANT = 77, 3_346_951


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in PAYLOADS
        if path.stem in {"name-half-an-emoji", "cost-nan", "cut-short", "form-encoded", "xml"}
    ],
    ids=lambda path: path.stem,
)
def test_a_daemon_verifies_a_quarantined_delivery(site: Site, path: Any) -> None:
    """The variant is unsellable with the answer, until Dreamship's own answer settles it."""
    daemon = site.serve()
    variant_id = next(
        one.variant_id
        for one in site.catalogue.variants.values()
        if one.availability == "in_stock" and site.variant(one.variant_id)["sellable"]
    )
    item_id = site.catalogue.variants[variant_id].item_id
    body = body_at(path).replace(b"%d" % VARIANT, b"%d" % variant_id)
    body = body.replace(b"%d" % ITEM, b"%d" % item_id)
    answer = daemon.post(body)
    assert answer.status_code == 200
    row = site.variant(variant_id)
    assert (row["sellable"], row["verifying"] or row["availability"]) in {
        (0, 1),
        (0, "out_of_stock"),
    }
    site.until(lambda: not site.rows("SELECT 1 FROM refresh_queue"))
    row = site.variant(variant_id)
    assert (row["availability"], row["sellable"], row["verifying"]) == ("in_stock", 1, 0)
    output = site.syncd("explain", str(variant_id)).stdout
    if answer.json()["outcome"] == "quarantined":
        assert "delivery 1 was not understood: quarantined" in output
        listed = site.syncd("deliveries").stdout
        assert f"names variant {variant_id}" in listed


def test_a_lone_surrogate_in_a_name_does_not_fail_the_read(site: Site) -> None:
    """It becomes U+FFFD."""
    first, *_ = site.catalogue.names
    site.catalogue.names[first] = "Mug \ud83d"
    site.serve()
    assert site.differences == 0
    ((name,),) = [
        tuple(row.values()) for row in site.rows("SELECT name FROM items WHERE item_id = ?", first)
    ]
    assert name == "Mug \ufffd"


def test_a_variant_without_an_id_makes_the_sweep_partial(site: Site) -> None:
    """The others are read, nothing is removed, and the sweep names the item."""
    daemon = site.serve()
    first, *_ = site.catalogue.names
    of_item = [one.variant_id for one in site.catalogue.variants.values() if one.item_id == first]
    whole = site.catalogue.item_object

    def broken(item_id: int, **how: Any) -> dict[str, Any]:
        document = whole(item_id, **how)
        if item_id == first and "item_variants" in document:
            document["item_variants"][0] = {"id": None, "availability": "in_stock"}
        return document

    before = site.variant(of_item[0])
    site.catalogue.item_object = broken  # type: ignore[method-assign]
    site.catalogue.set_availability(of_item[1], "made to order")
    done = site.syncd("reconcile-now", "--json")
    output = json.decode(done.stdout)
    assert (done.returncode, output["result"], output["removed"]) == (1, "partial", 0)
    assert output["failed_items"] == [first]
    assert site.variant(of_item[1])["availability"] == "made to order"
    assert site.variant(of_item[0]) == before
    assert json.decode(site.syncd("reconcile-now", "--dry-run", "--json").stdout)[
        "failed_items"
    ] == [first]
    del site.catalogue.item_object
    assert site.syncd("reconcile-now").returncode == 0
    assert site.variant(of_item[0])["confirmed_at"] > before["confirmed_at"]
    daemon.stop()
