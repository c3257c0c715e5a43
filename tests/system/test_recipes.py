"""The documented recipes in each language, at every moment of a daemon's life.

The story of a daemon runs once. At each of its moments a shop of every language reads, as a user
without write permission. `SYNCD_MATRIX=FILE` keeps the resulting matrix.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from shops import SHOPS, Saw, Shop, Visit, sku_of

pytestmark = pytest.mark.long

if TYPE_CHECKING:
    from conftest import Daemon, Site

SHOP = 54321
RUNNING = "running, under load"
BACKUP = "during a backup, under load"
CONNECTED = "connected while it stops"
LEFT = "after readers outlived it"
STOPPED = "after a clean stop"
UPGRADE = "during an upgrade's migration"
START = "while it starts"
KILLED_UNDER = "connected while it is killed"
KILLED = "after SIGKILL"
RECOVERY = "while it recovers"
MOMENTS = [
    *(RUNNING, BACKUP, CONNECTED, LEFT, UPGRADE),
    *(START, KILLED_UNDER, KILLED, RECOVERY, STOPPED),
]
# A possible future migration, and its reversal.
_UPGRADE = """
import sys
from datetime import timedelta
from pathlib import Path
from syncd.store import Database, migrations

@migrations.migrations()
def tomorrow(db):
    sql = "SELECT sql FROM sqlite_master WHERE name = 'availability'"
    (view,) = db.conn.execute(sql).fetchone()
    for sql in (
        "ALTER TABLE variants ADD COLUMN more TEXT",
        "UPDATE variants SET more = hex(randomblob(2000))",
        "CREATE INDEX variants_more ON variants (more)",
        "DROP VIEW availability",
        view,
    ):
        db.conn.execute(sql)

for _ in range(2):
    database = Database(Path(sys.argv[1]))
    database.open()
    db = database._connection
    assert db.execute("SELECT count(*) FROM variants WHERE more > ''").fetchone()[0] > 100
    db.execute("DROP INDEX variants_more")
    db.execute("ALTER TABLE variants DROP COLUMN more")
    db.execute("DELETE FROM _sqlite_migrations WHERE name = 'tomorrow'")
    database.close()
"""


class Cell(Saw, frozen=True):
    """The results of a shop, and the `expected` rows of the feed, up to `newest`."""

    newest: int
    expected: list[tuple[int, int, str | None, int]]


class Story:
    """A site with a shop of every language, and the results of these shops."""

    def __init__(self, site: Site, folder: Path, user: int | None) -> None:
        self.site = site
        self.user = user
        self.matrix: dict[tuple[str, str], Cell] = {}
        self._folder = folder
        self._numbers = itertools.count()
        sold = [v.variant_id for v in site.catalogue.variants.values() if _is_sold(v.availability)]
        off = next(
            v.variant_id
            for v in site.catalogue.variants.values()
            if v.availability == "out_of_stock"
        )
        self.requested = [*sorted(sold)[:2], off, 9_999_999]
        listings = folder / "listings.csv"
        lines = [f"{sku_of(variant_id)};{variant_id}" for variant_id in self.requested]
        listings.write_text("\n".join(["sku;variant_id", *lines]))
        site.configure(catalog={"listings": str(listings)})

    @contextmanager
    def visited(self, moment: str) -> Iterator[None]:
        """Let shops read during this context, and store their results."""
        shops = [shop for shop in SHOPS if not shop.missing()]
        visits = [
            Visit(shop, self.site.mirror, self._folder, self.requested, self.user) for shop in shops
        ]
        for visit in visits:
            visit.wait()
        yield
        (row,) = self.site.rows("SELECT max(seq) AS newest FROM changes")
        for visit in visits:
            saw = visit.end()
            last = saw.feed[-1][0] if saw.feed else saw.start
            expected = self.site.rows(
                """SELECT seq, variant_id, availability, sellable FROM changes
                   WHERE seq > ? AND seq <= ? ORDER BY seq""",
                saw.start,
                last,
            )
            self.matrix[moment, visit.shop.name] = Cell(
                saw.reads,
                saw.faults,
                saw.feed,
                saw.start,
                row["newest"],
                [(*row.values(),) for row in expected],
            )

    def load(self, daemon: Daemon) -> AbstractContextManager[None]:
        """Deliver one change after the other, of every variant but those that are asked for."""
        others = sorted({*self.site.catalogue.variants} - {*self.requested})
        return daemon.loaded(others, ("out_of_stock", "in_stock", "low_stock"), self._numbers)

    def wait_for_changes(self, number: int) -> None:
        """Return once the feed has grown by so many."""
        sql = "SELECT max(seq) AS newest FROM changes"
        enough = self.site.rows(sql)[0]["newest"] + number
        self.site.until(lambda: self.site.rows(sql)[0]["newest"] >= enough)

    def live(self) -> None:
        """Let everything happen once."""
        site = self.site
        daemon = site.serve()
        with self.visited(RUNNING), self.load(daemon):
            self.wait_for_changes(200)
        with self.visited(BACKUP), self.load(daemon):
            for number in range(2):
                done = site.syncd("backup", str(site.folder / f"backup-{number}.db"))
                assert done.returncode == 0, done.stderr
        with self.visited(CONNECTED), closing(sqlite3.connect(site.mirror)) as other:
            other.execute("BEGIN")
            other.execute("SELECT * FROM changes").fetchone()
            daemon.stop()
        with self.visited(LEFT):
            pass
        with self.visited(UPGRADE):
            subprocess.run([sys.executable, "-c", _UPGRADE, str(site.mirror)], check=True)
        with self.visited(START):
            daemon = site.serve(filled=False)
        with self.visited(KILLED_UNDER), self.load(daemon):
            self.wait_for_changes(100)
            daemon.kill()
        assert site.mirror.with_name(f"{site.mirror.name}-wal").stat().st_size > 100_000
        with self.visited(KILLED):
            pass
        with self.visited(RECOVERY):
            daemon = site.serve(filled=False)
        # Nobody is connected: SQLite itself would delete files that a reader needs.
        daemon.stop()
        with self.visited(STOPPED):
            pass

    def drawn(self) -> str:
        """Return the matrix, moments down and languages across, with how often each read."""
        names = [shop.name for shop in SHOPS]
        lines = ["| moment | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
        for moment in MOMENTS:
            cells = [self.matrix.get((moment, name)) for name in names]
            marks = [
                "not run"
                if cell is None
                else f"{'red' if faults(cell) else 'green'} ({cell.reads})"
                for cell in cells
            ]
            lines.append(f"| {moment} | {' | '.join(marks)} |")
        return "\n".join(lines)


@pytest.fixture(scope="module")
def script(open_site: Callable[..., AbstractContextManager[Site]]) -> Iterator[Story]:
    """Run all moments once."""
    user = SHOP if os.geteuid() == 0 else None
    with (
        tempfile.TemporaryDirectory() as name,
        open_site(Path(name), items=60, variants_per_item=6) as site,
    ):
        Path(name).chmod(0o711)
        site.mirror.parent.mkdir()
        if user is not None:
            os.chown(site.mirror.parent, -1, user)
        # Like systemd's StateDirectory: new files in the folder get its group.
        site.mirror.parent.chmod(0o2710)
        one = Story(site, Path(name), user)
        one.live()
        if keep := os.environ.get("SYNCD_MATRIX"):
            Path(keep).write_text(f"{one.drawn()}\n")
        print(one.drawn())  # noqa: T201 - what a failure is read beside
        yield one


@pytest.mark.parametrize("shop", SHOPS, ids=lambda shop: shop.name)
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_shop_can_read(script: Story, moment: str, shop: Shop) -> None:
    """At each moment of the daemon: no query fails, and each change is read once, in order."""
    if reason := shop.missing():
        pytest.skip(reason)
    assert faults(script.matrix[moment, shop.name]) == []


@pytest.mark.parametrize("moment", [RUNNING, BACKUP, KILLED_UNDER])
def test_the_story_was_under_load(script: Story, moment: str) -> None:
    """With many reads in each moment."""
    for (when, _), cell in script.matrix.items():
        if when == moment:
            assert cell.reads >= 5
            assert len(cell.feed) > 20  # the load is what the machine can bear


def test_the_shops_were_another_user(script: Story) -> None:
    """With the read permission of the group only."""
    if script.user is None:
        pytest.skip("only root can become another user")
    mirror = script.site.mirror
    for path in (mirror.parent, *mirror.parent.iterdir()):
        assert path.stat().st_uid != SHOP
        assert path.stat().st_mode & 0o022 == 0


def faults(cell: Cell) -> list[object]:
    """Return the errors at one moment in one language."""
    found = [*cell.faults]
    if cell.feed != cell.expected:
        found.append(f"the feed has {cell.expected}, and the shop read {cell.feed}")
    if (cell.feed[-1][0] if cell.feed else cell.start) < cell.newest:
        found.append(f"it did not come as far as {cell.newest}")
    return found


def _is_sold(value: str) -> bool:
    return value in {"in_stock", "low_stock"}
