"""syncd/examples by SKU: each reason, a stale mirror, and a reader without write permission."""

from __future__ import annotations

import os
import re
import sqlite3
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from shops import SHOPS, Shop, command, documented, execute, language, needs, run

from syncd.core.listings import Listing
from syncd.core.model import ItemDetails, ItemRead, SourceVariant, VariantDetails
from syncd.core.policy import Policy
from syncd.core.timestamps import to_text
from syncd.store import listings, reads
from syncd.store.connection import open_for_writing

READER = 54321
VALUES = {1: "in_stock", 2: "in_stock", 3: "out_of_stock", 4: "in_stock", 5: "in_stock"}
# Each SKU is named like its reason; `too-old` was not confirmed for a day.
SOLD = ["Sold-1", "Sold-2"]
NOT_SOLD = ["value", "removed", "verifying", "item", "unknown", "too-old"]
VARIANTS = dict(zip([*SOLD, *NOT_SOLD], (1, 2, 3, 4, 5, 6, 999, 7), strict=True))


@pytest.fixture(scope="module")
def writer() -> Iterator[sqlite3.Connection]:
    """Give the daemon's connection to a mirror that another user may only read."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o711)
        folder = Path(name, "mirror")
        folder.mkdir()
        user = reader()
        if user is not None:
            os.chown(folder, -1, user)
        folder.chmod(0o2710)
        connection = open_for_writing(folder / "availability.db")
        fill(connection, datetime.now(UTC))
        if user is None:
            # Without another user, at least the folder is read-only.
            folder.chmod(0o510)
        yield connection
        folder.chmod(0o710)
        connection.close()


def reader() -> int | None:
    """Return the user that reads the mirror; None: only root can become another user."""
    return READER if os.geteuid() == 0 else None


def path_of(writer: sqlite3.Connection) -> Path:
    return Path(writer.execute("PRAGMA database_list").fetchone()[2])


def fill(writer: sqlite3.Connection, now: datetime) -> None:
    """Store a SKU for each reason."""
    policy = Policy(
        frozenset({"in_stock"}),
        timedelta(seconds=60),
        removal_limit_percent=100,
        blocked_item_statuses=frozenset({"retired"}),
    )

    def read(item_id: int, values: dict[int, str], at: datetime, status: str | None = None) -> None:
        variants = tuple(SourceVariant(*one, VariantDetails()) for one in values.items())
        details = ItemDetails(operational_status=status)
        found = ItemRead(item_id, "Tee", variants, at, at, details=details)
        reads.apply(writer, found, policy, now=at)

    read(77, VALUES, now - timedelta(minutes=5))
    read(77, {one: VALUES[one] for one in (1, 2, 3, 5)}, now)
    read(78, {6: "in_stock"}, now, "Retired")
    read(79, {7: "in_stock"}, now - timedelta(days=2))
    writer.execute(
        """UPDATE variants SET conflicting_values = '["in_stock", null]', sellable = 0
           WHERE variant_id = 5"""
    )
    listings.save(writer, [Listing(*one) for one in VARIANTS.items()], now)
    see_daemon(writer, to_text(now))


def see_daemon(writer: sqlite3.Connection, at: str | None) -> None:
    """Store the last sign of life of the daemon."""
    writer.execute("DELETE FROM state WHERE key = 'daemon_seen_at'")
    if at is not None:
        writer.execute("INSERT INTO state VALUES ('daemon_seen_at', ?)", (at,))


def checkout(shop: Shop, mirror: Path, skus: list[str]) -> str:
    """Return the documented checkout of a cart with these SKUs."""
    quote = {"php": "'", "js": "'", "ruby": "'", "sh": ""}.get(language(shop), '"')
    between = f"{quote}, {quote}" if quote else " "
    source = documented("A checkout by SKU", shop, mirror)
    cart = f"{quote}{between.join(('TEE-M', 'TEE-L'))}{quote}"
    assert source.count(cart) == 1
    return source.replace(cart, f"{quote}{between.join(skus)}{quote}")


@pytest.fixture
def folder(writer: sqlite3.Connection, request: pytest.FixtureRequest) -> Path:
    """Give a folder for programs that the reader of the mirror can enter."""
    made = path_of(writer).parent.parent / re.sub(r"\W", "-", request.node.name)
    made.mkdir()
    made.chmod(0o755)
    return made


def test_each_listing_has_the_reason_of_its_name(writer: sqlite3.Connection) -> None:
    """So that the tests below see each reason; the fail-safe is no reason."""
    found = dict(writer.execute("SELECT sku, reason FROM listings").fetchall())
    assert found == {one: one for one in NOT_SOLD} | dict.fromkeys([*SOLD, "too-old"])
    assert {*found.values()} == {None, *listings.REASONS}
    if reader() is not None:
        for path in (path_of(writer).parent, *path_of(writer).parent.iterdir()):
            assert path.stat().st_uid != READER
            assert path.stat().st_mode & 0o022 == 0


@pytest.mark.parametrize("shop", SHOPS, ids=lambda shop: shop.name)
def test_the_documented_checkout_sells_only_sellable_skus(
    shop: Shop, writer: sqlite3.Connection, folder: Path
) -> None:
    """The reader has no write permission."""
    needs(shop)
    done = run(shop, checkout(shop, path_of(writer), SOLD), folder, reader())
    assert (done.stderr, done.stdout) == ("", "take the payment\n")


@pytest.mark.parametrize("shop", SHOPS, ids=lambda shop: shop.name)
def test_the_documented_checkout_names_each_sku_that_may_not_be_sold(
    shop: Shop, writer: sqlite3.Connection, folder: Path
) -> None:
    """For each reason, for SKUs that are not listed, and for another spelling."""
    needs(shop)
    refused = [*NOT_SOLD, "not-listed", "SOLD-1", "sold-1", "Sold.1", "Sold_1", "Sold%", "1"]
    cart = [SOLD[0], *refused, SOLD[1]]
    done = run(shop, checkout(shop, path_of(writer), cart), folder, reader())
    assert (done.stderr, done.stdout) == ("", f"sold out: {' '.join(refused)}\n")


@pytest.mark.parametrize("shop", SHOPS, ids=lambda shop: shop.name)
def test_by_sku_a_stale_mirror_sells_nothing(
    shop: Shop, writer: sqlite3.Connection, folder: Path
) -> None:
    """The daemon is dead, was never there, or is seen in the future."""
    needs(shop)
    program = command(shop, checkout(shop, path_of(writer), SOLD), folder / "shop")
    now = datetime.now(UTC)
    ages = [None, timedelta(minutes=6), timedelta(minutes=-10)]
    outputs = []
    try:
        for age in ages:
            see_daemon(writer, None if age is None else to_text(now - age))
            done = execute(program, folder / "shop", reader())
            outputs.append((done.stderr, done.stdout))
    finally:
        see_daemon(writer, to_text(datetime.now(UTC)))
    assert outputs == [("", "sold out: Sold-1 Sold-2\n")] * len(ages)
