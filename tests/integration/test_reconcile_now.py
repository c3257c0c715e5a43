"""`syncd reconcile-now`, with a daemon and without one, and a faulty Dreamship."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from msgspec import json

from syncd.control import messages
from syncd.core.jobs import SweepProgress
from syncd.daemon.control_handlers import ControlHandlers
from syncd.demo.fake_dreamship import Throttle

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from conftest import Site

KEYS = [
    "result",
    "items",
    "variants",
    "changed",
    "added",
    "removed",
    "missed",
    "calls",
    "throttled",
    "seconds",
    "failed_items",
]
# The reader has this many calls in flight, and cannot cancel them.
IN_FLIGHT = 4


def output(done: subprocess.CompletedProcess[str], code: int = 0) -> dict[str, Any]:
    """Return the document that a command printed; stdout must have nothing else."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    document: dict[str, Any] = json.decode(done.stdout)
    return document


def item_calls(site: Site) -> Counter[str]:
    """Count the calls for single items, by path."""
    return Counter(call.path for call in site.api.calls if call.path != "/v1/items/")


def two_items(site: Site) -> tuple[int, int]:
    one, other = sorted(site.catalogue.names)[:2]
    return one, other


# With a running daemon.


def test_a_reconcile_repairs_missed_added_and_removed_variants(site: Site) -> None:
    """The result has the keys of the contract."""
    site.serve()
    changed, gone = list(site.catalogue.variants)[:2]
    site.catalogue.set_availability(changed, "made to order")
    site.catalogue.remove_variant(gone)
    site.catalogue.add_item()
    summary = output(site.syncd("reconcile-now", "--json"))
    assert list(summary) == KEYS
    assert site.differences == 0
    expected = {"result": "complete", "changed": 1, "added": 2, "removed": 1, "missed": 1}
    expected |= {"items": 6, "variants": 21, "throttled": 0, "failed_items": []}
    assert {name: summary[name] for name in expected} == expected
    assert summary["calls"] >= 7
    row = site.variant(gone)
    assert (row["removed"], row["sellable"], row["availability"]) == (1, 0, None)
    assert site.rows("SELECT missed FROM changes WHERE variant_id = ? AND missed", changed)


def test_a_second_request_joins_the_first(site: Site) -> None:
    """Two operators at once: one sweep, and both get its result."""
    site.serve()
    site.api.faults.always = dict.fromkeys(site.catalogue.names, "slow")
    site.api.faults.slow_s = 1.5  # longer than a busy machine takes to start the second
    site.api.calls.clear()
    with ThreadPoolExecutor(2) as pool:
        requested = [pool.submit(site.syncd, "reconcile-now", "--json") for _ in range(2)]
        summaries = [output(one.result()) for one in requested]
    assert summaries[0] == summaries[1]
    assert set(item_calls(site).values()) == {1}


def test_only_the_requested_items_are_read(site: Site) -> None:
    """Several `--item` options; other items are not read."""
    site.serve()
    one, other = two_items(site)
    site.api.calls.clear()
    summary = output(
        site.syncd("reconcile-now", "--item", str(one), "--item", str(other), "--json")
    )
    assert (summary["result"], summary["items"], summary["calls"]) == ("complete", 2, 2)
    assert set(item_calls(site)) == {f"/v1/items/{one}/", f"/v1/items/{other}/"}


def test_a_removed_item_keeps_its_rows(site: Site) -> None:
    """Marked removed and unsellable; the feed has the change."""
    site.serve()
    item_id, _ = two_items(site)
    variants = [variant.variant_id for variant in site.catalogue.of_item(item_id)]
    site.catalogue.remove_item(item_id)
    assert output(site.syncd("reconcile-now", "--json"))["removed"] == len(variants)
    for variant_id in variants:
        row = site.variant(variant_id)
        assert (row["removed"], row["sellable"], row["availability"]) == (1, 0, None)
    changes = site.rows("SELECT * FROM changes WHERE item_id = ? AND availability IS NULL", item_id)
    assert len(changes) == len(variants)


def test_failing_items_are_named_and_the_others_repaired(site: Site) -> None:
    """Exit 1 and `partial`; a 404 of a proxy removes nothing."""
    site.serve()
    broken, hidden = two_items(site)
    site.api.faults.always = {broken: "502", hidden: "html-404"}
    for variant in list(site.catalogue.variants.values()):
        site.catalogue.set_availability(variant.variant_id, "made to order")
    summary = output(site.syncd("reconcile-now", "--json"), 1)
    assert (summary["result"], summary["failed_items"]) == ("partial", [broken, hidden])
    assert summary["items"] == 3
    assert site.rows("SELECT count(*) AS n FROM availability WHERE removed") == [{"n": 0}]
    wrong = {
        row["item_id"]
        for row in site.rows(
            "SELECT item_id FROM availability WHERE availability != 'made to order'"
        )
    }
    assert wrong == {broken, hidden}
    status = site.syncd("status")
    assert status.returncode == 1
    assert "partial" in status.stdout


def test_a_killed_sweep_continues(site: Site) -> None:
    """After `kill -9` in the middle, items that were read are not read again."""
    daemon = site.serve()
    for _ in range(15):
        site.catalogue.add_item()
    site.configure(dreamship={"calls_per_minute": 900})
    daemon.stop()
    daemon = site.serve()
    site.api.calls.clear()
    requesting = subprocess.Popen(
        site.command("reconcile-now", "--json"),
        env=site.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    site.until(lambda: len(item_calls(site)) >= 8)
    daemon.kill()
    _, err = requesting.communicate(timeout=20)
    assert requesting.returncode == 3
    assert "Traceback" not in err
    assert "continues after" in err or "broke the connection" in err
    before = sum(item_calls(site).values())
    assert before < 15
    site.serve(filled=False)
    site.until(lambda: site.differences == 0)
    site.until(lambda: site.rows("SELECT 1 FROM sweeps WHERE ended_at IS NULL") == [])
    calls = item_calls(site)
    assert len(calls) == 20
    assert sum(calls.values()) <= 20 + IN_FLIGHT
    listings = [call for call in site.api.calls if call.path == "/v1/items/"]
    assert len(listings) == 1


def test_progress_is_shown_on_a_terminal(site: Site) -> None:
    """With the result at the end; a script's stdout has no progress bar."""
    site.serve()
    site.api.faults.always = dict.fromkeys(site.catalogue.names, "slow")
    site.api.faults.slow_s = 0.4
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        site.command("reconcile-now"),
        env=site.environ | {"TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=follower,
    )
    os.close(follower)
    out, _ = process.communicate(timeout=20)
    shown = os.read(leader, 100_000)
    os.close(leader)
    assert process.returncode == 0
    assert b"reading items" in shown
    assert out.startswith(b"complete: read 5 items with 20 variants in")
    assert b"\x1b" not in out


# Without a daemon.


def test_without_a_daemon_the_command_sweeps_by_itself(site: Site) -> None:
    """It fills an empty mirror and releases it."""
    summary = output(site.syncd("reconcile-now", "--json"))
    assert list(summary) == KEYS
    assert (summary["result"], summary["added"]) == ("complete", 20)
    assert site.differences == 0
    assert output(site.syncd("reconcile-now", "--json"))["changed"] == 0


def test_an_unreachable_source_changes_nothing(site: Site) -> None:
    """Exit 4 with a hint."""
    site.configure(catalog={"items": [*site.catalogue.names, 990, 991]})
    output(site.syncd("reconcile-now", "--json"))
    site.api.faults.down = True
    done = site.syncd("reconcile-now", "--json")
    assert output(done, 4)["result"] == "failed"
    assert "Error:" in done.stderr
    assert "Try:" in done.stderr
    assert site.differences == 0


def test_a_refused_key_ends_the_command_at_once(site: Site) -> None:
    """Exit 4 after one call; the key is not printed."""
    site.configure(dreamship={"api_keys": ["a_wrong_key_0123456789"]})
    done = site.syncd("reconcile-now", "--json")
    assert output(done, 4)["result"] == "failed"
    assert len(site.api.calls) == 1
    assert "401" in done.stderr
    assert "a_wrong_key" not in done.stderr + done.stdout


def test_it_refuses_beside_an_unreachable_daemon(site: Site) -> None:
    """Exit 5: two readers would use two budgets."""
    daemon = site.serve()
    site.configure(control={"socket": str(site.folder / "elsewhere.sock")})
    done = site.syncd("reconcile-now", "--json")
    assert done.returncode == 5
    assert done.stdout == ""
    assert f"pid {daemon.process.pid}" in done.stderr


def test_a_throttled_sweep_waits_and_completes(
    open_site: Callable[..., AbstractContextManager[Site]], tmp_path: Path
) -> None:
    """After each 429 it makes no call until the named time."""
    with open_site(tmp_path, items=14, variants_per_item=2) as site:
        site.api.faults.throttle = Throttle(calls=8, window_s=1)
        summary = output(site.syncd("reconcile-now", "--json"))
        assert (summary["result"], summary["items"]) == ("complete", 14)
        assert summary["throttled"] > 0
        assert site.differences == 0
        refused = [call.at for call in site.api.calls if call.status == 429]
        assert len(refused) == summary["throttled"]
        assert len(site.api.calls) == summary["calls"]
        # Retry-After is a whole second here; calls in flight may still arrive.
        for at in refused:
            hurried = [
                call
                for call in site.api.calls
                if at + timedelta(seconds=0.3) < call.at < at + timedelta(seconds=0.95)
            ]
            assert hurried == []


def test_never_more_calls_than_configured(
    open_site: Callable[..., AbstractContextManager[Site]], tmp_path: Path
) -> None:
    """The next process counts the calls of the last minute too."""
    with open_site(tmp_path, items=8, variants_per_item=1) as site:
        site.configure(dreamship={"calls_per_minute": 6})
        process = subprocess.Popen(
            site.command("reconcile-now", "--json"), env=site.environ, stdout=subprocess.DEVNULL
        )
        site.until(lambda: site.mirror.exists() and len(site.api.calls) == 1)
        process.send_signal(signal.SIGKILL)
        process.wait()
        began = time.monotonic()
        process = subprocess.Popen(
            site.command("reconcile-now", "--json"),
            env=site.environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        lock = site.mirror.with_name(f"{site.mirror.name}.lock")
        site.until(lambda: lock.read_text() == str(process.pid))
        time.sleep(0.7)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert len(site.api.calls) <= 1 + int((time.monotonic() - began) / 10)


class Endless:
    """A sweep that is always at its beginning, as far as `ControlHandlers` asks."""

    async def request(self, *_: object, **__: object) -> tuple[int, bool]:
        return 1, False

    async def wait(self, _: int, on_progress: Callable[[SweepProgress], None]) -> None:
        on_progress(SweepProgress(1, datetime.now(UTC), 0, None, 0))
        await asyncio.Event().wait()

    def eta(self, _: SweepProgress) -> None:
        return None


def test_ctrl_c_ends_the_command_without_log_errors() -> None:
    """Asyncio would log each unfinished task as an error."""

    async def leave() -> set[asyncio.Task[Any]]:
        orders = ControlHandlers(
            cast("Any", SimpleNamespace(sweep_manager=Endless())), cast("Any", None)
        )
        notified = orders.reconcile(messages.ReconcileRequest())
        assert await anext(notified) == messages.Progress(0, None, None)
        waiting = asyncio.ensure_future(anext(notified))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        await asyncio.sleep(0)
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert asyncio.run(leave()) == set()


def test_lists_with_variants_save_calls(site: Site) -> None:
    """A row with its variants counts as a read of the item."""
    plain, _ = two_items(site)
    # The longest row may be cut short, so its item is asked, too.
    longest = max(site.catalogue.names)
    site.catalogue.add_variant(longest)
    site.api.faults.lists_variants = lambda item_id: item_id != plain
    # The first time each item is read by itself: only that shows that the rows are whole.
    first = output(site.syncd("reconcile-now", "--json"))
    assert (first["result"], first["added"], first["calls"]) == ("complete", 21, 6)
    site.api.calls.clear()
    summary = output(site.syncd("reconcile-now", "--json"))
    assert (summary["result"], summary["items"], summary["calls"]) == ("complete", 5, 3)
    assert site.differences == 0
    assert set(item_calls(site)) == {f"/v1/items/{plain}/", f"/v1/items/{longest}/"}


def test_a_short_listing_removes_nothing(site: Site) -> None:
    """An item that moved between two pages is read before it counts as removed."""
    output(site.syncd("reconcile-now", "--json"))
    hidden, _ = two_items(site)
    name = site.catalogue.names.pop(hidden)
    site.api.faults.after_page = lambda _: site.catalogue.names.update({hidden: name})
    summary = output(site.syncd("reconcile-now", "--json"))
    assert (summary["result"], summary["items"], summary["removed"]) == ("complete", 5, 0)
    assert site.differences == 0


def test_a_broken_answer_is_retried(site: Site) -> None:
    """The second answer is used."""
    output(site.syncd("reconcile-now", "--json"))
    site.api.calls.clear()
    one, other = two_items(site)
    # Few of them: each failure in a row doubles the pause before the next try.
    site.api.faults.of_item = {one: ["html"], other: ["truncate"]}
    site.api.faults.of_page = ["garbage"]
    summary = output(site.syncd("reconcile-now", "--json"))
    assert (summary["result"], summary["removed"], summary["changed"]) == ("complete", 0, 0)
    calls = item_calls(site)
    assert (calls[f"/v1/items/{one}/"], calls[f"/v1/items/{other}/"]) == (2, 2)
    assert sum(calls.values()) == 7


@pytest.mark.parametrize("item", ["0", "-1", "77x", str(2**63)])
def test_an_invalid_item_id_is_exit_2(idle: Site, item: str) -> None:
    """Before any call."""
    done = idle.syncd("reconcile-now", "--item", item)
    assert done.returncode == 2
    assert not idle.api.calls


def test_an_item_outside_the_catalog_is_exit_2(idle: Site) -> None:
    """It is not mirrored."""
    one, other = two_items(idle)
    idle.configure(catalog={"items": [one]})
    done = idle.syncd("reconcile-now", "--item", str(other))
    assert done.returncode == 2
    assert str(other) in done.stderr
