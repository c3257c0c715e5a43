"""A shop that queries all the time: runs in the machine as the shop's user, with its Python.

python3 shopper.py MIRROR REPORT: asks as documented, with a new connection each time, and
writes down after each question how many were asked, refused once, and refused twice in a row.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time

QUESTION = "SELECT count(*), (SELECT daemon_seen_at FROM freshness) FROM availability"


def ask(mirror: str) -> str | None:
    """Return the error of a query, or None."""
    try:
        connection = sqlite3.connect(f"file:{mirror}?mode=ro", uri=True, timeout=1.0)
        try:
            connection.execute(QUESTION).fetchone()
        finally:
            connection.close()
    except sqlite3.Error as fault:
        return str(fault)
    return None


def main(mirror: str, report: str) -> None:
    """Query until killed."""
    folder = os.path.dirname(mirror)  # noqa: PTH120 - nothing but the plainest here
    may_write = [path for path in (mirror, folder) if os.access(path, os.W_OK)]
    asked = once = 0
    longest_s = 0.0
    twice: list[str] = []
    while True:
        began_s = time.monotonic()
        if ask(mirror) is not None:
            once += 1
            fault = ask(mirror)
            if fault is not None:
                twice.append(fault)
        asked += 1
        longest_s = max(longest_s, time.monotonic() - began_s)
        result = {
            "asked": asked,
            "once": once,
            "twice": twice,
            "longest_s": longest_s,
            "may_write": may_write,
        }
        with open(f"{report}.part", "w") as file:  # noqa: PTH123 - as above
            json.dump(result, file)
        os.replace(f"{report}.part", report)  # noqa: PTH105 - as above
        time.sleep(0.01)


if __name__ == "__main__":
    main(*sys.argv[1:])
