"""The world of a seed. All random properties are drawn here, so that a run can be described."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import Any, Literal

Naming = Literal["id", "object", "item_id", "none", "mixed"]
Rows = Literal["bare", "with variants", "mixed"]
Scope = Literal["all", "items", "categories"]
CutRows = Literal["no", "empty", "shortened"]
CacheTrace = Literal["age", "date", "mark"]


LONGEST_WITH_BACKGROUND_S = 600.0


@dataclass(frozen=True)
class Scenario:
    """One world. Shares are parts of one."""

    seed: int
    # The catalogue and how it changes.
    items: int
    most_variants: int
    changes: int
    horizon_s: float
    hot_share: float  # of changes that hit the same two variants
    bursts: bool  # several changes in the same instant
    additions: float
    removals: float  # always silent
    reported_additions: float  # of additions; the others are silent
    # Clocks.
    host_offset_s: float
    source_offset_s: float
    event_offset_s: float  # of event timestamps against `Date`
    lead_s: float  # a timestamp is taken up to this long before its change is visible
    whole_seconds: bool
    unplaced: float  # timestamps missing or malformed
    # Deliveries.
    dropped: float
    doubled: float
    delayed: float
    longest_delay_s: float
    answers_lost: float
    latest_data: bool
    nameless: float  # events without a uuid
    vague: float  # events that report a change without a value
    naming: Naming
    # Reads.
    lag_s: float
    latency_s: float
    page_size: int
    newest_first: bool
    rows: Rows
    unreachable: float
    invalid: float
    outages: tuple[tuple[float, float, bool], ...]  # from, to, refused
    throttle: int | None
    calls_per_minute: int
    # The daemon.
    scope: Scope
    deaths: int
    disk_faults: float
    # Parts that are broken for a while, and answers of other hosts than Dreamship.
    broken_item: bool
    broken_page: int | None
    foreign: float  # of calls: a gateway answers 404 or 403 in its own form
    cut_rows: CutRows
    # A cache in front of the source, and answers with a Date of another time.
    cache_s: float
    cache_trace: CacheTrace
    cache_names_lifetime: bool
    wild_dates: float
    # The host: its wall clock is set (at, by); it stands still (from, for, and whether its elapsed
    # time continues, which it does not in a paused virtual machine). Drawn last.
    clock_steps: tuple[tuple[float, float], ...] = ()
    naps: tuple[tuple[float, float, bool], ...] = ()
    # Malformed data.
    garbled: float = 0.0  # events whose body is no JSON, or truncated JSON
    partial: float = 0.0  # reads of which some variants have no usable id
    background: int = 0  # background calls a minute
    statuses: float = 0.0  # of changes after which an item has another status, silently

    @property
    def is_reported(self) -> bool:
        """Whether a delivery reports every change, and arrives."""
        return self.dropped == self.removals == self.statuses == 0 and self.reported_additions == 1

    @property
    def hides_lost(self) -> bool:
        """Whether a cache stores answers that are lost on their way.

        Then no sweep may be complete for days (seeds 31094 and 50018), and none claims it.
        """
        return self.cache_s > 0 and (self.unreachable > 0 or self.invalid > 0)

    @property
    def is_calm(self) -> bool:
        """Whether a read waits only for its turn."""
        return (
            self.throttle is None
            and self.unreachable == self.invalid == self.disk_faults == 0
            and self.foreign == self.partial == 0
            and not self.broken_item
            and self.broken_page is None
            and not self.outages
            and self.deaths == 0
            and self.cache_s == 0
            and not self.naps
        )

    def chance(self, of: str) -> random.Random:
        """Return a separate random generator, so that one part does not influence another."""
        return random.Random(f"{self.seed}/{of}")

    def seconds(self, name: str) -> timedelta:
        """Return one of the offsets as a duration."""
        return timedelta(seconds=getattr(self, f"{name}_offset_s"))

    def __str__(self) -> str:
        return ", ".join(f"{one.name}={getattr(self, one.name)}" for one in fields(self))


def drawn(seed: int) -> Scenario:
    """Return the world of a seed."""
    rng = random.Random(seed)
    is_reported = rng.random() < 0.5
    is_calm = rng.random() < 0.4

    def sometimes(share: float, low: float, high: float) -> float:
        return round(rng.uniform(low, high), 3) if rng.random() < share else 0.0

    def when_rough(value: float) -> float:
        return 0.0 if is_calm else value

    outages = []
    for _ in range(0 if is_calm else rng.choice([0, 0, 0, 1, 2])):
        begins = rng.uniform(0, 2400)
        outages.append((begins, begins + rng.choice([5, 60, 400]), rng.random() < 0.3))
    # A separate generator, so that a new field does not change other worlds.
    garbling = random.Random(f"{seed}/garbling")
    calls_per_minute = rng.choice([30, 45, 60] if is_calm else [10, 30, 45, 60])
    throttled = not is_calm and rng.random() < 0.4
    world = Scenario(
        seed=seed,
        items=rng.choice([1, 2, 3, 4, 5, 6, 7]),
        most_variants=rng.randint(1, 4),
        changes=rng.randint(25, 60),
        horizon_s=rng.choice([60.0, 240.0, 600.0, 900.0, 2400.0]),
        hot_share=rng.choice([0.0, 0.5, 0.9]),
        bursts=rng.random() < 0.4,
        additions=sometimes(0.6, 0.02, 0.15),
        removals=0.0 if is_reported else sometimes(0.7, 0.02, 0.15),
        reported_additions=1.0 if is_reported else rng.choice([0.0, 0.5, 1.0]),
        host_offset_s=sometimes(0.5, -600, 600),
        source_offset_s=sometimes(0.5, -240, 240),
        event_offset_s=sometimes(0.6, -240, 240),
        lead_s=rng.choice([0.0, 0.3, 10.0]),
        whole_seconds=rng.random() < 0.3,
        unplaced=sometimes(0.3, 0.05, 0.6),
        dropped=0.0 if is_reported else sometimes(0.9, 0.05, 0.6),
        doubled=sometimes(0.5, 0.05, 0.4),
        delayed=sometimes(0.6, 0.05, 0.5),
        longest_delay_s=rng.choice([60.0, 600.0, 600.0, 6 * 3600.0, 72 * 3600.0]),
        answers_lost=sometimes(0.4, 0.02, 0.3),
        latest_data=rng.random() < 0.4,
        nameless=sometimes(0.2, 0.1, 0.7),
        vague=sometimes(0.2, 0.02, 0.2),
        naming=rng.choice(["id", "object", "item_id", "none", "mixed"]),
        lag_s=rng.choice([0.0, 3.0, 20.0]),
        latency_s=rng.choice([0.3, 3.0, 30.0]),
        page_size=rng.choice([1, 2, 3, 50]),
        newest_first=rng.random() < 0.5,
        rows=rng.choice(["bare", "with variants", "mixed"]),
        unreachable=when_rough(sometimes(0.5, 0.02, 0.3)),
        invalid=when_rough(sometimes(0.3, 0.02, 0.15)),
        outages=tuple(outages),
        throttle=rng.randint(max(4, calls_per_minute // 3), calls_per_minute)
        if throttled
        else None,
        calls_per_minute=calls_per_minute,
        scope=rng.choice(["all", "all", "all", "items", "categories"]),
        deaths=0 if is_calm else rng.choice([0, 1, 2, 4]),
        disk_faults=when_rough(sometimes(0.2, 0.002, 0.03)),
        broken_item=not is_calm and rng.random() < 0.2,
        broken_page=rng.choice([1, 2]) if not is_calm and rng.random() < 0.2 else None,
        foreign=when_rough(sometimes(0.3, 0.02, 0.2)),
        cut_rows=rng.choice(["no", "no", "empty", "shortened"]),
        cache_s=when_rough(rng.choice([0.0, 0.0, 20.0, 60.0, 300.0, 900.0])),
        cache_trace=rng.choice(["age", "date", "mark"]),
        cache_names_lifetime=rng.random() < 0.5,
        wild_dates=sometimes(0.2, 0.02, 0.3),
        garbled=garbling.choice([0.0, 0.0, 0.05, 0.3]),
        partial=when_rough(garbling.choice([0.0, 0.0, 0.0, 0.1])),
    )
    # Days of background calls take minutes of the processor.
    is_short = world.longest_delay_s <= LONGEST_WITH_BACKGROUND_S and not world.cache_s
    background = random.Random(f"{seed}/background").choice([0, 2, 15]) if is_short else 0
    statuses = random.Random(f"{seed}/statuses").choice([0.0, 0.0, 0.3])
    world = replace(world, background=background, statuses=statuses)
    return replace(world, **_host(rng, world.horizon_s, is_calm=is_calm))


def _host(rng: random.Random, horizon_s: float, *, is_calm: bool) -> dict[str, Any]:
    """Draw the events of the host; last, so that the other draws do not change."""
    forms = [-3600.0, -600.0, -40.0, -3.0, 3.0, 40.0]
    if not is_calm:
        forms += [600.0, 3600.0, 365 * 86_400.0, -365 * 86_400.0]
    steps = [
        (rng.uniform(0, 1.2 * horizon_s), rng.choice(forms))
        for _ in range(rng.choice([0, 0, 1, 4]))
    ]
    naps: list[tuple[float, float, bool]] = []
    for _ in range(0 if is_calm else rng.choice([0, 0, 1, 2])):
        begins = (naps[-1][0] + naps[-1][1] if naps else 0.0) + rng.uniform(0, horizon_s)
        naps.append((begins, rng.choice([5.0, 90.0, 7200.0]), rng.random() < 0.5))
    return {"clock_steps": tuple(sorted(steps)), "naps": tuple(naps)}
