"""Restart the daemon under load, again and again, on a listening socket that outlives it.

python tests/load/restart.py --restarts 100 [--seed 1] [--per-second N] [--folder DIR]
"""

from __future__ import annotations

import argparse
import contextlib
import random
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from msgspec import Struct

if not __package__:
    # Started by its path; a test finds the package through pytest's `pythonpath`.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from load.checks import faults
from load.report import Report
from load.station import Station, sending


class Restarted(Struct):
    """What so many restarts did: `faults` is empty when all is well."""

    restarts: int
    report: Report
    faults: list[str]
    longest_stop_s: float

    @property
    def unanswered(self) -> dict[str, int]:
        """How many requests ended without an answer, by how; see Report."""
        report = self.report
        return {"refused": report.refused, "reset": report.reset, "raced": report.raced}


# Stands between the sender and a daemon on this port: gives what the sender has to be told.
InFront = Callable[[int], AbstractContextManager[list[str]]]


def _nobody(port: int) -> AbstractContextManager[list[str]]:
    return contextlib.nullcontext([f"--port={port}"])


def restart(
    folder: Path,
    *,
    restarts: int,
    seed: int,
    per_second: float | None = None,
    in_front: InFront = _nobody,
) -> Restarted:
    """Restart so often, as a service manager with a socket unit does; then look."""
    chance = random.Random(seed)
    options = [f"--seed={seed}"] + ([f"--per-second={per_second}"] if per_second else [])
    with contextlib.ExitStack() as ending:
        held = ending.enter_context(socket.create_server(("127.0.0.1", 0), backlog=2048))
        station = Station(folder, held=held)
        ending.callback(station.kill)
        options += ending.enter_context(in_front(station.port))
        # The first deliveries wait for the first daemon.
        sender = ending.enter_context(sending(station, *options))
        station.start()
        longest_stop_s = 0.0
        for _ in range(restarts):
            station.wait_ready()
            time.sleep(chance.uniform(0.0, 0.5))
            longest_stop_s = max(longest_stop_s, station.stop())
            station.start()
        station.wait_ready()
        time.sleep(0.3)
        report = sender.finish()
        station.stop()
        return Restarted(restarts, report, faults(station.mirror, report), longest_stop_s)


def main() -> int:
    """Return 1 if a request was refused, reset or not answered 200."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--restarts", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--per-second", type=float, help="the pace of the load; else full speed")
    parser.add_argument("--folder", type=Path, help="kept; else a temporary one")
    options = parser.parse_args()
    with contextlib.ExitStack() as ending:
        folder = options.folder or Path(ending.enter_context(tempfile.TemporaryDirectory()))
        done = restart(
            folder, restarts=options.restarts, seed=options.seed, per_second=options.per_second
        )
    report = done.report
    print(
        f"{done.restarts} restarts in {report.seconds:.0f} s: {report.statuses}",
        f"({len(report.told) / report.seconds:.0f}/s), {done.unanswered},",
        f"longest wait for an answer {report.longest_wait_s:.2f} s,",
        f"longest stop {done.longest_stop_s:.2f} s, {len(done.faults)} faults",
    )
    print(*done.faults[:20], sep="\n")
    return int(bool(done.faults or report.refused or report.reset or len(report.statuses) > 1))


if __name__ == "__main__":
    sys.exit(main())
