"""Follow the changes that syncd publishes into PostgreSQL: LISTEN, connect again, poll.

It needs psycopg. Copy this file, and replace `handle` and the two functions of the position.

    python3 follow_target.py postgresql://shop:secret@db.example.com/shop
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg.rows import dict_row

SOURCE = "default"
# NOTIFY is only a hint: it is lost while the connection is away. Polling misses nothing.
POLL_EVERY_S = 10.0
RETRY_S = 2.0
_log = logging.getLogger(__name__)
_CHANGES = """SELECT seq, variant_id, availability, sellable FROM syncd.changes
    WHERE source = %s AND seq >= %s ORDER BY seq LIMIT 1000"""


def follow(
    url: str,
    load: Callable[[], int | None],
    save: Callable[[int], None],
    handle: Callable[[dict[str, Any]], None],
    start_over: Callable[[list[dict[str, Any]]], None],
) -> None:
    """Hand over each change once it is committed, in order, for ever.

    `load` returns the stored position, None without one; `save` stores it. `start_over` gets all
    variants if there is no position, or if the feed does not have it any more.
    """
    while True:
        try:
            _listen(url, load, save, handle, start_over)
        except psycopg.Error as error:
            _log.error("the target cannot be read: %s", error)
            time.sleep(RETRY_S)


def _listen(url: str, load: Any, save: Any, handle: Any, start_over: Any) -> None:
    with psycopg.connect(url, autocommit=True, row_factory=dict_row) as db:
        # First: later commits cause a notification, and the first query finds the earlier ones.
        db.execute("LISTEN syncd_changes")
        while True:
            while _look(db, load, save, handle, start_over):
                pass
            for _ in db.notifies(timeout=POLL_EVERY_S, stop_after=1):
                pass


def _look(db: Any, load: Any, save: Any, handle: Any, start_over: Any) -> bool:
    """Handle the next changes; return whether there may be more of them."""
    seq = load()
    rows = [] if seq is None else db.execute(_CHANGES, (SOURCE, seq)).fetchall()
    if seq is None or (seq and (not rows or rows[0]["seq"] != seq)):
        (last,) = db.execute(
            "SELECT coalesce(max(seq), 0) AS seq FROM syncd.changes WHERE source = %s", (SOURCE,)
        ).fetchall()
        # The position first: changes after it come again, which is harmless.
        start_over(
            db.execute(
                """SELECT variant_id, availability, sellable FROM syncd.availability
                   WHERE source = %s""",
                (SOURCE,),
            ).fetchall()
        )
        save(last["seq"])
        return True
    new = [row for row in rows if row["seq"] > seq]
    for row in new:
        handle(row)
        save(row["seq"])
    return len(new) > 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    position: list[int] = []
    follow(
        sys.argv[1],
        lambda: position[-1] if position else None,
        position.append,
        lambda row: _log.info("change %s", json.dumps(row)),
        lambda rows: _log.info("%d variants", len(rows)),
    )
