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
from syncd.core.model import Row
from syncd.errors import MirrorMissing, MirrorUnavailable
from syncd.printing import Colored, show, show_json_line
from syncd.store import Queries

T = TypeVar("T")

POLL_S = 0.1
TRIES, RETRY_S = 5, 0.2
TAIL = 20
_BATCH = 1000


@click.command(
    "changes",
    short_help="Print the change feed.",
    epilog="""\b
Examples:
  syncd changes                       the last 20
  syncd changes --since 1200 --json   everything after seq 1200, one JSON object a line
  syncd changes --follow              the last 20, then each as it happens""",
)
@click.option("--since", metavar="SEQ", type=WholeNumber(0), help="Only what came after it.")
@click.option("--limit", metavar="N", type=WholeNumber(1), help="At most so many.")
@click.option("--follow", "-f", is_flag=True, help="Go on with each change as it happens.")
@config_option
@json_option
def command(
    since: int | None, limit: int | None, config_path: str | None, *, follow: bool, as_json: bool
) -> None:
    """Print the change feed, oldest first; without --since its last rows."""
    path = load_config(config_path, with_keys=False).mirror.path
    with closing(_Feed(path)) as feed:
        if since is None:
            # Gaps are allowed, so this may be fewer than asked; it is a look, not an account.
            since = max(0, feed.ask(Queries.newest_seq) - (limit or TAIL))
        elif since and feed.ask(lambda reports: reports.first_seq(since)) != since:
            show(
                f"Note: seq {since} is not kept (any more); changes after it may be missing",
                err=True,
            )
        if not (since or follow or as_json or _after(feed, 0, 1)):
            show("Note: no change is kept", err=True)
        _tell(feed, since, limit, follow=follow, as_json=as_json)


class _Feed:
    """The mirror's feed; a question that fails is asked again on a new connection, for a while."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open()

    def _open(self) -> None:
        self._reports = Queries(self._path)
        self._file = _identity(self._path)

    def close(self) -> None:
        self._reports.close()

    def ask(self, question: Callable[[Queries], T]) -> T:
        """Return the answer; raises MirrorError leaves."""
        for tries_left in reversed(range(TRIES)):
            try:
                return question(self._reports)
            except MirrorUnavailable:
                if not tries_left:
                    raise
            time.sleep(RETRY_S)
            self.close()
            self._open()
        raise AssertionError  # the last try returned or raised

    def wait(self, version: int) -> None:
        """Return once somebody wrote; raises MirrorMissing when the mirror became another file."""
        while self.ask(Queries.data_version) == version:
            time.sleep(POLL_S)
            if _identity(self._path) != self._file:
                # Its feed has numbers of its own.
                raise MirrorMissing(
                    "the mirror was replaced or moved away",
                    hint="read `availability` anew, then follow from the newest seq before that",
                )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _tell(feed: _Feed, since: int, limit: int | None, *, follow: bool, as_json: bool) -> None:
    left = limit
    while True:
        version = feed.ask(Queries.data_version)
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
    return feed.ask(lambda reports: reports.changes(since, limit))


def _line(row: Row) -> Iterator[str | Colored]:
    old = "(new)" if row["old_availability"] is None else row["old_availability"]
    new = "(removed)" if row["availability"] is None else row["availability"]
    yield f"{row['seq']:>8}  {row['recorded_at']}  variant {row['variant_id']}  "
    yield from (old, " -> ", new, "  ")
    yield Colored("sellable", "green") if row["sellable"] else "not sellable"
    yield f"  ({row['cause']})"
    if row["missed"]:
        yield Colored("  missed by deliveries", "yellow")
