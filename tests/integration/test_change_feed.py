"""The change feed: each change once, in order; a reader that was away too long is warned.

The reader is that of syncd/examples/mirror.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import select
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import json
from shops import python_mirror

from syncd.core.timestamps import to_text
from syncd.store import Database
from syncd.store.connection import open_for_writing
from syncd.store.retention import prune

if TYPE_CHECKING:
    from conftest import Daemon, Site

DAY = timedelta(days=1)
VALUES = ("out_of_stock", "in_stock", "?")


class Consumer:
    """Keeps a copy of the mirror by polling the feed in a separate thread."""

    def __init__(self, mirror: Path) -> None:
        self.seqs: list[int] = []
        self.copy: dict[int, tuple[str | None, int]] = {}
        self.began_anew = 0
        self._over = threading.Event()
        self._mirror = mirror
        self._fault: Exception | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def end(self) -> None:
        """Let it poll once more."""
        self._over.set()
        self._thread.join()
        if self._fault is not None:
            raise self._fault

    def _run(self) -> None:
        try:
            with contextlib.closing(python_mirror(self._mirror)) as mirror:
                self._poll(mirror)
        except Exception as error:  # noqa: BLE001 - raised where it is ended
            self._fault = error

    def _poll(self, mirror: Any) -> None:
        (seq, at), rows = mirror.start_over()
        self.copy = {variant_id: (value, sellable) for variant_id, value, sellable in rows}
        is_last = False
        while not is_last:
            is_last = self._over.is_set()
            changes = mirror.changes(seq, at)
            if changes is None:
                self.began_anew += 1
                (seq, at), rows = mirror.start_over()
                self.copy = {variant_id: (value, sellable) for variant_id, value, sellable in rows}
                continue
            for row in changes:
                seq, at, variant_id, value, sellable = row
                self.seqs.append(seq)
                self.copy[variant_id] = (value, sellable)
            time.sleep(0.005)


def newest(site: Site) -> int:
    (row,) = site.rows("SELECT max(seq) AS seq FROM changes")
    return int(row["seq"])


@pytest.fixture
def sleeper(site: Site) -> Iterator[Any]:
    """Give a reader that asks nothing for a long time."""
    with contextlib.closing(python_mirror(site.mirror)) as mirror:
        yield mirror


def test_a_reader_sees_every_change_once_in_order(site: Site, sleeper: Any) -> None:
    """Across a kill, a stop, a recovery, and pruning of everything it has read."""
    numbers, variants = itertools.count(), [*site.catalogue.variants]
    daemon = site.serve()
    began = newest(site)
    (slept_at, _) = sleeper.start_over()
    consumer = Consumer(site.mirror)
    output: list[int] = []
    try:
        with daemon.loaded(variants, VALUES, numbers):
            site.until(lambda: newest(site) > began + 60)
            daemon.kill()
        daemon = site.serve(filled=False)
        with daemon.loaded(variants, VALUES, numbers):
            site.until(lambda: newest(site) > began + 120)
            daemon.stop()
        output += [row["seq"] for row in site.rows("SELECT seq FROM changes WHERE seq > ?", began)]
        site.until(lambda: consumer.seqs[-1:] == output[-1:])
        clean_up(site)
        assert site.rows("SELECT seq FROM changes") == [{"seq": output[-1]}]
        daemon = site.serve(filled=False)
        with daemon.loaded(variants, VALUES, numbers):
            site.until(lambda: newest(site) > output[-1] + 60)
        daemon.stop()
        output += [
            row["seq"] for row in site.rows("SELECT seq FROM changes WHERE seq > ?", output[-1])
        ]
    finally:
        consumer.end()
    assert consumer.began_anew == 0
    assert consumer.seqs == output == sorted(set(output))
    truth = site.rows("SELECT variant_id, availability, sellable FROM availability")
    assert consumer.copy == {
        row["variant_id"]: (row["availability"], row["sellable"]) for row in truth
    }
    # A reader that slept meanwhile gets an error, and starts again.
    assert sleeper.changes(*slept_at) is None
    position, rows = sleeper.start_over()
    assert position[0] == output[-1]
    assert {row["variant_id"]: (row["availability"], row["sellable"]) for row in rows} == (
        consumer.copy
    )
    assert sleeper.changes(*position) == []


def clean_up(site: Site) -> None:
    """Let 200 days pass for the mirror, while nobody else writes it."""
    database = Database(site.mirror)
    database.open()
    now = datetime.now(UTC) + 200 * DAY
    once = partial(
        prune,
        deliveries_before=now - 30 * DAY,
        changes_before=now - 90 * DAY,
        now=now,
        missed_grace=timedelta(),
    )
    while asyncio.run(database.write(once)):
        pass
    database.close()


# One position at a time.


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[Callable[[dict[int, int]], Any]]:
    """Make a feed of these seqs, so many days old, prune it to 90 days, and give its reader."""
    writer = open_for_writing(tmp_path / "availability.db")

    def make(days: dict[int, int]) -> Any:
        now = datetime(2026, 3, 1, tzinfo=UTC)
        writer.executemany(
            """INSERT INTO change_log (seq, variant_id, old_sellable, sellable, cause, rule, missed,
                   during_downtime, occurred_at, recorded_at)
               VALUES (?1, 1, 0, 1, 'read', '', 0, 0, ?2, ?2)""",
            [(seq, to_text(now - age * DAY)) for seq, age in days.items()],
        )
        prune(
            writer,
            deliveries_before=now - 30 * DAY,
            changes_before=now - 90 * DAY,
            now=now,
            missed_grace=timedelta(),
        )
        return lambda seq, age: read(seq, to_text(now - age * DAY))

    def read(seq: int, at: str) -> list[int] | None:
        with contextlib.closing(python_mirror(tmp_path / "availability.db")) as mirror:
            changes = mirror.changes(seq, at)
        return None if changes is None else [row["seq"] for row in changes]

    yield make
    writer.close()


def test_a_reader_within_the_retention_continues(stored: Callable[[dict[int, int]], Any]) -> None:
    """Gaps mean nothing; the row that the reader remembers must exist."""
    read = stored({3: 200, 7: 95, 20: 80, 21: 1})
    assert read(7, 95) == [20, 21]
    assert read(20, 80) == [21]
    assert read(21, 1) == []


def test_a_reader_beyond_the_retention_must_start_over(
    stored: Callable[[dict[int, int]], Any],
) -> None:
    """Its row is pruned only after the next row has expired too."""
    read = stored({3: 200, 7: 95, 20: 80, 21: 1})
    assert read(3, 200) is None


def test_a_reader_at_the_end_never_starts_over(
    stored: Callable[[dict[int, int]], Any],
) -> None:
    """However long nothing changes."""
    assert stored({1: 500, 2: 400})(2, 400) == []


@pytest.mark.parametrize(
    "position", [(0, 0), (2, 500), (9, 1)], ids=["empty", "another mirror", "from the future"]
)
def test_a_reader_of_another_feed_must_start_over(
    stored: Callable[[dict[int, int]], Any], position: tuple[int, int]
) -> None:
    """A new mirror may have a row of the same number, with another time."""
    assert stored({1: 2, 2: 1})(*position) is None


# The command.


def test_a_followed_change_arrives_within_200_ms(shared: Daemon) -> None:
    """The median, counted from the answer to the delivery."""
    site, took = shared.site, []
    variants = sorted(site.catalogue.variants)[:12]
    with subprocess.Popen(
        site.command("changes", "--follow", "--since", str(newest(site)), "--json"),
        env=site.environ,
        stdout=subprocess.PIPE,
    ) as following:
        assert following.stdout is not None
        try:
            for number, variant_id in enumerate(variants):
                shared.deliver(site.change(variant_id, f"value {number}"))
                committed = time.monotonic()
                assert select.select([following.stdout], [], [], 10)[0]
                change = json.decode(following.stdout.readline())
                took.append(time.monotonic() - committed)
                assert (change["variant_id"], change["availability"]) == (
                    variant_id,
                    f"value {number}",
                )
        finally:
            following.terminate()
    # The first one waited for the program to start.
    assert statistics.median(took[1:]) < 0.2, took


def test_a_pruned_since_is_reported(shared: Daemon) -> None:
    """On stderr; the rows that are kept are printed."""
    done = shared.site.syncd("changes", "--since", "1000000", "--json")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("Note: seq 1000000 is not stored")
    assert shared.site.syncd("changes", "--since", "1", "--limit", "1").stderr == ""
    assert shared.site.syncd("changes", "--since", "0", "--limit", "1").stderr == ""


def test_following_ends_when_the_mirror_is_replaced(site: Site) -> None:
    """Its numbers start again: without the error, the follower would miss changes."""
    site.serve().stop()
    with subprocess.Popen(
        site.command("changes", "--follow", "--json"),
        env=site.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as following:
        assert following.stdout is not None
        for _ in range(20):
            assert following.stdout.readline()
        site.mirror.rename(site.folder / "away.db")
        _, output = following.communicate(timeout=10)
    assert following.returncode == 1
    assert output.splitlines() == [
        "Error: the mirror was replaced or moved away",
        "Try: start over: note the newest seq, read `availability`, go on from it",
    ]
