"""Users of the control socket: how much each, and all together, may queue.

The reads of deliveries always come first. The tests use a real daemon, socket and mirror.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from syncd.core.timestamps import to_text
from syncd.daemon.control_handlers import MOST_DRY_RUNS, MOST_WAITING
from syncd.store import sweeps
from syncd.sync.sweeps import MAX_ITEMS, MAX_REQUESTS, MAX_WAITING_ITEMS
from syncd.webhook.replay import MAX_IDS

pytestmark = pytest.mark.long

if TYPE_CHECKING:
    from conftest import Daemon, Site

INVENTED = range(5_000_000, 5_050_000)


class Member:
    """A member of the group, who uses the socket without the command."""

    def __init__(self, site: Site) -> None:
        self._transport = str(site.socket)

    def query(self, path: str, **body: Any) -> tuple[int, dict[str, Any]]:
        """Post a request; return the code and the last line of the answer, or its first one.

        A client that receives progress disconnects: the sweep continues without it.
        """
        with (
            httpx.Client(transport=httpx.HTTPTransport(uds=self._transport), timeout=60) as client,
            client.stream("POST", f"http://syncd{path}", content=json.dumps(body)) as answer,
        ):
            for line in answer.iter_lines():
                output = json.loads(line)
                return answer.status_code, output if isinstance(output, dict) else {"done": output}
        return answer.status_code, {}


def waiting(site: Site) -> tuple[int, int]:
    """Return how many sweeps of named items are open, and how many items they have left."""
    (row,) = site.rows(
        """SELECT count(DISTINCT w.sweep_id) AS n, count(s.item_id) AS items FROM sweeps w
           LEFT JOIN sweep_items s ON s.sweep_id = w.sweep_id AND s.state = 'todo'
           WHERE w.ended_at IS NULL AND NOT w.is_catalogue"""
    )
    return row["n"], row["items"]


def deliver_to(site: Site, daemon: Daemon, items: int) -> list[str]:
    """Deliver one change of each of so many items; return the paths that confirm them."""
    paths = []
    for item_id in itertools.islice(site.catalogue.names, items):
        variant = next(iter(site.catalogue.of_item(item_id)))
        event = site.change(variant.variant_id, f"{len(site.api.calls)} left")
        assert daemon.deliver(event) in {"applied", "verifying"}
        paths.append(f"/v1/items/{item_id}/")
    return paths


def calls_until_confirmed(site: Site, paths: list[str]) -> int:
    """Wait until deliveries are confirmed; return how many calls others had before the last one."""
    due = {row["item_id"] for row in site.rows("SELECT item_id FROM refresh_queue")}
    assert due
    # The first settled read may leave now: from here on, others have their turn and no more.
    latest = max(row["settle_at"] for row in site.rows("SELECT settle_at FROM refresh_queue"))
    site.until(lambda: site.rows("SELECT 1 FROM refresh_queue") == [], 60)
    calls = [call.path in paths for call in site.api.calls if to_text(call.at) > latest]
    last = [index for index, is_ours in enumerate(calls) if is_ours][: len(paths)][-1]
    return calls[:last].count(False)


def test_fifty_thousand_invented_ids_are_refused(site: Site) -> None:
    """None is queued; the refusal names the limit and a hint, and is counted."""
    daemon = site.serve()
    member = Member(site)
    before = len(site.api.calls)
    for body in ({"items": list(INVENTED)}, {"items": list(INVENTED[: MAX_ITEMS + 1])}):
        code, output = member.query("/reconcile", **body)
        assert (code, output.get("kind")) in {(200, "usage"), (400, None)}
        assert str(MAX_ITEMS) in output["error"] or "too many ids in" in output["error"]
    code, output = member.query("/reconcile", items=list(INVENTED[: MAX_ITEMS + 1]), dry_run=True)
    assert output["kind"] == "usage"
    code, output = member.query("/replay", ids=list(INVENTED[: MAX_IDS + 1]))
    assert (code, output["kind"]) == (400, "usage")
    assert waiting(site) == (0, 0)
    assert len(site.api.calls) == before
    assert (
        len([line for line in daemon.logged("a request was refused") if line["code"] == 400]) <= 2
    )
    done = site.syncd("reconcile-now", *(f"--item={item}" for item in INVENTED[: MAX_ITEMS + 1]))
    assert done.returncode == 2
    assert f"one request may name {MAX_ITEMS}" in done.stderr
    assert "Try:" in done.stderr


def test_deliveries_are_confirmed_first_with_a_full_queue(site: Site) -> None:
    """Invented ids fill the queue: they get one call in four, also after a restart."""
    site.configure(dreamship={"calls_per_minute": 600})
    daemon = site.serve()
    member = Member(site)
    for start in range(0, MAX_WAITING_ITEMS, MAX_ITEMS):
        _, output = member.query("/reconcile", items=list(INVENTED[start : start + MAX_ITEMS]))
        assert "progress" in output
    requests, items = waiting(site)
    assert requests == MAX_WAITING_ITEMS // MAX_ITEMS
    assert items > MAX_WAITING_ITEMS - 100
    _, output = member.query("/reconcile", items=list(INVENTED[-500:]))
    assert output["kind"] == "overloaded"
    assert "try again later" in output["hint"]
    paths = deliver_to(site, daemon, 5)
    assert calls_until_confirmed(site, paths) <= 5
    # Also after a restart, for the items that the previous daemon left in the queue.
    paths = deliver_to(site, daemon, 5)
    daemon.stop()
    daemon = site.serve(filled=False)
    assert waiting(site)[0] == requests
    assert calls_until_confirmed(site, paths) <= 5
    # A client that names one real item does not wait for a thousand invented ones.
    item_id = min(site.catalogue.names)
    before = len(site.api.calls)
    done = site.syncd("reconcile-now", "--item", str(item_id), "--json")
    assert json.loads(done.stdout)["result"] == "complete"
    requested = [call.path for call in site.api.calls[before:]]
    assert requested.index(f"/v1/items/{item_id}/") <= 40
    daemon.stop()


def test_an_oversized_queue_of_an_earlier_version_is_cut(site: Site) -> None:
    """50,000 items wait at the start: deliveries go first, and most items are dropped.

    They do not become a part of the catalogue.
    """
    site.configure(dreamship={"calls_per_minute": 600})
    daemon = site.serve()
    paths = deliver_to(site, daemon, 5)
    daemon.kill()
    with contextlib.closing(sqlite3.connect(site.mirror, isolation_level=None)) as mirror:
        mirror.execute("BEGIN")
        for items in (INVENTED, INVENTED[:3], INVENTED[10:20]):
            sweeps.begin(
                mirror,
                "operator",
                datetime.now(UTC) - timedelta(seconds=5),
                items=items,
                is_catalogue=False,
                position=None,
                accepts_removals=False,
            )
        mirror.execute("COMMIT")
    daemon = site.serve(filled=False)
    assert waiting(site)[0] <= 2
    assert waiting(site)[1] <= 13
    (line,) = daemon.logged("sweep ended: it named too many items")
    assert (line["items"], line["requests"]) == (MAX_WAITING_ITEMS, MAX_REQUESTS)
    assert calls_until_confirmed(site, paths) <= 5
    site.until(lambda: waiting(site) == (0, 0))
    # No invented item is left.
    assert site.rows("SELECT count(*) AS n FROM items") == [{"n": 5}]
    results = site.rows("SELECT result, error FROM sweeps WHERE NOT is_catalogue ORDER BY sweep_id")
    assert results[0]["result"] == "failed"
    assert "it named too many items" in results[0]["error"]
    assert "Dreamship has no item 5000000" in results[1]["error"]
    daemon.stop()


def test_parallel_requests_are_limited_and_refuse_no_delivery(site: Site) -> None:
    """300 at once, of all kinds: a few are carried out, the others are refused."""
    daemon = site.serve()
    site.api.faults.always = dict.fromkeys(site.catalogue.names, "slow")
    site.api.faults.slow_s = 1.0
    item_id = min(site.catalogue.names)
    bodies = [{"items": [item_id]}, {"dry_run": True}, {}, {"dry_run": True, "items": [item_id]}]

    def query(number: int) -> dict[str, Any]:
        output: dict[str, Any] = {}
        with (
            httpx.Client(transport=httpx.HTTPTransport(uds=str(site.socket)), timeout=60) as client,
            client.stream(
                "POST", "http://syncd/reconcile", content=json.dumps(bodies[number % 4])
            ) as answer,
        ):
            for line in answer.iter_lines():
                output = json.loads(line)
        return output

    with ThreadPoolExecutor(100) as pool:
        requesting = [pool.submit(query, number) for number in range(300)]
        while not all(one.done() for one in requesting):
            assert waiting(site)[0] <= MOST_WAITING
            assert daemon.deliver(site.change(min(site.catalogue.variants), "low_stock"))
            time.sleep(0.1)
    output = [one.result() for one in requesting]
    refused = [one for one in output if one.get("kind") == "overloaded"]
    assert all("summary" in one or "dry_run" in one or one in refused for one in output), output
    assert len(refused) > 100
    assert sum("dry_run" in one for one in output) >= MOST_DRY_RUNS
    # Each place is given back.
    site.api.faults.always = {}
    assert "progress" in Member(site).query("/reconcile", items=[item_id])[1]
    lines = [line for line in daemon.logged("a request was refused") if line["code"] == 503]
    assert len(lines) <= 2
    daemon.stop()


def test_abandoned_requests_stay_within_the_limit(site: Site) -> None:
    """Hundreds of clients disconnect at once; the sweeps they leave are limited."""
    site.configure(dreamship={"calls_per_minute": 60})
    daemon = site.serve()
    refused = 0
    for number in range(2 * MAX_REQUESTS):
        _, output = Member(site).query("/reconcile", items=[INVENTED[number]])
        refused += output.get("kind") == "overloaded"
        assert waiting(site)[0] <= MAX_REQUESTS
    assert refused > MAX_REQUESTS // 2
    assert daemon.status()["health"] in {"ok", "degraded"}
    daemon.stop()


def test_a_huge_body_is_refused_after_64_kb(site: Site) -> None:
    """The answer names the limit."""
    daemon = site.serve()

    def endless() -> Iterator[bytes]:
        yield b'{"items": ['
        for _ in range(200):
            yield b"1," * (1 << 18)

    with (
        contextlib.suppress(httpx.TransportError),
        httpx.Client(transport=httpx.HTTPTransport(uds=str(site.socket))) as client,
    ):
        answer = client.post("http://syncd/reconcile", content=endless())
        assert answer.status_code == 400
        assert "more than 64 KB" in answer.text
    assert waiting(site) == (0, 0)
    daemon.stop()


@pytest.mark.parametrize("named", [None, list(INVENTED[:MAX_ITEMS])], ids=["all", "invented"])
def test_a_dry_run_waits_behind_deliveries(site: Site, named: list[int] | None) -> None:
    """It shares the budget: a delivery's read waits for at most one call in four."""
    # The dry run takes longer than reads wait for their commit.
    for _ in range(495):
        site.catalogue.add_item()
    daemon = site.serve()
    site.configure(dreamship={"calls_per_minute": 600})
    daemon.process.send_signal(signal.SIGHUP)
    site.until(lambda: daemon.logged("reloaded"))
    with connected(site, {"dry_run": True, "items": named or []}):
        before = len(site.api.calls)
        site.until(lambda: len(site.api.calls) > before + 3)
        paths = deliver_to(site, daemon, 8)
        assert calls_until_confirmed(site, paths) <= 8
        # The dry run makes progress too.
        before = len(site.api.calls)
        site.until(lambda: len(site.api.calls) > before + 3)
    daemon.stop()


@contextlib.contextmanager
def connected(site: Site, body: dict[str, Any]) -> Iterator[None]:
    """Have a request carried out for as long as this lasts; then its client leaves."""
    content = json.dumps(body).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(site.socket))
        connection.sendall(
            b"POST /reconcile HTTP/1.1\r\nHost: syncd\r\nContent-Length: %d\r\n\r\n" % len(content)
        )
        connection.sendall(content)
        yield


def test_replays_run_one_request_at_a_time(site: Site) -> None:
    """A hundred requests at once delay a delivery by one slice at most."""
    daemon = site.serve()
    variant_id = min(site.catalogue.variants)
    for number in range(20):
        daemon.deliver(site.change(variant_id, f"{number} left"))
    ids = [row["delivery_id"] for row in site.rows("SELECT delivery_id FROM deliveries")]
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: Member(site).query("/replay", ids=ids), range(200)))
    assert {code for code, _ in answers} == {200, 503}
    assert all("at the same time" in output["error"] for code, output in answers if code == 503)
    daemon.deliver(site.change(variant_id, "low_stock"))
    daemon.stop()
