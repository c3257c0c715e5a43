"""The cost of a read that changes nothing, at the rate of background reads."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from benchmarks import deliveries
from benchmarks.deliveries import KEY
from benchmarks.mirrors import VARIANTS_PER_ITEM
from benchmarks.processes import Place, Running, post
from benchmarks.sweeping import Shelves, sweep
from benchmarks.table import Row
from syncd.demo.fake_dreamship import Catalog, serving_in_thread

VARIANTS = 10_000
CALLS_PER_MINUTE = 15
# After the start: the first clean-up, and the first looks at everything.
WARM_UP_S = 30
SECONDS = 240
# More items wait than are read meanwhile, so that the pace stays the same.
ITEMS = 2 * CALLS_PER_MINUTE * SECONDS // 60
WITHIN_S = 120
COMMITS = "syncd_commits_total"


class Costs(Struct, frozen=True):
    """The costs of a daemon until now."""

    cpu_s: float
    written_bytes: int
    commits: float
    reads: int

    def since(self, before: Costs) -> Costs:
        """Return the costs between two moments."""
        return Costs(
            self.cpu_s - before.cpu_s,
            self.written_bytes - before.written_bytes,
            self.commits - before.commits,
            self.reads - before.reads,
        )


def measure(folder: Path, rounds: int) -> list[Row]:
    """Compare a daemon at rest with the same daemon while it confirms items, once."""
    del rounds
    catalogue = Shelves(Catalog(lambda: datetime.now(UTC)), (KEY,), variants=VARIANTS)
    with serving_in_thread(catalogue) as base_url:
        # The first read of an item stores fields that the mirror of a benchmark does not have.
        place = Place(folder, base_url=base_url)
        place.fill(VARIANTS)
        with place.daemon() as daemon:
            sweep(place, daemon)
        place = Place(
            folder,
            base_url=base_url,
            calls_per_minute=CALLS_PER_MINUTE,
            admin="127.0.0.1:0",
            settle="1s",
        )
        with place.daemon() as daemon:
            return _compare(daemon, catalogue, folder / "deliveries")


def _compare(daemon: Running, shelves: Shelves, file: Path) -> list[Row]:
    time.sleep(WARM_UP_S)
    rest = _costs(daemon, shelves, SECONDS)
    deliveries.write_unchanged(file, ITEMS)
    answers = post(daemon.url, file, connections=1).answers
    if list(answers) != ['200{"outcome":"unchanged"}']:
        raise AssertionError(f"the deliveries change something: {answers}")
    _wait_for_reads(shelves)
    busy = _costs(daemon, shelves, SECONDS)
    if not 0.8 <= busy.reads / (CALLS_PER_MINUTE * SECONDS / 60) <= 1.2 or rest.reads:
        raise AssertionError(f"the pace is wrong: {busy.reads} reads, {rest.reads} at rest")
    name = f"unchanged read at {CALLS_PER_MINUTE} a minute"
    kb = (busy.written_bytes - rest.written_bytes) / 1024 / busy.reads
    ms = 1000 * (busy.cpu_s - rest.cpu_s) / busy.reads
    detail = f"{busy.reads} reads of {VARIANTS_PER_ITEM} variants; without the cost at rest"
    commits = busy.commits * 10 / SECONDS
    rows = [Row.at_most(f"{name}: processor a read", ms, 1.5, detail, "ms")]
    if busy.written_bytes:
        rows.append(Row.at_most(f"{name}: written a read", kb, 6, unit="KB"))
    at_rest = f"at rest {rest.commits * 10 / SECONDS:.2f}"
    return [*rows, Row.at_most(f"{name}: commits in ten seconds", commits, 1, at_rest, "")]


def _costs(daemon: Running, shelves: Shelves, seconds: float) -> Costs:
    # The page of metrics costs processor time: it is asked for outside of the time measured.
    commits = daemon.metric(COMMITS)
    before = Costs(daemon.cpu_s, daemon.written_bytes, commits, shelves.reads)
    time.sleep(seconds)
    after = Costs(daemon.cpu_s, daemon.written_bytes, 0, shelves.reads)
    return Costs(after.cpu_s, after.written_bytes, daemon.metric(COMMITS), after.reads).since(
        before
    )


def _wait_for_reads(shelves: Shelves) -> None:
    deadline, before = time.monotonic() + WITHIN_S, shelves.reads
    while shelves.reads < before + 1:
        if time.monotonic() > deadline:
            raise AssertionError("the daemon reads no item")
        time.sleep(0.05)
