"""The publication into real servers: the first fill, the lag at several rates, a take-over, memory.

    python tests/benchmarks/publishing.py --variants 1000000 --rates 100,1000,5000

Each measurement has its own server with durable commits, like the server of a shop.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
import tempfile
import threading
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles

sys.path.insert(0, str(Path(__file__).parent.parent))
import targets
from publishing import CopySink, Mirror

from benchmarks import mirrors
from syncd.core.timestamps import to_text
from syncd.publish.lease import Terms
from syncd.publish.publisher import Publisher
from syncd.publish.turn import Turn
from syncd.store import pushes
from syncd.store.connection import open_for_writing

KINDS: tuple[type[targets.Server], ...] = (targets.Postgresql, targets.Mariadb)


def resident_mb() -> float:
    """Return the memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def publisher_of(database: targets.Database, mirror: Path) -> Publisher:
    """Return a publisher that has started."""
    url = database.target_url()
    one = Publisher(url, schema="syncd", source="default", mirror=mirror, keep_changes_s=1e7)
    one.start()
    return one


def fill(database: targets.Database, mirror: Path, variants: int) -> None:
    """Measure the first fill of an empty target."""
    before_mb, started = resident_mb(), time.monotonic()
    cpu_s, most_mb = time.process_time(), 0.0
    one = publisher_of(database, mirror)
    while one.state.mirror_seq is None or one.state.is_copying:
        assert not one.state.failures, one.state.error
        most_mb = max(most_mb, resident_mb())
        time.sleep(0.05)
    took_s = time.monotonic() - started
    print(
        f"  first fill of {variants:,} variants: {took_s:.1f} s, "
        f"{variants / took_s:,.0f} a second, "
        f"{time.process_time() - cpu_s:.1f} s of processor here, {most_mb - before_mb:+.0f} MB"
    )
    one.stop()
    one.join(30)


def lag(database: targets.Database, mirror: Path, rate: int, seconds: float) -> None:
    """Measure the time from a commit in the mirror to its commit in the target."""
    one = publisher_of(database, mirror)
    while one.state.mirror_seq is None or one.state.is_copying:
        time.sleep(0.05)
    committed: list[tuple[int, float]] = []
    lags: list[float] = []
    is_over = threading.Event()

    def watch() -> None:
        done = 0
        while not is_over.is_set() or done < len(committed):
            seq = one.state.mirror_seq or 0
            now = time.monotonic()
            while done < len(committed) and committed[done][0] <= seq:
                lags.append(now - committed[done][1])
                done += 1
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    cpu_s, batches = time.process_time(), one.state.batches
    with closing(open_for_writing(mirror)) as db:
        db.execute("PRAGMA synchronous = NORMAL")
        number, begun = 0, time.monotonic()
        while time.monotonic() < begun + seconds:
            due = int((time.monotonic() - begun) * rate) - number
            if due > 0:
                number += due
                seq = change(db, number, due)
                committed.append((seq, time.monotonic()))
                one.wake()
            time.sleep(0.01)
    is_over.set()
    watcher.join(60)
    p99 = quantiles(lags, n=100)[98]
    print(
        f"  {number / seconds:,.0f} changes a second: lag {median(lags) * 1000:.0f} ms median, "
        f"{p99 * 1000:.0f} ms 99th percentile, {max(lags) * 1000:.0f} ms at most; "
        f"{one.state.batches - batches} transactions, "
        f"{100 * (time.process_time() - cpu_s) / seconds:.0f} % of a processor here, "
        f"{resident_mb():.0f} MB"
    )
    one.stop()
    one.join(30)


def take_over(database: targets.Database, folder: Path) -> None:
    """Measure how long a waiting host with an empty mirror needs, once it has the lease."""
    with closing(Mirror(folder, swept=False)) as mirror:
        turn = Turn()
        turn.wait()
        one = Publisher(
            database.target_url(),
            schema="syncd",
            source="default",
            mirror=mirror.path,
            keep_changes_s=1e7,
            terms=Terms(is_standby=lambda: True, lease_s=2.0, sink=CopySink(mirror)),
            turn=turn,
        )
        one.start()
        while turn.state != "copying":
            time.sleep(0.01)
        started = time.monotonic()
        while not turn.is_active:
            time.sleep(0.01)
        served_s = time.monotonic() - started
        while one.state.is_copying or one.state.mirror_seq is None:
            time.sleep(0.01)
        whole_s = time.monotonic() - started
        (rows,) = mirror.db.execute("SELECT count(*) FROM availability").fetchone()
        print(
            f"  take-over of {rows:,} variants: serves after {served_s:.1f} s, "
            f"the target is compared after {whole_s:.1f} s"
        )
        one.stop()
        one.join(30)


def change(db: sqlite3.Connection, number: int, count: int) -> int:
    """Change so many variants in one transaction; return the last `seq`."""
    at = to_text(datetime.now(UTC))
    first = mirrors.FIRST_VARIANT
    db.execute("BEGIN IMMEDIATE")
    last: int = db.execute("SELECT coalesce(max(seq), 0) FROM change_log").fetchone()[0]
    rows = []
    for index in range(count):
        variant = first + (number + index) * 7919 % 10_000
        value = mirrors.VALUES[(number + index) // 10_000 % 3]
        rows.append((last + index + 1, variant, mirrors.item_of(variant), value, at))
    db.executemany(
        """INSERT INTO change_log (seq, variant_id, item_id, old_availability, availability,
               old_sellable, sellable, cause, rule, missed, during_downtime, occurred_at,
               recorded_at)
           SELECT ?1, ?2, ?3, value, ?4, sellable, ?4 = 'in_stock', 'webhook', 'x', 0, 0, ?5, ?5
           FROM variants WHERE variant_id = ?2""",
        rows,
    )
    db.executemany(
        """UPDATE variants SET value = ?4, sellable = ?4 = 'in_stock', changed_at = ?5,
               confirmed_at = ?5, last_change_seq = ?1 WHERE variant_id = ?2""",
        rows,
    )
    db.execute("COMMIT")
    return last + count


def main() -> None:
    """Run the measurements that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variants", type=int, default=1_000_000)
    parser.add_argument("--rates", default="100,1000,5000")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--take-over", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="syncd-bench-") as name:
        mirror = Path(name) / "availability.db"
        mirrors.fill(mirror, options.variants)
        with closing(open_for_writing(mirror)) as db:
            pushes.identify(db, mirror.stat().st_ino)
        for kind in KINDS:
            with targets.running(kind, durable=True) as server:
                print(f"{server.kind} (load of the machine {os.getloadavg()[0]:.1f})")
                database = server.database()
                fill(database, mirror, options.variants)
                for rate in filter(None, options.rates.split(",")):
                    lag(database, mirror, int(rate), options.seconds)
                if options.take_over:
                    take_over(database, Path(name) / kind.kind)


if __name__ == "__main__":
    main()
