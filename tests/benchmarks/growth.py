"""The cost of a delivery with a large mirror and a long history."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from benchmarks import deliveries
from benchmarks.posting import Posted
from benchmarks.processes import Place, post
from benchmarks.table import Row
from syncd.core.timestamps import to_text

SIZES = (1_000, 100_000, 1_000_000)
CONNECTIONS = 32
DELIVERIES = 20_000
OLD = 60_000


def measure(folder: Path, rounds: int) -> list[Row]:
    """Alternate mirrors of several sizes, then clean one up under load."""
    places: dict[int, Place] = {}
    for size in SIZES:
        (folder / str(size)).mkdir()
        places[size] = Place(folder / str(size))
        places[size].fill(size)
    taken: dict[int, list[Posted]] = {size: [] for size in SIZES}
    grown: list[float] = []
    for number in range(rounds):
        for size in SIZES if number % 2 else reversed(SIZES):
            before = places[size].mirror.stat().st_size
            taken[size].append(_post(places[size], size, folder))
            if size == SIZES[1]:
                grown.append((places[size].mirror.stat().st_size - before) / DELIVERIES)
    rates = {size: median(one.per_second for one in taken[size]) for size in SIZES}
    detail = ", ".join(f"{size:,}: {rate:,.0f}/s" for size, rate in rates.items())
    return [
        Row.at_least(
            "growth: ingest at 1,000,000 variants, of that at 1,000",
            rates[SIZES[-1]] / rates[SIZES[0]],
            0.9,
            detail,
        ),
        Row.measured(
            "growth: database bytes a delivery (body, indexes, change)", median(grown), unit="bytes"
        ),
        *_clean(folder, rounds),
    ]


def _post(place: Place, variants: int, folder: Path) -> Posted:
    file = folder / "deliveries"
    deliveries.write(file, DELIVERIES, variants)
    with place.daemon() as daemon:
        posted = post(daemon.url, file, connections=CONNECTIONS)
    if sum(n for answer, n in posted.answers.items() if answer.startswith("200")) != DELIVERIES:
        raise AssertionError(f"not all were answered 200: {posted.answers}")
    return posted


def _clean(folder: Path, rounds: int) -> list[Row]:
    """Compare the longest wait of a delivery with and without retention at work."""
    file = folder / "deliveries"
    deliveries.write(file, 150_000, 10_000)
    longest: dict[bool, list[float]] = {False: [], True: []}
    slowest: dict[bool, list[float]] = {False: [], True: []}
    for number in range(rounds):
        for is_cleaning in (False, True):
            place_folder = folder / f"clean-{number}-{is_cleaning}"
            place_folder.mkdir()
            place = Place(place_folder)
            place.fill(10_000)
            if is_cleaning:
                _age(place.mirror, OLD)
            posted = _post_and_clean(place, file, is_cleaning=is_cleaning)
            longest[is_cleaning].append(posted.max_ms)
            slowest[is_cleaning].append(posted.p99_ms)
    without, cleaning = median(longest[False]), median(longest[True])
    return [
        Row.at_most(
            "growth: longest wait while 60,000 old deliveries and changes are deleted",
            cleaning,
            50,
            f"without: {without:.0f} ms; p99 {median(slowest[True]):.1f} ms, "
            f"without: {median(slowest[False]):.1f} ms",
            "ms",
        )
    ]


def _post_and_clean(place: Place, file: Path, *, is_cleaning: bool) -> Posted:
    # The daemon cleans up soon after it started, and every hour.
    with place.daemon() as daemon:
        posted = post(daemon.url, file, connections=CONNECTIONS, seconds=12)
        if is_cleaning:
            _wait_until_clean(place.mirror)
    return posted


def _wait_until_clean(mirror: Path) -> None:
    deadline = time.monotonic() + 60
    with contextlib.closing(sqlite3.connect(mirror)) as connection:
        while connection.execute("SELECT 1 FROM deliveries WHERE event_id LIKE 'old%'").fetchone():
            if time.monotonic() > deadline:
                raise AssertionError("it did not clean up")
            time.sleep(0.1)


def _age(mirror: Path, count: int) -> None:
    """Add deliveries and changes that are older than their retention."""
    at = to_text(datetime.now(UTC) - timedelta(days=100))
    body = next(iter(deliveries.bodies(1, 1)))[2]
    with contextlib.closing(sqlite3.connect(mirror)) as connection, connection:
        connection.executemany(
            """INSERT INTO deliveries (event_id, content_key, received_at, variant_id, outcome,
                   body) VALUES (?, '', ?, ?, 'applied', ?)""",
            ((f"old-{number}", at, 48_000 + number % 10_000, body) for number in range(count)),
        )
        connection.executemany(
            """INSERT INTO change_log (variant_id, old_sellable, sellable, cause, rule, missed,
                   during_downtime, occurred_at, recorded_at)
               VALUES (?, 1, 0, 'webhook', 'newer', 0, 0, ?, ?)""",
            ((48_000 + number % 10_000, at, at) for number in range(count)),
        )
