"""Restart the daemon under load, many times, on a listening socket that stays open.

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

from load.checks import problems
from load.report import Report
from load.station import Station, sending


class Restarted(Struct):
    """The results of the restarts; `problems` is empty if all is well."""

    restarts: int
    report: Report
    problems: list[str]
    longest_stop_s: float

    @property
    def unanswered(self) -> dict[str, int]:
        """The number of requests without an answer, by cause; see Report."""
        report = self.report
        return {"refused": report.refused, "reset": report.reset, "raced": report.raced}


# A proxy between the sender and a daemon on this port; yields the options of the sender.
InFront = Callable[[int], AbstractContextManager[list[str]]]


def _no_proxy(port: int) -> AbstractContextManager[list[str]]:
    return contextlib.nullcontext([f"--port={port}"])


def restart(
    folder: Path,
    *,
    restarts: int,
    seed: int,
    per_second: float | None = None,
    in_front: InFront = _no_proxy,
) -> Restarted:
    """Restart like a service manager with a socket unit, `restarts` times; then check."""
    chance = random.Random(seed)
    options = [f"--seed={seed}"] + ([f"--per-second={per_second}"] if per_second else [])
    with contextlib.ExitStack() as ending:
        listening = ending.enter_context(socket.create_server(("127.0.0.1", 0), backlog=2048))
        station = Station(folder, listening=listening)
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
        return Restarted(restarts, report, problems(station.mirror, report), longest_stop_s)


def main() -> int:
    """Return 1 if a request was refused, reset or not answered 200."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--restarts", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--per-second", type=float, help="the pace of the load; else full speed")
    parser.add_argument("--folder", type=Path, help="stays; the default is a temporary one")
    options = parser.parse_args()
    with contextlib.ExitStack() as ending:
        folder = options.folder or Path(ending.enter_context(tempfile.TemporaryDirectory()))
        done = restart(
            folder, restarts=options.restarts, seed=options.seed, per_second=options.per_second
        )
    report = done.report
    print(
        f"{done.restarts} restarts in {report.seconds:.0f} s: {report.statuses}",
        f"({len(report.accepted) / report.seconds:.0f}/s), {done.unanswered},",
        f"longest wait for an answer {report.longest_wait_s:.2f} s,",
        f"longest stop {done.longest_stop_s:.2f} s, {len(done.problems)} problems",
    )
    print(*done.problems[:20], sep="\n")
    return int(bool(done.problems or report.refused or report.reset or len(report.statuses) > 1))


if __name__ == "__main__":
    sys.exit(main())
