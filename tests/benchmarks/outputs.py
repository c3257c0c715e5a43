"""The cost of the publication and of a push to the deliveries of the daemon that has them.

One of seven deliveries changes its variant, so that about a thousand changes a second go out. The
receiver shares the two cores with the daemon and the load, unlike that of a real shop.
"""

from __future__ import annotations

import base64
import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest
import targets
from msgspec import Struct

from benchmarks import deliveries
from benchmarks.processes import Place, wrk
from benchmarks.table import Row

VARIANTS = 10_000
CONNECTIONS = 32
SECONDS = 8
DELIVERIES = 100_000
ONE_OF = 7
LABELS = {"postgresql": "PostgreSQL", "mysql": "MariaDB", "push": "a push"}


class Measured(Struct, frozen=True):
    """One run: deliveries a second, processor a delivery, and rows that went out a second."""

    per_second: float
    cpu_us: float
    out_per_second: float


def measure(folder: Path, rounds: int) -> list[Row]:
    """Alternate a daemon without outputs with one for each kind of output."""
    file = folder / "deliveries"
    deliveries.write_mixed(file, DELIVERIES, VARIANTS, one_of=ONE_OF)
    runs: dict[str, list[Measured]] = {}
    skipped: dict[str, str] = {}
    for number in range(rounds):
        for kind in ("none", *LABELS) if number % 2 else reversed(("none", *LABELS)):
            if kind in skipped:
                continue
            place_folder = folder / f"{kind}-{number}"
            place_folder.mkdir()
            try:
                runs.setdefault(kind, []).append(_once(place_folder, kind, file))
            except pytest.skip.Exception as reason:
                skipped[kind] = str(reason)
    rows = [Row.skipped(f"outputs: {LABELS[kind]}", why) for kind, why in skipped.items()]
    without = _medians(runs["none"])
    for kind, label in LABELS.items():
        if kind in skipped:
            continue
        one = _medians(runs[kind])
        detail = (
            f"{one.per_second:,.0f}/s and {without.per_second:,.0f}/s, "
            f"{one.out_per_second:,.0f} rows/s go out"
        )
        ratio = one.per_second / without.per_second
        rows.append(Row.at_least(f"outputs: deliveries with {label}", ratio, 0.95, detail))
        more_us = one.cpu_us - without.cpu_us
        rows.append(Row.measured(f"outputs: processor of {label}", more_us, unit="µs"))
    return rows


def _once(folder: Path, kind: str, file: Path) -> Measured:
    with _output(folder, kind) as section:
        place = Place(folder, admin="127.0.0.1:0", more=section)
        place.fill(VARIANTS)
        with place.daemon() as daemon:
            gone_out = "syncd_publish_rows_total" if kind in {"postgresql", "mysql"} else ""
            if gone_out:
                while not daemon.metric("syncd_publish_batches_total"):
                    pass
            cpu_s = daemon.cpu_s
            before = daemon.metric(gone_out) if gone_out else 0
            load = wrk(daemon.url, file, connections=CONNECTIONS, seconds=SECONDS)
            cpu_s = daemon.cpu_s - cpu_s
            out = daemon.metric(gone_out) - before if gone_out else 0
    return Measured(load.per_second, 1e6 * cpu_s / load.accepted, out / load.seconds)


@contextlib.contextmanager
def _output(folder: Path, kind: str) -> Iterator[str]:
    """Give the section of the configuration of an output, while its receiver runs."""
    if kind == "none":
        yield ""
    elif kind == "push":
        (folder / "receiver").mkdir()
        with Place(folder / "receiver").other("empty") as receiver:
            secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
            yield f"""[[push]]\nname = "shop"\nurl = "{receiver.url}"\nsecret = "{secret}"\n"""
    else:
        server = targets.Postgresql if kind == "postgresql" else targets.Mariadb
        with targets.running(server, durable=True) as running:
            yield f"""[publish]\nurl = "{running.database().url()}"\n"""


def _medians(runs: list[Measured]) -> Measured:
    return Measured(
        median(one.per_second for one in runs),
        median(one.cpu_us for one in runs),
        median(one.out_per_second for one in runs),
    )
