"""A shop's read of one variant from a separate process, beside an idle and a busy daemon.

python tests/benchmarks/shop.py MIRROR VARIANTS SECONDS    prints milliseconds as JSON
"""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from msgspec import Struct, json

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import deliveries
from benchmarks.mirrors import FIRST_VARIANT
from benchmarks.processes import Place, posting
from benchmarks.table import Row

VARIANTS = 10_000
SECONDS = 4
CONNECTIONS = 32
PAUSE_S = 0.001
BUSY_TIMEOUT_S = 1.0


class Reads(Struct, frozen=True):
    """The durations of the reads."""

    count: int
    p50_ms: float
    p99_ms: float
    max_ms: float


def measure(folder: Path, rounds: int) -> list[Row]:
    """Alternate an idle daemon and one under full load."""
    file = folder / "deliveries"
    idle: list[Reads] = []
    busy: list[Reads] = []
    rates: list[float] = []
    for number in range(rounds):
        (folder / str(number)).mkdir()
        place = Place(folder / str(number))
        place.fill(VARIANTS)
        deliveries.write(file, 100_000, VARIANTS)
        with place.daemon() as daemon:
            idle.append(_read_elsewhere(place.mirror))
            with posting(daemon.url, file, connections=CONNECTIONS, seconds=SECONDS + 1) as wait:
                busy.append(_read_elsewhere(place.mirror))
                rates.append(wait().per_second)
    p99_idle, p99_busy = (median(one.p99_ms for one in reads) for reads in (idle, busy))
    p50_idle, p50_busy = (median(one.p50_ms for one in reads) for reads in (idle, busy))
    detail = (
        f"p99 {p99_busy:.3f} ms at {median(rates):,.0f} deliveries/s, idle {p99_idle:.3f} ms; "
        f"p50 {p50_busy:.3f} and {p50_idle:.3f} ms"
    )
    return [
        Row.at_most("shop's read: 99th percentile, times idle", p99_busy / p99_idle, 2.0, detail)
    ]


def _read_elsewhere(mirror: Path) -> Reads:
    done = subprocess.run(
        [sys.executable, __file__, str(mirror), str(VARIANTS), str(SECONDS)],
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.decode(done.stdout, type=Reads)


def _read(mirror: Path, variants: int, seconds: float) -> Reads:
    connection = sqlite3.connect(f"{mirror.as_uri()}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_S)
    took_s: list[float] = []
    until_s = time.perf_counter() + seconds
    while time.perf_counter() < until_s:
        variant_id = FIRST_VARIANT + random.randrange(variants)
        began_s = time.perf_counter()
        (row,) = connection.execute(
            "SELECT * FROM availability WHERE variant_id = ?", (variant_id,)
        ).fetchall()
        took_s.append(time.perf_counter() - began_s)
        if row[0] != variant_id:
            raise AssertionError(f"asked for {variant_id}: {row}")
        time.sleep(PAUSE_S)
    connection.close()
    took_ms = sorted(1000 * one for one in took_s)
    return Reads(
        len(took_ms), took_ms[len(took_ms) // 2], took_ms[len(took_ms) * 99 // 100], took_ms[-1]
    )


if __name__ == "__main__":
    print(json.encode(_read(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))).decode())
