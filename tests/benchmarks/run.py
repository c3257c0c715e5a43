"""Measure the product, as ratios in one run wherever a machine decides the absolute number.

python tests/benchmarks/run.py [--rounds N] [NAME…]      names: see `--help`; none: all of them
Needs wrk (Debian's package) and, for one comparison, the extra `bench`.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

if not __package__:
    # Started by its path; a test finds the package through pytest's `pythonpath`.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import burst, growth, ingest, shop, starting, sweeping
from benchmarks.table import Row, text

BENCHMARKS: dict[str, Callable[[Path, int], list[Row]]] = {
    "ingest": ingest.measure,
    "burst": burst.measure,
    "growth": growth.measure,
    "sweep": sweeping.measure,
    "shop": shop.measure,
    "start": starting.measure,
}


def main() -> int:
    """Return 1 if an aim was missed."""
    options = _options()
    rows: list[Row] = []
    for name in options.names or BENCHMARKS:
        folder = Path(tempfile.mkdtemp(prefix=f"syncd-benchmark-{name}-"))
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            rows += BENCHMARKS[name](folder, options.rounds)
        finally:
            shutil.rmtree(folder)
    print(text(rows))
    return int(any(row.is_met is False for row in rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--rounds", type=int, default=5, help="medians are of so many")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    return options


if __name__ == "__main__":
    sys.exit(main())
