"""A hundred thousand deliveries at full speed: all are stored, and the mirror is exact."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from benchmarks import deliveries
from benchmarks.processes import Place, post
from benchmarks.table import Row
from syncd.core.signature import sign

DELIVERIES = 100_000
VARIANTS = 10_000
CONNECTIONS = 128


def measure(folder: Path, rounds: int) -> list[Row]:
    """Send them once; this benchmark does not measure the time."""
    del rounds
    place = Place(folder)
    place.fill(VARIANTS)
    truth: dict[int, str] = {}
    file = folder / "deliveries"
    with file.open("wb") as lines:
        for variant_id, value, body in deliveries.bodies(DELIVERIES, VARIANTS):
            truth[variant_id] = value
            lines.write(sign(body, (deliveries.KEY,)).encode() + b"\t" + body + b"\n")
    with place.daemon() as daemon:
        idle_mb = daemon.memory_mb
        posted = post(daemon.url, file, connections=CONNECTIONS)
        peak_mb = daemon.peak_mb
    refused = DELIVERIES - sum(
        n for answer, n in posted.answers.items() if answer.startswith("200")
    )
    with contextlib.closing(sqlite3.connect(place.mirror)) as connection:
        output = dict(connection.execute("SELECT variant_id, availability FROM availability"))
        stored, changes = connection.execute(
            "SELECT count(*), (SELECT count(*) FROM change_log) FROM deliveries"
        ).fetchone()
    differences = sum(output.get(variant) != value for variant, value in truth.items())
    detail = f"{posted.per_second:,.0f}/s at c = {CONNECTIONS}; {posted.answers}"
    return [
        Row.at_most("burst of 100,000: not answered 200", refused, 0, detail, ""),
        Row.at_most("burst: variants that differ from the source", differences, 0, "", "of 10,000"),
        Row.at_most(
            "burst: answered 200 and not stored, or not in the feed",
            DELIVERIES - min(stored, changes), 0, "", "",
        ),
        Row.measured("burst: peak memory", peak_mb, f"idle {idle_mb:.0f} MB", "MB"),
    ]  # fmt: skip
