"""The cost of a delivery that is on disk before its answer: the daemon, its parts and its peers."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import httpx
from msgspec import Struct

from benchmarks import deliveries
from benchmarks.peers import database
from benchmarks.peers.programs import LABELS as PEER_LABELS
from benchmarks.peers.programs import Peers
from benchmarks.processes import Load, Place, Running, wrk
from benchmarks.table import Row, ServerRow
from syncd.core.signature import HEADER

VARIANTS = 10_000
CONNECTIONS = (1, 32, 128)
SECONDS = 4
# More than the fastest server that stores deliveries can answer in that time.
DELIVERIES = 100_000
LABELS = {
    "empty": "an empty Starlette handler",
    "signed": "signature and JSON alone",
    "syncd": "syncd",
    **PEER_LABELS,
}
# At so many connections: the aims of the daemon. `empty`: at least that share of the empty handler.
AIMS: dict[int, dict[str, float]] = {
    1: {"written_kb": 25},
    32: {"empty": 0.33, "fastapi": 5, "p99": 2.5, "written_kb": 12, "cpu_us": 110},
    128: {"empty": 0.5, "written_kb": 9, "cpu_us": 85},
}


class Measured(Struct, frozen=True):
    """One run of one server: the load, and the cost of each delivery that it accepted."""

    load: Load
    cpu_us: float
    written_kb: float


def measure(
    folder: Path, rounds: int, *, npm: Path | None = None, seconds: int = SECONDS
) -> list[Row | ServerRow]:
    """Alternate the daemon and the other servers, and compare medians."""
    file = folder / "deliveries"
    deliveries.write(file, DELIVERIES, VARIANTS)
    peers = Peers(folder / "peers", npm)
    kinds = ["empty", "signed", "syncd", *peers.names]
    measured: dict[tuple[str, int], list[Measured]] = {}
    for number in range(rounds):
        for connections in CONNECTIONS:
            # Each round has the other order: the first server after a pause is a little faster.
            for kind in kinds if number % 2 else reversed(kinds):
                place_folder = folder / f"{kind}-{number}-{connections}"
                place_folder.mkdir()
                one = once(Place(place_folder), kind, file, connections, peers, seconds=seconds)
                measured.setdefault((kind, connections), []).append(one)
    servers = {
        (kind, connections): _server(kind, connections, runs)
        for (kind, connections), runs in measured.items()
    }
    return [
        *(row for connections in CONNECTIONS for row in _aims(servers, connections)),
        *(Row.skipped(f"ingest: {LABELS[name]}", why) for name, why in peers.skipped.items()),
        *(servers[kind, connections] for connections in CONNECTIONS for kind in kinds),
    ]


def once(
    place: Place, kind: str, file: Path, connections: int, peers: Peers, *, seconds: int
) -> Measured:
    """Load one server on a new database; raise AssertionError if an accepted delivery is lost."""
    with _serving(place, kind, peers) as running:
        if kind != "empty":
            _require_signature(running.url)
        cpu_s, written = running.cpu_s, running.written_bytes
        load = wrk(running.url, file, connections=connections, seconds=seconds)
        running.wait_for_children()
        cpu_s, written = running.cpu_s - cpu_s, running.written_bytes - written
    if kind not in PEER_LABELS and (load.not_200 or load.broken):
        raise AssertionError(f"{kind}: not every answer is 200: {load}")
    stored = _stored(place.mirror, kind)
    if stored is not None and not (
        load.accepted <= stored <= load.requests + load.broken + connections
    ):
        raise AssertionError(f"{kind}: {load.accepted} are answered 200, and {stored} are stored")
    # wrk may end before an answer arrives. That delivery used processor time too.
    paid = max(load.accepted if stored is None else stored, 1)
    return Measured(load, 1e6 * cpu_s / paid, written / 1024 / paid)


def _require_signature(url: str) -> None:
    answer = httpx.post(
        url,
        content=b"{}",
        headers={HEADER: "0" * 64, "Content-Type": "application/json"},
        trust_env=False,
    )
    if answer.status_code != 401:
        raise AssertionError(f"a wrong signature is answered {answer.status_code}")


@contextlib.contextmanager
def _serving(place: Place, kind: str, peers: Peers) -> Iterator[Running]:
    if kind == "syncd":
        place.fill(VARIANTS)
        serving = place.daemon()
    elif kind in PEER_LABELS:
        database.create(place.mirror, VARIANTS)
        serving = peers.serving(kind, place.mirror)
    else:
        serving = place.other(kind)
    with serving as running:
        yield running


def _stored(mirror: Path, kind: str) -> int | None:
    """Return the number of deliveries in the database, None if the server stores nothing."""
    if kind in PEER_LABELS:
        return database.kept(mirror)
    if kind != "syncd":
        return None
    with contextlib.closing(sqlite3.connect(mirror)) as connection:
        stored, applied = connection.execute(
            """SELECT count(*), (SELECT count(*) FROM change_log) FROM deliveries
               WHERE outcome = 'applied' AND body IS NOT NULL"""
        ).fetchone()
    if stored != applied:
        raise AssertionError(f"{stored} deliveries are applied, and the feed has {applied} changes")
    return int(stored)


def _server(kind: str, connections: int, runs: list[Measured]) -> ServerRow:
    written_kb = median(run.written_kb for run in runs)
    failed = sum(run.load.not_200 for run in runs)
    late = sum(run.load.broken for run in runs)
    return ServerRow(
        LABELS[kind],
        connections,
        median(run.load.per_second for run in runs),
        median(run.load.p99_ms for run in runs),
        median(run.cpu_us for run in runs),
        written_kb or None,
        f"{failed} answers are not 200, {late} do not come in 10 s" if failed or late else "",
    )


def _aims(servers: dict[tuple[str, int], ServerRow], connections: int) -> Iterator[Row]:
    name, aims = f"ingest, c = {connections}", AIMS[connections]
    syncd, empty = servers["syncd", connections], servers["empty", connections]
    yield _ratio(f"{name}: of an empty Starlette handler", syncd, empty, aims.get("empty"))
    yield _ratio(f"{name}: of signature + JSON alone", syncd, servers["signed", connections])
    for peer, label in PEER_LABELS.items():
        if (other := servers.get((peer, connections))) is not None:
            yield _ratio(f"{name}: times {label}", syncd, other, aims.get(peer))
    p99 = syncd.p99_ms / empty.p99_ms
    yield _at_most(f"{name}: 99th percentile, times the empty handler's", p99, aims.get("p99"))
    yield _at_most(f"{name}: processor a delivery", syncd.cpu_us, aims.get("cpu_us"), "µs")
    if syncd.written_kb is not None:
        kb, aim = syncd.written_kb, aims.get("written_kb")
        yield _at_most(f"{name}: written a delivery", kb, aim, "KB")


def _ratio(name: str, mine: ServerRow, other: ServerRow, aim: float | None = None) -> Row:
    ratio = mine.per_second / other.per_second
    detail = f"{mine.per_second:,.0f}/s and {other.per_second:,.0f}/s"
    return (
        Row.measured(name, ratio, detail) if aim is None else Row.at_least(name, ratio, aim, detail)
    )


def _at_most(name: str, value: float, aim: float | None, unit: str = "x") -> Row:
    if aim is None:
        return Row.measured(name, value, unit=unit)
    return Row.at_most(name, value, aim, unit=unit)
