"""`explain`, `reconcile-now --dry-run`, `replay` and `deliveries`."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from syncd.demo.fake_dreamship import stale_event

if TYPE_CHECKING:
    from conftest import Daemon, Site


# Scripts read these keys, so a renamed column must not change them.
GROUNDS = [
    "rule",
    "judged_at",
    "doubts",
    "absent_at",
    "item_read_at",
    "item_is_gone",
    "asked_at",
    "settle_at",
]


def explained(site: Site, variant_id: int) -> dict[str, Any]:
    done = site.syncd("explain", str(variant_id), "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def confirmed(site: Site) -> None:
    """Wait until the queue of reads is empty."""
    site.until(lambda: not site.rows("SELECT 1 FROM refresh_queue"))


def test_explain_names_the_applied_and_the_rejected_delivery(shared: Daemon) -> None:
    """By the rules `newer` and `contradicts`."""
    site = shared.site
    variant_id = next(iter(site.catalogue.variants))
    event = site.change(variant_id, "low_stock")
    assert shared.deliver(event) == "applied"
    late = stale_event(variant_id, "discontinued", event.at - timedelta(hours=1))
    assert shared.deliver(late) == "verifying"
    explanation = explained(site, variant_id)
    assert list(explanation["grounds"]) == GROUNDS
    rules = [(one["by"], one.get("told"), one["rule"]) for one in explanation["decisions"]]
    assert ("delivery", "low_stock", "newer") in rules
    assert ("delivery", "discontinued", "contradicts") in rules
    stored = site.rows("SELECT delivery_id FROM deliveries WHERE event_id = ?", event.uuid)
    assert any(
        sentence.startswith(f"Delivery {stored[0]['delivery_id']} set that at ")
        for sentence in explanation["because"]
    )
    confirmed(site)
    after = site.syncd("explain", str(variant_id)).stdout
    assert after.startswith(f"Variant {variant_id} (")
    assert "is 'low_stock', sellable." in after
    assert "[contradicts]" in after


def test_explain_names_the_sweep_that_found_a_missed_change(shared: Daemon) -> None:
    """And says that the delivery was missed."""
    site = shared.site
    variant_id = list(site.catalogue.variants)[5]
    site.catalogue.set_availability(variant_id, "out_of_stock")
    assert site.syncd("reconcile-now").returncode == 0
    explanation = explained(site, variant_id)
    assert any("A read set that at" in one for one in explanation["because"])
    assert any("no delivery reported it" in one for one in explanation["because"])
    assert explanation["decisions"][0]["missed"] == 1


def test_explaining_an_unknown_variant_is_exit_1(shared: Daemon) -> None:
    """With a sentence, and with the next step."""
    done = shared.site.syncd("explain", "999999999")
    assert (done.returncode, done.stdout) == (1, "The mirror does not have this variant.\n")
    assert "check the id" in done.stderr


@pytest.mark.parametrize("beside_a_daemon", [True, False])
def test_a_dry_run_lists_the_differences_and_writes_nothing(
    site: Site, beside_a_daemon: bool
) -> None:
    """No variant, no change, no sweep."""
    daemon = site.serve()
    first, second, *_ = site.catalogue.variants
    site.catalogue.set_availability(first, "made to order")
    site.catalogue.remove_variant(second)
    added = site.catalogue.add_variant(next(iter(site.catalogue.names))).object_id
    if not beside_a_daemon:
        daemon.stop()

    def written() -> list[Any]:
        return [
            site.rows(f"SELECT * FROM {table}")  # noqa: S608
            for table in ("variants", "change_log", "sweeps", "refresh_queue")
        ]

    before = written()
    done = site.syncd("reconcile-now", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    output = json.loads(done.stdout)
    assert written() == before
    found = {one["variant_id"]: (one["mirror"], one["source"]) for one in output["differences"]}
    assert found[first][1] == "made to order"
    assert found[second][1] is None
    assert found[added] == (None, "in_stock")
    assert len(found) == 3
    assert (output["result"], output["added"], output["removed"], output["changed"]) == (
        "complete",
        1,
        1,
        1,
    )
    assert output["items"] == 5
    assert "3 differences; nothing was written" in site.syncd("reconcile-now", "--dry-run").stdout


def test_a_dry_run_with_a_refused_key_is_exit_4(site: Site) -> None:
    """As every other read."""
    site.serve()
    site.api.faults.refused_with = 403
    assert site.syncd("reconcile-now", "--dry-run").returncode == 4


def test_a_dry_run_needs_a_mirror_to_compare_with(idle: Site) -> None:
    """It does not make one."""
    assert idle.syncd("reconcile-now", "--dry-run").returncode == 1
    assert not idle.mirror.exists()


@pytest.mark.parametrize("beside_a_daemon", [True, False])
def test_replay_applies_the_current_rules_to_a_quarantined_delivery(
    site: Site, beside_a_daemon: bool
) -> None:
    """As after an upgrade: its value is verified."""
    daemon = site.serve()
    variant_id = next(iter(site.catalogue.variants))
    body = site.body(site.change(variant_id, "made to order"))
    assert daemon.deliver(
        replace(stale_event(variant_id, "x", site.api.now()), object_id=-1, data={})
    ) == ("quarantined")
    daemon.stop()
    with sqlite3.connect(site.mirror) as connection:  # as if the parser had not known this form
        connection.execute("UPDATE deliveries SET body = ?", (body,))
    connection.close()
    if beside_a_daemon:
        daemon = site.serve()
    done = site.syncd("replay", "--quarantined", "--json")
    assert done.returncode == 0, done.stderr
    (one,) = json.loads(done.stdout)["replayed"]
    assert (one["before"], one["outcome"]) in {
        ("quarantined", "verifying"),
        ("quarantined", "applied"),
    }
    if beside_a_daemon:
        confirmed(site)
        assert site.variant(variant_id)["availability"] == "made to order"
    assert site.syncd("replay", "--quarantined").stdout == "0 replayed: none\n"


def test_a_replayed_older_delivery_is_verified(site: Site) -> None:
    """It does not bring an old value back."""
    daemon = site.serve()
    variant_id = next(iter(site.catalogue.variants))
    assert daemon.deliver(site.change(variant_id, "made to order")) == "applied"
    site.catalogue.set_availability(variant_id, "in_stock")
    confirmed(site)
    assert site.variant(variant_id)["availability"] == "in_stock"
    assert site.syncd("replay", "1").stdout.splitlines()[0].split() == [
        "1",
        "applied",
        "->",
        "verifying",
    ]
    confirmed(site)
    assert site.variant(variant_id)["availability"] == "in_stock"


@pytest.mark.parametrize("arguments", [(), ("77",)])
def test_replay_without_a_known_delivery_is_exit_2(
    shared: Daemon, arguments: tuple[str, ...]
) -> None:
    """With a hint."""
    done = shared.site.syncd("replay", *arguments)
    assert done.returncode == 2
    assert "Try:" in done.stderr


def test_deliveries_are_listed_newest_first_with_their_bodies(site: Site) -> None:
    """An ignored delivery has no body: an order holds personal data."""
    daemon = site.serve()
    variant_id = next(iter(site.catalogue.variants))
    body = site.body(site.change(variant_id, "made to order"))
    assert daemon.post(body).json() == {"outcome": "applied"}
    order = b'{"object": "order", "id": 5, "event": {"action": "order-created"}}'
    assert daemon.post(order).json() == {"outcome": "ignored"}
    lines = site.syncd("deliveries", "--json", "--body").stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["outcome"] for row in rows] == ["ignored", "applied"]
    assert [row["body"] for row in rows] == [None, body.decode()]
    assert len(site.syncd("deliveries", "--outcome", "applied").stdout.splitlines()) == 1
    assert len(site.syncd("deliveries", "--limit", "1").stdout.splitlines()) == 1
