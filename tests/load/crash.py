"""Kill the daemon at random times under load, many times, and check the mirror.

python tests/load/crash.py --kills 60 [--seed 1] [--folder DIR]
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import tempfile
import time
from pathlib import Path

from msgspec import Struct

if not __package__:
    # Started by its path; a test finds the package through pytest's `pythonpath`.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from load.checks import Follower, problems
from load.report import Report
from load.station import Station, sending

# One of this many lives ends before the daemon is ready.
EARLY = 4
# The approximate time until the daemon is ready.
STARTING_S = 0.8


class Crashed(Struct):
    """The results of the kills; `problems` is empty if all is well."""

    kills: int
    report: Report
    problems: list[str]


def crash(folder: Path, *, kills: int, seed: int, longest_life_s: float = 1.0) -> Crashed:
    """Kill the daemon `kills` times; then wait for all answers, stop it, and check."""
    chance, station = random.Random(seed), Station(folder)
    with contextlib.ExitStack() as ending:
        ending.callback(station.kill)
        follower, found = Follower(station.mirror), []
        sender = ending.enter_context(sending(station, f"--seed={seed}"))
        for number in range(kills):
            station.start()
            if number % EARLY == EARLY - 1:
                time.sleep(chance.uniform(0, STARTING_S))
            else:
                station.wait_ready()
                time.sleep(chance.uniform(0, longest_life_s))
            station.kill()
            if number:  # the first life may end before the mirror exists
                found += follower.follow()
        station.start()
        station.wait_ready()
        report = sender.finish()
        # Checked while the daemon runs, and after its end.
        found += follower.follow() + problems(station.mirror, report)
        station.stop()
        found += follower.follow() + problems(station.mirror, report)
        return Crashed(kills, report, found)


def main() -> int:
    """Return 1 if anything was lost, doubled or damaged."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="stays; the default is a temporary one")
    options = parser.parse_args()
    with contextlib.ExitStack() as ending:
        folder = options.folder or Path(ending.enter_context(tempfile.TemporaryDirectory()))
        done = crash(folder, kills=options.kills, seed=options.seed)
    report = done.report
    print(
        f"{done.kills} kills in {report.seconds:.0f} s: {len(report.accepted)} accepted",
        f"({len(report.accepted) / report.seconds:.0f}/s all lives and starts together),",
        f"{report.refused} tries refused, {report.reset + report.raced} cut off,",
        f"other answers { ({k: v for k, v in report.statuses.items() if k != '200'}) },",
        f"{len(done.problems)} problems",
    )
    print(*done.problems[:20], sep="\n")
    return int(bool(done.problems))


if __name__ == "__main__":
    sys.exit(main())
