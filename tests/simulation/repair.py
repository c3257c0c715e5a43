"""How long a lost change stays wrong, in virtual time: today's policy, and that of version 0.1.0.

`python tests/simulation/repair.py` prints the table of syncd/docs/reconciling.md. Both policies run
in the same worlds: the real services, schedule and heartbeat, a source without errors, and 20
changes an hour at random variants.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import multiprocessing
import random
import sqlite3
import sys
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from simulation.days import HOUR_S, Day, lived
from syncd.core.timestamps import from_text

Loss = Literal["single", "outages", "off", "none"]
LOSSES: tuple[Loss, ...] = ("single", "outages", "off")
CHANGES_PER_HOUR = 20
LOST_SHARE = 0.02
LONGEST_OUTAGE_S = 12 * HOUR_S
# The share of the time that outages take.
OUTAGE_SHARE = 1 / 3
CHECK_S = 15.0
# The background calls a minute, and whether rows of the list change with the availability.
POLICIES = {"sweeps": (0, False), "background": (15, False), "rows": (15, True)}
NAMES = {"single": "2 % lost", "outages": "outages up to 12 h", "off": "endpoint off for good"}


@dataclass
class Repairs:
    """The minutes that each lost change stayed wrong, and the calls a minute.

    `oldest`: the greatest age of `freshness.oldest_confirmed_at`, in minutes.
    """

    minutes: list[float] = field(default_factory=list)
    calls: list[float] = field(default_factory=list)
    most_calls_an_hour: int = 0
    oldest: float = 0.0

    def __str__(self) -> str:
        mean = sum(self.minutes) / len(self.minutes) if self.minutes else 0.0
        longest = max(self.minutes, default=0.0)
        calls = sum(self.calls) / len(self.calls)
        return (
            f"{mean:6.1f} / {longest:5.0f} min, {calls:5.1f} calls a minute, "
            f"{self.most_calls_an_hour} in the busiest hour, {len(self.minutes)} changes, "
            f"oldest answer {self.oldest:.1f} min"
        )


class _World:
    """The changes of one world, and how long the mirror does not have them."""

    def __init__(self, day: Day, loss: Loss, seed: int, late_s: float, outage_share: float) -> None:
        self.repairs = Repairs()
        self._day = day
        self._loss = loss
        self._late_s = late_s
        self._longest_pause_s = LONGEST_OUTAGE_S * (1 / outage_share - 1)
        self._chance = random.Random(seed)
        self._wrong_since: dict[int, float] = {}
        self._outage: tuple[float, float] = (0.0, 0.0)

    async def change(self) -> None:
        """Change variants, and deliver the changes that are not lost."""
        day, chance = self._day, self._chance
        while True:
            await asyncio.sleep(chance.expovariate(CHANGES_PER_HOUR / HOUR_S))
            variant_id = chance.choice(list(day.source.values))
            old = day.source.values[variant_id]
            value = chance.choice([one for one in ("in_stock", "out_of_stock") if one != old])
            day.source.values[variant_id] = value
            if self._is_lost():
                self._wrong_since.setdefault(variant_id, asyncio.get_running_loop().time())
            else:
                self._wrong_since.pop(variant_id, None)
                asyncio.get_running_loop().create_task(self._deliver(variant_id, value))

    async def check(self) -> None:
        """Count the changes that the mirror has now."""
        loop = asyncio.get_running_loop()
        with closing(sqlite3.connect(self._day.services.database.path)) as mirror:
            while True:
                await asyncio.sleep(CHECK_S)
                (oldest_at,) = mirror.execute(
                    "SELECT oldest_confirmed_at FROM freshness"
                ).fetchone()
                age = self._day.clock.now() - from_text(oldest_at)
                self.repairs.oldest = max(self.repairs.oldest, age.total_seconds() / 60)
                for variant_id, since in list(self._wrong_since.items()):
                    (value,) = mirror.execute(
                        "SELECT availability FROM availability WHERE variant_id = ?", (variant_id,)
                    ).fetchone()
                    if value == self._day.source.values[variant_id]:
                        self.repairs.minutes.append((loop.time() - since) / 60)
                        del self._wrong_since[variant_id]

    async def count_calls(self) -> None:
        """Remember the calls of the busiest hour."""
        while True:
            before = self._day.source.calls
            await asyncio.sleep(HOUR_S)
            calls = self._day.source.calls - before
            self.repairs.most_calls_an_hour = max(self.repairs.most_calls_an_hour, calls)

    async def _deliver(self, variant_id: int, value: str) -> None:
        await asyncio.sleep(self._late_s)
        await self._day.deliver(variant_id, value)

    def _is_lost(self) -> bool:
        if self._loss in {"off", "none"}:
            return self._loss == "off"
        if self._loss == "single":
            return self._chance.random() < LOST_SHARE
        now_s = asyncio.get_running_loop().time()
        if now_s > self._outage[1]:
            begins_s = now_s + self._chance.uniform(0, self._longest_pause_s)
            self._outage = begins_s, begins_s + self._chance.uniform(0, LONGEST_OUTAGE_S)
        return self._outage[0] <= now_s


async def _live(
    day: Day, *, loss: Loss, days: float, seed: int, late_s: float, outage_share: float
) -> Repairs:
    world = _World(day, loss, seed, late_s, outage_share)
    calls_before = day.source.calls
    tasks = [asyncio.create_task(work()) for work in (world.change, world.check, world.count_calls)]
    await day.beat_for(days * 24 * HOUR_S)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    world.repairs.calls.append((day.source.calls - calls_before) / (days * 24 * 60))
    return world.repairs


def repairs(
    loss: Loss,
    *,
    items: int,
    background: int = 15,
    rows_predict: bool = False,
    days: float = 2,
    seed: int = 1,
    late_s: float = 1.0,
    outage_share: float = OUTAGE_SHARE,
) -> Repairs:
    """Live some days in one world, and return how long lost changes stayed wrong."""
    return lived(
        functools.partial(
            _live, loss=loss, days=days, seed=seed, late_s=late_s, outage_share=outage_share
        ),
        items=items,
        background=background,
        rows_predict=rows_predict,
    )


def _run(case: functools.partial[Repairs]) -> Repairs:
    return case()


def main() -> None:
    """Print how long lost changes stay wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, nargs="*", default=[100, 300, 1000, 10_000])
    parser.add_argument("--losses", nargs="*", choices=LOSSES, default=LOSSES)
    parser.add_argument("--days", type=float, default=4, help="of virtual time, for each world")
    parser.add_argument("--worlds", type=int, default=2)
    parser.add_argument("--late", type=float, default=1.0, help="seconds from change to delivery")
    parser.add_argument("--outage-share", type=float, default=OUTAGE_SHARE, help="of the time")
    parser.add_argument("--policies", nargs="*", choices=POLICIES, default=list(POLICIES))
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    with multiprocessing.get_context("fork").Pool(options.processes) as pool:
        for items in options.items:
            for loss in options.losses:
                for name in options.policies:
                    background, rows_predict = POLICIES[name]
                    cases = [
                        functools.partial(
                            repairs,
                            loss,
                            items=items,
                            background=background,
                            rows_predict=rows_predict,
                            days=options.days,
                            seed=seed,
                            late_s=options.late,
                            outage_share=options.outage_share,
                        )
                        for seed in range(options.worlds)
                    ]
                    total = Repairs()
                    for one in pool.imap_unordered(_run, cases):
                        total.minutes += one.minutes
                        total.calls += one.calls
                        total.oldest = max(total.oldest, one.oldest)
                        total.most_calls_an_hour = max(
                            total.most_calls_an_hour, one.most_calls_an_hour
                        )
                    print(f"{items:6} items, {NAMES[loss]:22} {name:12} {total}", flush=True)


if __name__ == "__main__":
    main()
