"""Deliveries that stop and return: detected, reported and compensated."""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from syncd.core.timestamps import from_text, to_text

pytestmark = pytest.mark.long

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Daemon, Site

# The daemon checks itself at half the watchdog's period; the default is 20 s.
HASTY = {"WATCHDOG_USEC": "400000"}


def notified(site: Site) -> Path:
    """Have notifications written to a file, one a line."""
    output, command = site.folder / "told", site.folder / "tell-me"
    command.write_text(f"#!/bin/sh\n(cat; echo) >> {output}\n")
    command.chmod(0o755)
    output.touch()
    site.configure(
        notify={"command": [str(command)]}, reconcile={"every": "6h", "every_when_silent": "30m"}
    )
    return output


def messages(output: Path, event: str) -> list[tuple[str, str]]:
    found = [json.loads(line) for line in output.read_text().splitlines()]
    return [(one["before"], one["now"]) for one in found if one["event"] == event]


def state(daemon: Daemon) -> str:
    return str(daemon.status()["webhooks"]["state"])


def lose(site: Site, variants: list[int], value: str = "made to order") -> None:
    """Change the source without a delivery, and read the change."""
    for variant_id in variants:
        site.catalogue.set_availability(variant_id, value)
    assert site.syncd("reconcile-now").returncode == 0


def reset_seen(site: Site, ago: timedelta) -> None:
    """Make the last sign of life older, as after an outage of this host."""
    observed = to_text(datetime.now(UTC) - ago)
    with sqlite3.connect(site.mirror) as connection:
        connection.execute("UPDATE state SET value = ? WHERE key = 'daemon_seen_at'", (observed,))
    connection.close()


def test_webhook_silence_is_reported_once_and_ended_by_a_delivery(site: Site) -> None:
    """State, reasons, view, shorter interval, notifications; the first sweep finds no miss."""
    output = notified(site)
    daemon = site.serve(environ=HASTY)
    assert site.rows("SELECT 1 FROM changes WHERE missed = 1") == []
    first, *others = site.catalogue.variants
    assert daemon.deliver(site.change(first, "low_stock")) in {"applied", "unchanged"}
    site.until(lambda: state(daemon) == "healthy")
    site.until(lambda: site.is_health_reported("ok"))
    lose(site, others[:4])
    site.until(lambda: state(daemon) == "silent")
    status = daemon.status()
    assert status["health"] == "degraded"
    assert any("turn it on in the Dreamship app" in reason for reason in status["reasons"])
    site.until(lambda: daemon.status()["webhooks"]["missed_24h"] == 4)
    site.until(lambda: site.rows("SELECT webhooks_state AS s FROM freshness") == [{"s": "silent"}])
    assert [row["variant_id"] for row in site.rows("SELECT * FROM changes WHERE missed = 1")] == (
        sorted(others[:4])
    )
    site.until(lambda: daemon.status()["sweep"]["next_at"] is not None)
    wait = from_text(daemon.status()["sweep"]["next_at"]) - datetime.now(UTC)
    assert wait < timedelta(minutes=36)
    site.until(lambda: messages(output, "health")[-1:] == [("ok", "degraded")])
    assert daemon.deliver(site.change(first, "in_stock")) == "applied"
    site.until(lambda: state(daemon) == "healthy")
    site.until(lambda: messages(output, "health")[-2:] == [("ok", "degraded"), ("degraded", "ok")])
    assert messages(output, "health").count(("ok", "degraded")) == 1
    assert messages(output, "webhooks") == [
        ("unknown", "healthy"),
        ("healthy", "silent"),
        ("silent", "healthy"),
    ]
    stored = site.rows("SELECT state, began_at FROM webhook_states ORDER BY change_id")
    assert [row["state"] for row in stored] == ["unknown", "healthy", "silent", "healthy"]
    assert sorted(row["began_at"] for row in stored) == [row["began_at"] for row in stored]


def test_a_restart_repeats_no_notification(site: Site) -> None:
    """The silence and its notification are stored."""
    output = notified(site)
    daemon = site.serve(environ=HASTY)
    daemon.deliver_first()
    site.until(lambda: site.is_health_reported("ok"))
    lose(site, list(site.catalogue.variants)[1:4])
    site.until(lambda: state(daemon) == "silent")
    site.until(lambda: messages(output, "health")[-1:] == [("ok", "degraded")])
    before = output.read_text().splitlines()  # the command may not have ended the last one yet
    daemon.stop()
    daemon = site.serve(environ=HASTY)
    assert state(daemon) == "silent"
    site.until(lambda: len(daemon.logged("listening")) > 0)
    beats = from_text(site.rows("SELECT daemon_seen_at AS at FROM freshness")[0]["at"])
    later = to_text(beats + timedelta(seconds=1.5))
    site.until(lambda: site.rows("SELECT daemon_seen_at AS at FROM freshness")[0]["at"] > later)
    assert output.read_text().splitlines() == before


def test_changes_during_downtime_are_not_missed_webhooks(site: Site) -> None:
    """The status says "the daemon was down" until a sweep has ended."""
    notified(site)
    daemon = site.serve(environ=HASTY)
    daemon.stop()
    reset_seen(site, timedelta(hours=2))
    changed = list(site.catalogue.variants)[:5]
    for variant_id in changed:
        site.catalogue.set_availability(variant_id, "made to order")
    site.api.faults.down = True
    daemon = site.serve(filled=False, environ=HASTY)
    assert daemon.logged("the daemon was down")
    assert any(one.startswith("The daemon was down from ") for one in daemon.status()["reasons"])
    site.api.faults.down = False
    assert site.syncd("reconcile-now").returncode == 0
    assert site.differences == 0

    def missed() -> Any:
        return daemon.status()["webhooks"]["missed_24h"]

    site.until(lambda: missed() == 5)
    assert state(daemon) in {"unknown", "healthy"}
    assert not any("down" in reason for reason in daemon.status()["reasons"])
    lose(site, list(site.catalogue.variants)[5:9])
    site.until(lambda: state(daemon) == "silent")


def test_a_rotated_key_is_reported(site: Site) -> None:
    """Signed requests with an unknown key and none with a known one, until one arrives."""
    daemon = site.serve()
    variant_id = next(iter(site.catalogue.variants))
    body = site.body(site.change(variant_id, "made to order"))

    def says_so() -> bool:
        return any("probably rotated" in reason for reason in daemon.status()["reasons"])

    for _ in range(3):
        assert not says_so()
        assert daemon.post(body, key="the_new_key").status_code == 401
    assert says_so()
    assert daemon.post(body).status_code == 200
    assert not says_so()
