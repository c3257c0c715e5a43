"""Months of deliveries in virtual time: the size of the mirror, and the cost of pruning.

`python tests/simulation/month.py` prints the figures of syncd/docs/performance.md.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from simulation.clock import BEGIN, Inline
from syncd.core.model import Delivery, ItemRead, SourceVariant, VariantDetails
from syncd.core.payload import parse
from syncd.core.policy import Policy
from syncd.demo.fake_dreamship import UPDATED, Catalog, WebhookSender
from syncd.store import Database, deliveries, reads, retention

VALUES = ("in_stock", "out_of_stock", "low_stock")
POLICY = Policy(frozenset({"in_stock", "low_stock"}), timedelta(seconds=60))
BATCH = 100
MISSED_GRACE = timedelta(minutes=10)


@dataclass(frozen=True)
class Evening:
    """The mirror at the end of a day: its rows, its bytes, and the longest slice so far."""

    day: int
    deliveries: int
    changes: int
    quarantined: int
    file_bytes: int
    free_bytes: int
    slice_s: float


class Months:
    """A mirror with days of deliveries that is pruned every hour, like the mirror of a daemon."""

    def __init__(
        self,
        mirror: Path,
        *,
        per_day: int,
        deliveries: timedelta,
        changes: timedelta,
        items: int = 100,
    ) -> None:
        self.now = BEGIN
        self.per_day = per_day
        self._retention = (deliveries, changes)
        self._mirror = mirror
        self._catalogue = Catalog.generate(items, 20, seed=1, now=lambda: self.now)
        self._sender = WebhookSender(self._catalogue, "", ())
        self._variants = sorted(self._catalogue.variants)
        self._rng = random.Random(3)
        self._longest_s = 0.0
        self.database = Database(mirror, executor=Inline())

    def days(self, count: int) -> Iterator[Evening]:
        """Run `count` days; yields the mirror at the end of each."""
        self.database.open()
        try:
            with asyncio.Runner() as runner:
                runner.run(self._fill())
                for day in range(1, count + 1):
                    runner.run(self._live())
                    yield self._evening(day)
        finally:
            self.database.close()

    async def _fill(self) -> None:
        for item_id in self._catalogue.names:
            named = tuple(
                SourceVariant(
                    v.variant_id, v.availability, VariantDetails(v.color, v.color, v.size)
                )
                for v in self._catalogue.of_item(item_id)
            )
            read = ItemRead(item_id, "An item", named, self.now, self.now)
            await self.database.write(partial(reads.apply, read=read, policy=POLICY, now=self.now))

    async def _live(self) -> None:
        """Apply the deliveries of a day and prune after each hour; one delivery is quarantined."""
        today = self.now
        evening = today + timedelta(days=1)
        pause = timedelta(days=1) * BATCH / self.per_day
        hour = today + timedelta(hours=1)
        while self.now < evening:
            is_first = self.now == today
            batch = [self._delivery() for _ in range(BATCH)]
            if is_first:
                body = b'{"object": "item_variant", "event": {"action": "%b", "at": "%d"}}'
                named = (UPDATED.encode(), self.now.timestamp())
                batch[0] = parse(body % named, self.now)
            await self._deliver(batch, self.now)
            self.now = min(self.now + pause, evening)
            while hour <= self.now:
                await self._prune(hour)
                hour += timedelta(hours=1)

    def _delivery(self) -> Delivery:
        self.now += timedelta(microseconds=1)
        variant_id = self._rng.choice(self._variants)
        old = self._catalogue.variants[variant_id].availability
        event = self._catalogue.set_availability(
            variant_id, self._rng.choice([value for value in VALUES if value != old])
        )
        del self._catalogue.variants[variant_id].history[:-1]
        return parse(self._sender.body(event), self.now)

    async def _deliver(self, batch: list[Delivery], now: datetime) -> None:
        await self.database.write(
            lambda db: deliveries.apply(
                db, batch, POLICY, now=now, source_now=now, missed_grace=MISSED_GRACE
            )
        )

    async def _prune(self, now: datetime) -> None:
        prune = partial(
            retention.prune,
            deliveries_before=now - self._retention[0],
            changes_before=now - self._retention[1],
            now=now,
            missed_grace=MISSED_GRACE,
        )
        gone = 1
        while gone:
            began = time.perf_counter()
            gone = await self.database.write(prune)
            self._longest_s = max(self._longest_s, time.perf_counter() - began)

    def _evening(self, day: int) -> Evening:
        with closing(sqlite3.connect(f"{self._mirror.as_uri()}?mode=ro", uri=True)) as reader:

            def one(sql: str) -> int:
                return int(reader.execute(sql).fetchone()[0])

            page = one("PRAGMA page_size")
            return Evening(
                day,
                one("SELECT count(*) FROM deliveries"),
                one("SELECT count(*) FROM change_log"),
                one("SELECT count(*) FROM deliveries WHERE outcome = 'quarantined'"),
                one("PRAGMA page_count") * page,
                one("PRAGMA freelist_count") * page,
                self._longest_s,
            )


def main() -> None:
    """Print the mirror's size every tenth day."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=150)
    parser.add_argument("--per-day", type=int, default=2000)
    parser.add_argument("--deliveries", type=int, default=30, help="retention in days")
    parser.add_argument("--changes", type=int, default=90, help="retention in days")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        months = Months(
            Path(folder) / "availability.db",
            per_day=options.per_day,
            deliveries=timedelta(days=options.deliveries),
            changes=timedelta(days=options.changes),
        )
        print("day  deliveries  changes  quarantined     file     free  longest slice")
        for one in months.days(options.days):
            if one.day % 10 == 0:
                print(
                    f"{one.day:>3}  {one.deliveries:>10}  {one.changes:>7}  {one.quarantined:>11}"
                    f"  {one.file_bytes / 1e6:>4.1f} MB  {one.free_bytes / 1e6:>4.1f} MB"
                    f"  {one.slice_s * 1e3:>10.1f} ms"
                )


if __name__ == "__main__":
    main()
