"""The database as a shop reads it: columns, types, times, feed, and access of other users."""

from __future__ import annotations

import asyncio
import itertools
import re
import signal
import sqlite3
import tempfile
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncd.core.model import Delivery, ItemRead, SourceVariant, VariantDetails, VariantUpdate
from syncd.core.policy import Policy
from syncd.demo.fake_dreamship import UPDATED, Event
from syncd.errors import MirrorUnavailable
from syncd.store import Database, process_state
from syncd.store.deliveries import apply as apply_deliveries
from syncd.store.reads import apply as apply_read
from syncd.store.reapply_policy import reapply

if TYPE_CHECKING:
    from conftest import Daemon, Site

# Columns with the types they may have; a moment is text of 27 characters.
INT, TEXT, MOMENT, NULL = "integer", "text", "moment", "null"
VIEWS: dict[str, dict[str, set[str]]] = {
    "availability": {
        "variant_id": {INT},
        "item_id": {INT, NULL},
        "item_name": {TEXT, NULL},
        "variant_name": {TEXT, NULL},
        "color": {TEXT, NULL},
        "size": {TEXT, NULL},
        "availability": {TEXT, NULL},
        "sellable": {INT},
        "removed": {INT},
        "verifying": {INT},
        "changed_at": {MOMENT},
        "confirmed_at": {MOMENT},
        "source": {TEXT},
        "reason": {TEXT, NULL},
        "cost": {TEXT, NULL},
        "basic_cost": {TEXT, NULL},
        "item_release_status": {TEXT, NULL},
        "item_operational_status": {TEXT, NULL},
        "countries": {TEXT, NULL},
    },
    "listings": {
        "sku": {TEXT},
        "title": {TEXT, NULL},
        "variant_id": {INT},
        "item_id": {INT, NULL},
        "item_name": {TEXT, NULL},
        "variant_name": {TEXT, NULL},
        "color": {TEXT, NULL},
        "size": {TEXT, NULL},
        "availability": {TEXT, NULL},
        "sellable": {INT},
        "reason": {TEXT, NULL},
        "removed": {INT},
        "verifying": {INT},
        "known": {INT},
        "changed_at": {MOMENT, NULL},
        "confirmed_at": {MOMENT, NULL},
    },
    "changes": {
        "seq": {INT},
        "variant_id": {INT},
        "item_id": {INT, NULL},
        "old_availability": {TEXT, NULL},
        "availability": {TEXT, NULL},
        "old_sellable": {INT},
        "sellable": {INT},
        "cause": {TEXT},
        "missed": {INT},
        "occurred_at": {MOMENT},
        "recorded_at": {MOMENT},
    },
    "freshness": {
        "last_delivery_at": {MOMENT, NULL},
        "last_sweep_finished_at": {MOMENT, NULL},
        "oldest_confirmed_at": {MOMENT, NULL},
        "webhooks_state": {TEXT},
        "daemon_seen_at": {MOMENT, NULL},
    },
}
A_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


@pytest.fixture(scope="module")
def lived(shared: Daemon) -> Site:
    """Give a site with a history that fills every column."""
    site = shared.site
    first, second, third, fourth = sorted(site.catalogue.variants)[:4]
    shared.deliver(site.change(first, "out_of_stock"))
    event = site.catalogue.set_availability(second, "low_stock")
    shared.deliver(Event(UPDATED, "item_variant", second, event.at.replace(microsecond=0)))
    shared.deliver(Event(UPDATED, "item_variant", 9_999_999, event.at), form="none")
    site.catalogue.set_availability(third, "made to order")
    site.catalogue.remove_variant(fourth)
    assert site.syncd("reconcile-now").returncode == 0
    listed = [first, second, third, fourth, fourth + 1, 9_999_998]
    lines = [f"SKU {variant_id},{variant_id},A title" for variant_id in listed]
    (site.folder / "listings.csv").write_text("\n".join(["sku,variant_id,title", *lines]))
    site.configure(catalog={"listings": "listings.csv"})
    shared.process.send_signal(signal.SIGHUP)
    site.until(lambda: site.rows("SELECT 1 FROM listings"))
    return site


def kind_of(value: object, column: str) -> str:
    """Return the type of a value as the contract names it."""
    if value is None:
        return NULL
    if isinstance(value, int):
        return INT
    assert isinstance(value, str)
    return MOMENT if column.endswith("_at") and A_MOMENT.fullmatch(value) else TEXT


@pytest.mark.parametrize("view", VIEWS)
def test_the_views_have_the_documented_columns_and_types(lived: Site, view: str) -> None:
    """Exactly these columns, in this order."""
    rows = lived.rows(f"SELECT * FROM {view}")  # noqa: S608 - a constant
    columns = VIEWS[view]
    assert rows
    for row in rows:
        assert list(row) == list(columns)
        for name, value in row.items():
            assert kind_of(value, name) in columns[name], (name, value)
            if {INT} == columns[name] and name not in {"seq", "variant_id"}:
                assert value in {0, 1}


def test_values_are_those_of_the_contract(lived: Site) -> None:
    """A shop may branch on them."""

    def words(sql: str) -> set[str | None]:
        return {row["word"] for row in lived.rows(sql)}

    assert words("SELECT source AS word FROM availability") == {"webhook", "read"}
    assert words("SELECT cause AS word FROM changes") == {"webhook", "read"}
    assert words("SELECT webhooks_state AS word FROM freshness") <= {
        "unknown",
        "healthy",
        "failing",
        "silent",
    }
    assert lived.rows("SELECT 1 FROM changes WHERE missed")
    assert lived.rows("SELECT 1 FROM availability WHERE removed AND NOT sellable")
    assert lived.rows("SELECT 1 FROM availability WHERE (reason IS NULL) != sellable") == []
    assert lived.rows("SELECT 1 FROM listings WHERE (reason IS 'unknown') = known") == []
    reasons = {"unknown", "removed", "verifying", "item", "value"}
    assert {"unknown", "removed"} < words("SELECT reason AS word FROM listings") <= {*reasons, None}


def test_freshness_is_one_current_row(lived: Site) -> None:
    """The last heartbeat is at most a minute old."""
    (row,) = lived.rows("SELECT * FROM freshness")
    seen_at = datetime.fromisoformat(row["daemon_seen_at"])
    assert datetime.now(UTC) - seen_at < timedelta(seconds=60)
    assert row["last_delivery_at"] < row["last_sweep_finished_at"]
    assert row["oldest_confirmed_at"] == min(
        known["confirmed_at"]
        for known in lived.rows("SELECT confirmed_at FROM availability WHERE NOT removed")
    )


def test_the_contract_number_is_in_the_file(lived: Site) -> None:
    """A shop checks `PRAGMA user_version` before it uses the columns."""
    assert lived.rows("PRAGMA user_version") == [{"user_version": 1}]
    assert lived.rows("PRAGMA journal_mode") == [{"journal_mode": "wal"}]
    assert lived.rows("PRAGMA integrity_check") == [{"integrity_check": "ok"}]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM availability WHERE variant_id = 5",
        "SELECT * FROM listings WHERE sku = 'A1'",
        "SELECT * FROM changes WHERE seq > 5 ORDER BY seq LIMIT 100",
    ],
)
def test_a_lookup_uses_an_index(lived: Site, sql: str) -> None:
    """With a million variants a lookup takes no longer than with ten."""
    plan = [row["detail"] for row in lived.rows(f"EXPLAIN QUERY PLAN {sql}")]
    assert plan
    assert all(step.startswith("SEARCH") for step in plan), plan


def test_the_feed_applied_to_an_empty_table_equals_availability(lived: Site) -> None:
    """For all changes of a daemon."""
    assert_feed_tells_all(lived.mirror)


# The feed, with any history.

VALUES = ["in_stock", "low_stock", "out_of_stock", "?", ""]
BEGAN = datetime(2026, 3, 1, 12, tzinfo=UTC)
variant_ids = st.integers(1, 4)
deliveries = st.tuples(
    st.just("deliver"),
    variant_ids,
    st.sampled_from([*VALUES, None]),
    st.none() | st.integers(-90, 5),
    st.sampled_from([70, 71, None]),
)
reads = st.tuples(
    st.just("read"),
    st.sampled_from([70, 71]),
    st.none() | st.dictionaries(variant_ids, st.sampled_from(VALUES), max_size=4),
    st.integers(0, 90),
)
policies = st.tuples(st.just("policy"), st.sets(st.sampled_from(VALUES)), st.sampled_from([0, 70]))
histories = st.lists(st.tuples(deliveries | reads | policies, st.integers(0, 70)), max_size=25)


def assert_feed_tells_all(mirror: Path) -> None:
    with closing(sqlite3.connect(f"{mirror.as_uri()}?mode=ro", uri=True)) as connection:
        table: dict[int, tuple[str | None, int]] = {}
        for variant_id, old, value, old_sellable, sellable in connection.execute(
            """SELECT variant_id, old_availability, availability, old_sellable, sellable
               FROM changes ORDER BY seq"""
        ):
            assert table.get(variant_id, (None, 0)) == (old, old_sellable)
            table[variant_id] = (value, sellable)
        for variant_id, value, sellable, removed in connection.execute(
            "SELECT variant_id, availability, sellable, removed FROM availability"
        ):
            assert table.pop(variant_id) == (value, sellable)
            assert removed == (value is None)
        assert table == {}


async def live(database: Database, history: list[tuple[tuple[Any, ...], int]]) -> None:
    """Apply a history to a mirror."""
    now, policy = BEGAN, Policy(frozenset({"in_stock", "low_stock"}), timedelta(seconds=60))
    for number, (event, pause_s) in enumerate(history):
        now += timedelta(seconds=pause_s, microseconds=1)
        match event:
            case ("deliver", variant_id, value, age_s, item_id):
                event_at = None if age_s is None else now + timedelta(seconds=age_s)
                update = VariantUpdate(variant_id, item_id, value, event_at, VariantDetails())
                batch = [Delivery(f"event {number}", b"{}", now, update=update)]
                await database.write(
                    partial(
                        apply_deliveries,
                        batch=batch,
                        policy=policy,
                        now=now,
                        source_now=now,
                        missed_grace=timedelta(seconds=1),
                    )
                )
            case ("read", item_id, output, age_s):
                variants = output and tuple(
                    SourceVariant(one, value, VariantDetails()) for one, value in output.items()
                )
                began_at = now - timedelta(seconds=age_s)
                found = ItemRead(item_id, "An item", variants, began_at, began_at)
                await database.write(partial(apply_read, read=found, policy=policy, now=now))
            case ("policy", sellable, item_id):
                items = frozenset({item_id} if item_id else ())
                policy = Policy(frozenset(sellable), timedelta(seconds=60), items)
                await reapply(database, policy, itertools.repeat(now).__next__)


@settings(max_examples=50)
@given(histories)
def test_the_feed_equals_availability_after_any_history(
    history: list[tuple[tuple[Any, ...], int]],
) -> None:
    """Deliveries, reads, removals and reloads in any order."""
    with tempfile.TemporaryDirectory() as folder:
        mirror = Path(folder) / "availability.db"
        database = Database(mirror)
        database.open()
        try:
            asyncio.run(live(database, history))
        finally:
            database.close()
        assert_feed_tells_all(mirror)


def test_another_configuration_is_applied_to_every_variant(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In any number of slices; the feed has each change once."""
    monkeypatch.setattr("syncd.store.reapply_policy.SLICE", 3)
    mirror = tmp_path / "availability.db"
    output = dict.fromkeys(range(1, 11), "in_stock")
    history: list[Any] = [(("read", 70, output, 0), 1), (("policy", {"low_stock"}, 0), 1)]
    asyncio.run(live(database, history))
    with closing(sqlite3.connect(f"{mirror.as_uri()}?mode=ro", uri=True)) as reader:
        assert reader.execute("SELECT count(*), sum(sellable) FROM availability").fetchone() == (
            10,
            0,
        )
        told_by = "SELECT cause, count(*) FROM changes GROUP BY cause"
        assert dict(reader.execute(told_by)) == {"read": 10, "config": 10}
    assert_feed_tells_all(mirror)


def test_deliveries_do_not_wait_for_another_configuration(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large mirror is decided in slices, with deliveries between them."""
    monkeypatch.setattr("syncd.store.reapply_policy.SLICE", 3)

    async def decide() -> None:
        output = dict.fromkeys(range(1, 31), "in_stock")
        await live(database, [(("read", 70, output, 0), 1)])
        policy, now = Policy(frozenset({"low_stock"}), timedelta(seconds=60)), datetime.now(UTC)
        judging = asyncio.create_task(reapply(database, policy, lambda: now))
        await asyncio.sleep(0)
        await database.write(lambda db: process_state.mark_accepting(db, now))
        assert not judging.done()
        assert await judging
        assert not await reapply(database, policy, lambda: now)

    asyncio.run(decide())


def test_an_interrupted_configuration_change_is_reverted(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed halfway and started with the old one: no variant keeps the new decision."""
    monkeypatch.setattr("syncd.store.reapply_policy.SLICE", 3)
    old, new = (Policy(frozenset({value}), timedelta(seconds=60)) for value in ("a", "preorder"))
    slices = itertools.count()

    def clock() -> datetime:
        if next(slices) == 4:
            raise RuntimeError
        return datetime.now(UTC)

    def sold() -> int:
        with closing(sqlite3.connect(tmp_path / "availability.db")) as reader:
            (number,) = reader.execute("SELECT sum(sellable) FROM availability").fetchone()
        return int(number)

    async def decide() -> None:
        output = dict.fromkeys(range(1, 31), "preorder")
        await live(database, [(("policy", {"a"}, 0), 1), (("read", 70, output, 0), 1)])
        await reapply(database, old, lambda: datetime.now(UTC))
        with pytest.raises(RuntimeError):
            await reapply(database, new, clock)
        assert sold() == 4 * 3
        assert await reapply(database, old, lambda: datetime.now(UTC))
        assert sold() == 0

    asyncio.run(decide())


def test_deliveries_are_refused_at_once_while_the_mirror_is_missing(
    database: Database, tmp_path: Path
) -> None:
    """Without a wait of 20 ms each."""
    waited: list[float | None] = []

    async def refuse() -> None:
        (tmp_path / "availability.db").rename(tmp_path / "elsewhere")
        with pytest.MonkeyPatch.context() as patched:
            wait = threading.Event.wait

            def recorded(event: threading.Event, timeout: float | None = None) -> bool:
                is_set = wait(event, timeout)
                if timeout is not None and not is_set:
                    waited.append(timeout)
                return is_set

            patched.setattr(threading.Event, "wait", recorded)
            with pytest.raises(MirrorUnavailable):
                await database.write_blocking_loop(lambda _: None)
        (tmp_path / "elsewhere").rename(tmp_path / "availability.db")

    asyncio.run(refuse())
    assert waited == []


# Readers and the writer.


def test_a_long_read_transaction_blocks_no_delivery(shared: Daemon) -> None:
    """And keeps its own snapshot."""
    site = shared.site
    variant_id = max(site.catalogue.variants)
    with closing(sqlite3.connect(f"{site.mirror.as_uri()}?mode=ro", uri=True)) as reader:
        reader.execute("BEGIN")
        sql = "SELECT availability FROM availability WHERE variant_id = ?"
        before = reader.execute(sql, (variant_id,)).fetchone()
        assert shared.deliver(site.change(variant_id, "made to order")) == "applied"
        assert reader.execute(sql, (variant_id,)).fetchone() == before
        assert site.variant(variant_id)["availability"] == "made to order"


def test_no_reader_gets_database_is_locked(shared: Daemon) -> None:
    """With a busy timeout of 1 s, during deliveries and a sweep."""
    site, over = shared.site, threading.Event()

    def read() -> int:
        reads = 0
        while not over.is_set():
            site.rows("SELECT count(*) FROM availability WHERE sellable")
            reads += 1
        return reads

    found: list[int] = []
    reader = threading.Thread(target=lambda: found.append(read()))
    reader.start()
    try:
        for variant_id in list(site.catalogue.variants)[:40]:
            output = Event(UPDATED, "item_variant", variant_id, site.catalogue.now())
            assert shared.post(site.body(output)).status_code == 200
        assert site.syncd("reconcile-now").returncode == 0
    finally:
        over.set()
        reader.join()
    assert found[0] > 20
