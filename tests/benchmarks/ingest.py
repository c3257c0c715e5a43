"""How much of what the machine can do is left when every delivery is durable."""

from __future__ import annotations

import contextlib
import importlib.util
import sqlite3
from pathlib import Path
from statistics import median

from benchmarks import deliveries
from benchmarks.processes import Load, Place, Running, wrk
from benchmarks.table import Row

VARIANTS = 10_000
CONNECTIONS = (32, 128)
SECONDS = 4
# More than the fastest that keeps anything answers in that time.
DELIVERIES = 100_000
KEEPING = ("syncd", "fastapi")


def measure(folder: Path, rounds: int) -> list[Row]:
    """Alternate the daemon and the three others, and compare medians."""
    file = folder / "deliveries"
    deliveries.write(file, DELIVERIES, VARIANTS)
    kinds = ["empty", "signed", "syncd"]
    if importlib.util.find_spec("fastapi"):
        kinds.append("fastapi")
    measured: dict[tuple[str, int], list[Load]] = {}
    for number in range(rounds):
        for connections in CONNECTIONS:
            # Turned round each time: who comes first after a pause gains by it.
            for kind in kinds if number % 2 else reversed(kinds):
                place_folder = folder / f"{kind}-{number}-{connections}"
                place_folder.mkdir()
                load = once(Place(place_folder), kind, file, connections)
                measured.setdefault((kind, connections), []).append(load)
    return [row for connections in CONNECTIONS for row in _rows(measured, connections)]


def once(place: Place, kind: str, file: Path, connections: int) -> Load:
    """Load one server on a new mirror, and check that it kept what it answered."""
    place.fill(VARIANTS)
    with _serving(place, kind) as running:
        load = wrk(running.url, file, connections=connections, seconds=SECONDS)
    if load.not_200 or load.broken:
        raise AssertionError(f"{kind}: not all were answered 200: {load}")
    if kind in KEEPING:
        kept = _kept(place.mirror)
        if not load.requests <= kept <= load.requests + connections:
            raise AssertionError(f"{kind}: {load.requests} were answered 200 and {kept} are kept")
    return load


def _serving(place: Place, kind: str) -> contextlib.AbstractContextManager[Running]:
    return place.daemon() if kind == "syncd" else place.other(kind)


def _kept(mirror: Path) -> int:
    with contextlib.closing(sqlite3.connect(mirror)) as connection:
        kept, applied = connection.execute(
            """SELECT count(*), (SELECT count(*) FROM change_log) FROM deliveries
               WHERE outcome = 'applied' AND body IS NOT NULL"""
        ).fetchone()
    if kept != applied:
        raise AssertionError(f"{kept} deliveries were applied and {applied} changes are told")
    return int(kept)


def _rows(measured: dict[tuple[str, int], list[Load]], connections: int) -> list[Row]:
    name = f"ingest, c = {connections}"
    rates = {
        kind: median(load.per_second for load in loads)
        for (kind, number), loads in measured.items()
        if number == connections
    }
    slowest = {
        kind: median(load.p99_ms for load in loads)
        for (kind, number), loads in measured.items()
        if number == connections
    }
    told = {kind: f"{rates[kind]:,.0f}/s, p99 {slowest[kind]:.1f} ms" for kind in rates}
    mine = told["syncd"]
    rows = [
        Row.at_least(
            f"{name}: of an empty Starlette handler",
            rates["syncd"] / rates["empty"],
            0.5,
            f"{mine}; empty {told['empty']}",
        ),
        Row.told(
            f"{name}: of signature + JSON alone",
            rates["syncd"] / rates["signed"],
            f"signed {told['signed']}",
        ),
        Row.at_most(
            f"{name}: 99th percentile, times the empty handler's",
            slowest["syncd"] / slowest["empty"],
            2.0,
        ),
    ]
    if "fastapi" in rates:
        rows.append(
            Row.at_least(
                f"{name}: times FastAPI with a commit each",
                rates["syncd"] / rates["fastapi"],
                6.0,
                f"FastAPI {told['fastapi']}",
            )
        )
    return rows
