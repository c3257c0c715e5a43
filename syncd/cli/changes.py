"""`syncd changes`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import click

from syncd.cli.common import (
    WholeNumber,
    config_option,
    json_option,
    load_config,
)
from syncd.core.model import MAX_ID, Row
from syncd.errors import MirrorMissing, MirrorUnavailable
from syncd.printing import Colored, show, show_json_line
from syncd.store import Queries

T = TypeVar("T")

POLL_S = 0.1
ATTEMPTS, RETRY_S = 5, 0.2
DEFAULT_LIMIT = 20
_BATCH = 1000


@click.command(
    "changes",
    short_help="Print the change feed.",
    epilog="""\b
Examples:
  syncd changes                       the last 20
  syncd changes --since 1200 --json   all after seq 1200, as one JSON object a line
  syncd changes --follow              the last 20, then each new one""",
)
@click.option(
    "--since", metavar="SEQ", type=WholeNumber(0, MAX_ID), help="Only changes after this seq."
)
@click.option(
    "--limit",
    metavar="N",
    type=WholeNumber(1, MAX_ID),
    help="At most this many changes, e.g. 500 for one batch.",
)
@click.option("--follow", "-f", is_flag=True, help="Continue with new changes.")
@config_option
@json_option
def command(
    since: int | None, limit: int | None, config_path: str | None, *, follow: bool, as_json: bool
) -> None:
    """Print the change feed, oldest change first; without --since only its last rows."""
    path = load_config(config_path, with_keys=False).mirror.path
    with closing(_Feed(path)) as feed:
        if since is None:
            # The feed may have gaps, so this may be fewer rows than the limit.
            since = max(0, feed.read(Queries.newest_seq) - (limit or DEFAULT_LIMIT))
        elif since and feed.read(lambda queries: queries.first_seq(since)) != since:
            show(
                f"Note: seq {since} is not stored (any more); changes after it may be missing",
                err=True,
            )
        if not (since or follow or as_json or _after(feed, 0, 1)):
            show("Note: no change is stored", err=True)
        _print_changes(feed, since, limit, follow=follow, as_json=as_json)


class _Feed:
    """The mirror's feed; a query that fails is repeated a few times on a new connection."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open()

    def _open(self) -> None:
        self._queries = Queries(self._path)
        self._file = _identity(self._path)

    def close(self) -> None:
        self._queries.close()

    def read(self, query: Callable[[Queries], T]) -> T:
        """Return the result of a query; raises a MirrorError."""
        for attempts_left in reversed(range(ATTEMPTS)):
            try:
                return query(self._queries)
            except MirrorUnavailable:
                if not attempts_left:
                    raise
            time.sleep(RETRY_S)
            self.close()
            self._open()
        raise AssertionError  # the last attempt returned or raised

    def wait(self, version: int) -> None:
        """Return after the next write; raises MirrorMissing if another file replaced the mirror."""
        while self.read(Queries.data_version) == version:
            time.sleep(POLL_S)
            if _identity(self._path) != self._file:
                # Another mirror has its own sequence numbers.
                raise MirrorMissing(
                    "the mirror was replaced or moved away",
                    hint="start over: note the newest seq, read `availability`, go on from it",
                )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _print_changes(
    feed: _Feed, since: int, limit: int | None, *, follow: bool, as_json: bool
) -> None:
    left = limit
    while True:
        version = feed.read(Queries.data_version)
        while rows := _after(feed, since, _BATCH if left is None else min(left, _BATCH)):
            for row in rows:
                show_json_line(row) if as_json else show(*_line(row))
            since = rows[-1]["seq"]
            if left is not None:
                left -= len(rows)
                if left == 0:
                    return
        if not follow:
            return
        feed.wait(version)


def _after(feed: _Feed, since: int, limit: int) -> list[Row]:
    return feed.read(lambda queries: queries.changes(since, limit))


def _line(row: Row) -> Iterator[str | Colored]:
    old = "(new)" if row["old_availability"] is None else row["old_availability"]
    new = "(removed)" if row["availability"] is None else row["availability"]
    yield f"{row['seq']:>8}  {row['recorded_at']}  variant {row['variant_id']}  "
    yield from (old, " -> ", new, "  ")
    yield Colored("sellable", "green") if row["sellable"] else "not sellable"
    yield f"  ({row['cause']})"
    if row["missed"]:
        yield Colored("  missed by deliveries", "yellow")
