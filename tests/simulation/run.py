"""Run simulations by hand: one seed with its whole trace, or a range of seeds.

python tests/simulation/run.py --seed 17 -v
python tests/simulation/run.py --seeds 0:10000 [--processes 2] [--break NAME]
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from pathlib import Path

if not __package__:
    # Started by its path; a test finds the package through pytest's `pythonpath`.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from simulation.broken import BREAKS, broken
from simulation.simulation import Report, simulate

REPRODUCE = "python tests/simulation/run.py --seed {seed} -v"


def main() -> int:
    """Return 1 if a seed failed."""
    options = _options()
    with broken(options.broken):
        if options.seed is not None:
            report = simulate(options.seed, verbose=options.verbose)
            print(*report.trace, sep="\n")
            print(f"seed {report.seed}: {report.error or 'all checks passed'}", dict(report.counts))
            return int(report.error is not None)
        return _many(options)


def _many(options: argparse.Namespace) -> int:
    first, end = (int(part) for part in options.seeds.split(":"))
    counts: Counter[str] = Counter()
    failed: list[Report] = []
    began_s = time.monotonic()
    with multiprocessing.get_context("fork").Pool(options.processes) as pool:
        for report in pool.imap_unordered(simulate, range(first, end), chunksize=4):
            counts += report.counts
            if report.error is not None:
                failed.append(report)
                print(f"seed {report.seed}: {report.error[:400]}", flush=True)
                print(f"    {REPRODUCE.format(seed=report.seed)}", flush=True)
                if options.first:
                    break
            if sys.stderr.isatty() and counts["runs"] % 50 == 0:
                print(f"{counts['runs']} runs, {len(failed)} failed", end="\r", file=sys.stderr)
    seconds = time.monotonic() - began_s
    print(", ".join(f"{name} {number}" for name, number in sorted(counts.items())))
    print(f"{len(failed)} of {counts['runs']} failed in {seconds:.0f} s")
    if failed:
        print("failed:", *sorted(report.seed for report in failed))
    return int(bool(failed))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--seed", type=int)
    which.add_argument("--seeds", metavar="FIRST:END")
    parser.add_argument("-v", "--verbose", action="store_true", help="print the whole trace")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--first", action="store_true", help="stop at the first failure")
    parser.add_argument("--break", dest="broken", choices=sorted(BREAKS), help="break a rule")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
