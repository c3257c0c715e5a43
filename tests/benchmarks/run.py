"""Measure the product, as ratios in one run wherever a machine decides the absolute number.

python tests/benchmarks/run.py [--rounds N] [--npm FOLDER] [NAME…]    without a name: all of them
Needs wrk (Debian's package). A peer whose program or package is missing is skipped with the reason.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

if not __package__:
    # Started by its path; a test finds the package through pytest's `pythonpath`.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import burst, growth, ingest, outputs, reading, resting, shop, starting, sweeping
from benchmarks.peers.programs import NPM_VARIABLE
from benchmarks.table import Row, ServerRow, servers_text, text

Benchmark = Callable[[Path, int], Sequence[Row | ServerRow]]

BENCHMARKS: dict[str, Benchmark] = {
    "ingest": ingest.measure,
    "burst": burst.measure,
    "growth": growth.measure,
    "sweep": sweeping.measure,
    "read": reading.measure,
    "rest": resting.measure,
    "shop": shop.measure,
    "start": starting.measure,
    "outputs": outputs.measure,
}


def main() -> int:
    """Return 1 if an aim was missed."""
    options = _options()
    benchmarks = BENCHMARKS | {
        "ingest": partial(ingest.measure, npm=options.npm, seconds=options.seconds)
    }
    measured: list[Row | ServerRow] = []
    for name in options.names or BENCHMARKS:
        folder = Path(tempfile.mkdtemp(prefix=f"syncd-benchmark-{name}-"))
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            measured += benchmarks[name](folder, options.rounds)
        finally:
            shutil.rmtree(folder)
    rows = [row for row in measured if isinstance(row, Row)]
    print(text(rows))
    if servers := [row for row in measured if isinstance(row, ServerRow)]:
        print(f"\n{servers_text(servers)}")
    return int(any(row.is_met is False for row in rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--rounds", type=int, default=5, help="medians are of so many")
    parser.add_argument(
        "--seconds", type=int, default=ingest.SECONDS, help="of load, for each server of ingest"
    )
    parser.add_argument(
        "--npm",
        type=_folder,
        metavar="FOLDER",
        default=os.environ.get(NPM_VARIABLE),
        help=f"has the npm packages of the Node peers in node_modules; else ${NPM_VARIABLE}",
    )
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    return options


def _folder(name: str) -> Path:
    return Path(name).resolve()


if __name__ == "__main__":
    sys.exit(main())
