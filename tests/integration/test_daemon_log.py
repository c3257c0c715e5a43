"""The log of a daemon: one line for each event worth reading, with ids and without keys."""

from __future__ import annotations

import re
import signal
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from msgspec import json

from syncd.core.signature import HEADER
from syncd.demo.fake_dreamship.faults import Throttle

if TYPE_CHECKING:
    from conftest import Daemon, Site

Line = dict[str, Any]
ODD_ACTION = b'{"object":"item_variant","event":{"action":"a\\nb","uuid":"%s"}}'


@pytest.fixture(scope="module")
def large(
    tmp_path_factory: pytest.TempPathFactory,
    open_site: Callable[..., AbstractContextManager[Site]],
) -> Iterator[Daemon]:
    """Give a daemon whose catalogue is large enough that a sweep may refuse to remove it."""
    with open_site(tmp_path_factory.mktemp("large"), items=30) as site:
        daemon = site.serve()
        # The last line that a first sweep causes.
        site.until(lambda: reported_by(daemon, "not sold"))
        yield daemon
        daemon.stop()


class New:
    """The lines of a daemon from now on."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._seen = len(daemon.lines())

    @property
    def lines(self) -> list[Line]:
        return self._daemon.lines()[self._seen :]

    def of(self, event: str) -> list[Line]:
        return [line for line in self.lines if line["event"] == event]


def reported_by(daemon: Daemon, beginning: str) -> list[Line]:
    return [line for line in daemon.lines() if line["event"].startswith(beginning)]


def test_healthy_deliveries_write_no_line_at_info(large: Daemon) -> None:
    """Applied, unchanged, duplicate and ignored."""
    site = large.site
    large.deliver(site.change(next(iter(site.catalogue.variants)), "discontinued"))
    # The first delivery is an event: deliveries arrive.
    site.until(lambda: large.logged("webhooks changed"))
    new = New(large)
    event = site.change(next(iter(site.catalogue.variants)), "low_stock")
    assert large.deliver(event) == "applied"
    assert large.deliver(event) == "duplicate"
    order = json.encode({"object": "order", "event": {"action": "x", "uuid": str(uuid.uuid4())}})
    assert large.post(order).json() == {"outcome": "ignored"}
    # Its confirming read, too.
    site.until(lambda: large.status()["refresh_queue"] == 0)
    assert new.lines == []


def test_a_quarantined_delivery_is_one_line_with_its_number(large: Daemon) -> None:
    """The number works with `deliveries` and `replay`; a copy writes no line."""
    new, name = New(large), str(uuid.uuid4())
    body = ODD_ACTION % name.encode()
    assert large.post(body).json() == {"outcome": "quarantined"}
    assert large.post(body).json() == {"outcome": "duplicate"}
    (line,) = new.lines
    assert line["event"] == "a delivery was not understood"
    assert line["level"] == "warning"
    (row,) = large.site.rows("SELECT * FROM deliveries WHERE delivery_id = ?", line["delivery_id"])
    assert row["body"] == body
    assert row["event_id"] == line["event_id"]
    assert row["reason"] == line["reason"]


def test_deliveries_of_one_batch_have_their_own_numbers(large: Daemon) -> None:
    """Copies among them, as Dreamship sends: at once, twice, in any order."""
    new = New(large)
    bodies = [ODD_ACTION % str(uuid.uuid4()).encode() for _ in range(40)]
    with ThreadPoolExecutor(40) as pool:
        outcomes = [answer.json()["outcome"] for answer in pool.map(large.post, bodies * 2)]
    assert sorted(outcomes) == ["duplicate"] * 40 + ["quarantined"] * 40
    lines = new.of("a delivery was not understood")
    assert len(lines) == 40
    for line in lines:
        rows = large.site.rows(
            "SELECT event_id FROM deliveries WHERE delivery_id = ?", line["delivery_id"]
        )
        assert rows == [{"event_id": line["event_id"]}]


def test_a_forged_request_is_one_line_a_minute(large: Daemon) -> None:
    """With its address, and without its content."""
    new = New(large)
    for _ in range(3):
        headers = {HEADER: "f" * 64, "Authorization": "odd"}
        answer = httpx.post(large.webhook_url, content=b"{}", headers=headers, trust_env=False)
        assert answer.status_code == 401
    large.site.until(lambda: new.lines)
    (line,) = new.lines
    assert set(line) == {"event", "level", "timestamp", "client", "refused_so_far"}
    assert line["client"] == "127.0.0.1"


def test_a_sweep_writes_two_lines_with_its_number(large: Daemon) -> None:
    """The number is the same as in the mirror."""
    new = New(large)
    assert large.site.syncd("reconcile-now").returncode == 0
    began, ended = new.lines
    assert (began["event"], ended["event"]) == ("sweep begins", "sweep ended")
    assert began["sweep_id"] == ended["sweep_id"]
    assert began["cause"] == "operator"
    assert (ended["level"], ended["result"], ended["items"]) == ("info", "complete", 30)


def test_held_removals_are_a_warning(large: Daemon) -> None:
    """With their count and the number of the sweep."""
    names, new = large.site.catalogue.names, New(large)
    gone = {item_id: names.pop(item_id) for item_id in list(names)[:20]}
    assert large.site.syncd("reconcile-now").returncode == 1
    names.update(gone)
    (began,), (ended,) = new.of("sweep begins"), new.of("sweep ended")
    assert (ended["level"], ended["sweep_id"]) == ("warning", began["sweep_id"])
    assert (ended["result"], ended["removals_held"], ended["removed"]) == ("partial", 80, 0)
    assert "not removed automatically" in ended["error"]


def test_a_429_and_a_failed_read_name_the_sweep(large: Daemon) -> None:
    """And the item that was being read."""
    site, new = large.site, New(large)
    first, second = list(site.catalogue.names)[:2]
    site.api.faults.throttle = Throttle(1, 1)
    site.api.faults.of_item[second] = ["garbage"]
    assert site.syncd("reconcile-now", "--item", str(first), "--item", str(second)).returncode == 0
    site.api.faults.throttle = None
    (began,), throttled = new.of("sweep begins"), new.of("throttled by Dreamship")
    assert began["item_ids"] == [first, second]
    assert throttled
    assert {line["sweep_id"] for line in throttled} == {began["sweep_id"]}
    assert all(line["item_id"] in {first, second} for line in throttled)
    (broken,) = new.of("a read failed")
    assert (broken["item_id"], broken["sweep_id"]) == (second, began["sweep_id"])


def test_a_reload_is_one_line(large: Daemon) -> None:
    """For a faulty file, the line says what to do."""
    site, new = large.site, New(large)
    site.configure(log={"level": "loud"})
    large.process.send_signal(signal.SIGHUP)
    site.until(lambda: new.lines)
    (invalid,) = new.lines
    assert (invalid["level"], "log.level" in invalid["error"]) == ("error", True)
    site.configure(log={"level": "info"})
    large.process.send_signal(signal.SIGHUP)
    site.until(lambda: new.of("reloaded"))
    assert [line["event"] for line in new.lines[1:]] == ["reloaded"]


def test_log_keys_have_the_names_of_the_command_output(large: Daemon) -> None:
    """Ids have one name everywhere, and every line has its three keys."""
    for line in large.lines():
        assert {"event", "level", "timestamp"} <= set(line)
        assert not {"sweep", "item", "delivery", "variant"} & set(line)
        assert all(re.fullmatch("[a-z0-9_]+", key) for key in line)


def test_at_debug_a_delivery_can_be_followed_to_its_confirmation(site: Site) -> None:
    """By its number, variant and item; a copy has the number of the first."""
    site.configure(log={"level": "debug"})
    daemon = site.serve()
    new = New(daemon)
    variant = next(iter(site.catalogue.variants.values()))
    event = site.change(variant.variant_id, "low_stock")
    assert daemon.deliver(event) == "applied"
    assert daemon.deliver(event) == "duplicate"
    site.until(lambda: new.of("read"))
    applied, copy = new.of("delivery")
    (row,) = site.rows("SELECT * FROM deliveries WHERE variant_id = ?", variant.variant_id)
    assert row["delivery_id"] == applied["delivery_id"] == copy["delivery_id"]
    assert (applied["outcome"], copy["outcome"]) == ("applied", "duplicate")
    assert applied["variant_id"] == variant.variant_id
    (read,) = new.of("read")
    assert (read["kind"], read["item_id"], read["sweep_id"]) == ("confirm", variant.item_id, None)
    # Nobody reads the lines of the libraries about each request.
    assert {line["event"] for line in daemon.lines()} <= {
        *("listening", "ready", "read", "delivery", "sweep begins", "sweep ended"),
        "not sold: availability.sellable does not list these values",
    }


def test_log_and_mirror_contain_no_key(site: Site) -> None:
    """Nor does the status document, at level debug and after a refused key."""
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
