"""The cost of a sweep: of a catalogue without changes, and of one with changes."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

from msgspec import json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.deliveries import KEY, variant
from benchmarks.mirrors import FIRST_VARIANT, VALUES, VARIANTS_PER_ITEM, item_of
from benchmarks.processes import Place, Running
from benchmarks.table import Row
from syncd.control import messages
from syncd.control.client import request_reconcile
from syncd.core.jobs import SweepSummary
from syncd.core.timestamps import to_text
from syncd.demo.fake_dreamship import Api, Catalog, serving_in_thread

VARIANTS = 100_000
MANY = 1_000_000
# With the longest item a page has 100 items, the most that Dreamship allows.
PAGE_ITEMS = 99
# The daemon takes the longest row of a page for one that may be cut short, and reads that item by
# itself. So each page has one item that is longer than the others, and that the mirror learns from
# the first sweep.
LONGEST_ITEM = 1_000_000_000


@dataclass
class Shelves(Api):
    """A catalogue of the form of `mirrors`, whose list rows carry their variants."""

    variants: int = 0
    value: str = VALUES[0]
    reads: int = 0

    def application(self) -> Starlette:
        """Return an application with the least possible cost, because it shares the machine."""
        return Starlette(
            routes=[
                Route("/v1/items/", self._page),
                Route("/v1/items/{item_id:int}/", self._one),
            ]
        )

    async def _one(self, request: Request) -> Response:
        self.reads += 1
        item = request.path_params["item_id"]
        is_longest = item > LONGEST_ITEM
        found = _longest_item(item - LONGEST_ITEM) if is_longest else _item(item, self.value)
        return Response(json.encode(found), headers={"Content-Type": "application/json"})

    async def _page(self, request: Request) -> Response:
        page = int(request.query_params.get("page", "1"))
        body = _page(page, self.variants, self.value)
        return Response(body, headers={"Content-Type": "application/json"})


@lru_cache(maxsize=4)
def _page(page: int, variants: int, value: str) -> bytes:
    first, end = item_of(FIRST_VARIANT), item_of(FIRST_VARIANT + variants - 1) + 1
    items = range(first, end)[(page - 1) * PAGE_ITEMS : page * PAGE_ITEMS]
    pages = -(-(end - first) // PAGE_ITEMS)
    has_next = page < pages
    return json.encode(
        {
            "paging": {
                "count": end - first + pages,
                "next": f"http://localhost/v1/items/?page={page + 1}" if has_next else None,
                "previous": None,
            },
            "data": [*(_item(item, value) for item in items), _longest_item(page)],
        }
    )


def _item(item: int, value: str) -> dict[str, object]:
    return {
        "id": item,
        "name": f"Heavy Cotton Tee {item}",
        "item_variants": [_variant(item, index, value) for index in _INDEXES],
    }


def _longest_item(page: int) -> dict[str, object]:
    first = LONGEST_ITEM + page * (VARIANTS_PER_ITEM + 1)
    return {
        "id": LONGEST_ITEM + page,
        "name": f"Longest of page {page}",
        "item_variants": [
            variant(number, VALUES[0]) for number in range(first, first + VARIANTS_PER_ITEM + 1)
        ],
    }


_INDEXES = range(VARIANTS_PER_ITEM)


def _variant(item: int, index: int, value: str) -> dict[str, object]:
    first = FIRST_VARIANT + (item - item_of(FIRST_VARIANT)) * VARIANTS_PER_ITEM
    return variant(first + index, value)


def measure(folder: Path, rounds: int) -> list[Row]:
    """Sweep 100,000 variants unchanged and changed in turn, then a million."""
    unchanged: list[tuple[float, float, float]] = []
    changed: list[tuple[float, float, float]] = []
    rewritten = 0
    with swept(folder / "many", VARIANTS) as (place, daemon, shelves):
        sweep(place, daemon)
        for number in range(rounds):
            began_at = to_text(datetime.now(UTC))
            unchanged.append(sweep(place, daemon))
            rewritten += _rewritten(place.mirror, began_at)
            shelves.value = VALUES[(number + 1) % len(VALUES)]
            changed.append(sweep(place, daemon, changed=VARIANTS))
    with swept(folder / "a-million", MANY) as (place, daemon, _):
        idle_mb = daemon.memory_mb
        _, _, seconds = sweep(place, daemon)
        peak_mb = daemon.peak_mb
    return [
        Row.at_most("sweep of 100,000 unchanged variants: rows written", rewritten, 0, "", ""),
        *_told("unchanged", unchanged),
        *_told("changed", changed),
        Row.at_most(
            "sweep of 1,000,000 unchanged variants: peak memory",
            peak_mb,
            150,
            f"before {idle_mb:.0f} MB; {seconds:.0f} s",
            "MB",
        ),
    ]  # fmt: skip


def _told(name: str, sweeps: list[tuple[float, float, float]]) -> Iterator[Row]:
    cpu_s, written_mb, seconds = (median(one) for one in zip(*sweeps, strict=True))
    yield Row.measured(
        f"sweep of 100,000 {name} variants: processor", cpu_s, f"in {seconds:.1f} s", "s"
    )
    yield Row.measured(f"sweep of 100,000 {name} variants: written", written_mb, unit="MB")


@contextlib.contextmanager
def swept(folder: Path, variants: int, **options: Any) -> Iterator[tuple[Place, Running, Shelves]]:
    """Give a daemon beside a Dreamship that has the same variants; `options` are those of Place."""
    folder.mkdir()
    shelves = Shelves(Catalog(lambda: datetime.now(UTC)), (KEY,), variants=variants)
    with serving_in_thread(shelves) as base_url:
        place = Place(folder, base_url=base_url, **options)
        place.fill(variants)
        with place.daemon() as daemon:
            yield place, daemon, shelves


def sweep(place: Place, daemon: Running, *, changed: int = 0) -> tuple[float, float, float]:
    """Sweep once; return processor seconds, megabytes written and seconds."""
    cpu_s, written_mb = daemon.cpu_s, daemon.written_mb
    for message in request_reconcile(place.socket, messages.ReconcileRequest()):
        if isinstance(message, SweepSummary):
            if (message.result, message.changed, message.variants) != (
                "complete",
                changed,
                _variants(place.mirror),
            ):
                raise AssertionError(f"it did something else: {message}")
            return daemon.cpu_s - cpu_s, daemon.written_mb - written_mb, message.seconds
    raise AssertionError("it did not end")


def _variants(mirror: Path) -> int:
    with contextlib.closing(sqlite3.connect(mirror)) as connection:
        return int(connection.execute("SELECT count(*) FROM availability").fetchone()[0])


def _rewritten(mirror: Path, began_at: str) -> int:
    with contextlib.closing(sqlite3.connect(mirror)) as connection:
        return int(
            connection.execute(
                "SELECT count(*) FROM variants WHERE decided_at >= ? AND variant_id < ?",
                (began_at, LONGEST_ITEM),
            ).fetchone()[0]
        )
