"""The next rows to publish: each round reads one state of the mirror and makes one batch of it.

A round contains, as far as it is due: the next changes of the feed, items that were confirmed since
the last round, and one range of a copy, of the listings or of the rolling comparison.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Literal

from msgspec import Struct

from syncd.core.publishing import (
    COPIED,
    ORDER,
    Change,
    Cursor,
    Key,
    Position,
    Slice,
    Source,
    needs_copy,
    next_position,
)
from syncd.publish import sources
from syncd.publish.batch import Batch, Written
from syncd.publish.take_over import Copy
from syncd.store import publishing as mirror
from syncd.store.publishing import Head

# Changes of one round, and rows of one range.
MOST_CHANGES = 5_000
MOST_ROWS = 2_000
# Confirmed items of one round. With their variants, a round has about MOST_ROWS rows of them.
MOST_ITEMS = 200
# How often to look for items that were confirmed, and to write that the daemon lives: while
# everything is published, `freshness.daemon_seen_at` is at most 30 s old.
CONFIRM_EVERY_S = 10.0
# The rolling comparison reads a range in this interval: a million variants in three hours.
COMPARE_EVERY_S = 10.0
# `confirmed_at` is the time at which a read began. Its commit may be minutes later, and the clock
# may be set back.
OVERLAP = timedelta(minutes=15)


class _Round(Struct, kw_only=True):
    """The progress to keep once the batch of a round is committed."""

    confirmed: dict[int, str]
    # Whether the round looked for confirmed items, and these are all.
    is_drained: bool = False
    # Whether the round wrote the freshness, or could not because a copy runs.
    is_settled: bool = False
    compared: Literal["copy", "listings", "rolling"] | None = None
    begun_s: float = 0.0


class Rounds:
    """Makes the batches of one session: as long as the lease and the connection last.

    `is_behind`: the last round left something to publish at once.
    """

    def __init__(
        self,
        monotonic: Callable[[], float],
        now: Callable[[], datetime],
        *,
        confirm_every_s: float = CONFIRM_EVERY_S,
        copy: Copy | None = None,
    ) -> None:
        self.is_behind = True
        self._confirm_every_s = confirm_every_s
        self._copy = copy
        self._monotonic = monotonic
        self._now = now
        self._confirm_at_s = monotonic()
        self._compare_at_s = monotonic() + COMPARE_EVERY_S
        self._rolling = Position(ORDER[0])
        # The version of the listings that are compared, and the last compared SKU.
        self._listings: tuple[int, Key | None] | None = None
        # The published confirmation of each item, for the items of the last minutes.
        self._confirmed: dict[int, str] = {}
        self._round = _Round(confirmed={})

    @property
    def due_in_s(self) -> float:
        """The time until a round is due although the mirror has not changed."""
        return max(0.0, min(self._confirm_at_s, self._compare_at_s) - self._monotonic())

    def next(self, db: sqlite3.Connection, source: Source) -> Batch | None:
        """Return the next batch, None if nothing is due. Runs in one transaction of the mirror."""
        self._round = _Round(confirmed={}, begun_s=self._monotonic())
        head = mirror.head(db)
        before = source.cursor
        copy = self._copy
        if copy is not None and _follows_copy(db, source, head, copy):
            return self._go_on_from_copy(db, before, copy)
        has_change = before is not None and mirror.has_change(db, before)
        if before is None or needs_copy(
            source, head.mirror, has_change=has_change, is_swept=head.is_swept
        ):
            return self._begin_copy(source, head)
        return self._follow(db, source, before, head)

    def written(self, written: Written) -> None:
        """Take note that the batch of the last round is committed."""
        last, self._round = self._round, _Round(confirmed={})
        self._confirmed |= last.confirmed
        if last.is_settled:
            self._confirm_at_s = last.begun_s + self._confirm_every_s
        if last.compared in {"copy", "listings"} and written.end is None:
            # The target may be complete now. Then the next round writes its freshness.
            self._confirm_at_s = last.begun_s
        if last.compared == "listings" and self._listings is not None:
            version, _ = self._listings
            self._listings = None if written.end is None else (version, written.end)
        elif last.compared == "rolling":
            self._rolling = next_position(self._rolling, written.end, ORDER) or Position(ORDER[0])
            self._compare_at_s = last.begun_s + COMPARE_EVERY_S

    def _go_on_from_copy(self, db: sqlite3.Connection, before: Cursor | None, copy: Copy) -> Batch:
        """Return the batch after which the target equals the mirror, which has a copy of it.

        It contains all rows of the mirror that may differ from the target. The next batches follow
        the feed from the end of the copy, and the items that were confirmed since its beginning.
        The mirror has every row of the target, so that no sweep has to come before a comparison.
        """
        self.is_behind = True
        parts = [part for part in _rows(db, copy.items, copy.variants) if part.rows]
        return Batch(
            before=before,
            after=copy.cursor,
            now=self._now(),
            parts=parts,
            last=_last_changes(db, parts),
            columns={
                "is_swept": True,
                # The versions of two mirrors do not compare.
                "listings_version": None,
                "confirmed_until": copy.began_at,
            },
        )

    def _begin_copy(self, source: Source, head: Head) -> Batch:
        """Return the batch that begins a comparison of the whole target, at the end of the feed."""
        self._confirmed.clear()
        self._listings = None
        self.is_behind = True
        # `listings_version`: the versions of two mirrors do not compare.
        columns: dict[str, Any] = {"is_swept": head.is_swept, "listings_version": None}
        columns |= {"confirmed_until": self._now()} | sources.position_values(Position(COPIED[0]))
        before = source.cursor
        if before is not None and before.mirror == head.mirror and head.seq < before.seq:
            # The mirror was set back while this process runs. The rows of the target have a newer
            # state of it in this epoch, and only a newer epoch replaces them.
            columns |= {"epoch": source.epoch + 1}
        return Batch(before=before, after=head.cursor, now=self._now(), columns=columns)

    def _follow(
        self, db: sqlite3.Connection, source: Source, before: Cursor, head: Head
    ) -> Batch | None:
        now = self._now()
        changes = mirror.changes_after(db, before.seq, MOST_CHANGES)
        last = changes[-1] if changes else None
        after = before if last is None else Cursor(head.mirror, last.seq, last.recorded_at)
        is_caught_up = after.seq == head.seq
        variants = {change.variant_id for change in changes}
        items = {change.item_id for change in changes if change.item_id is not None}
        is_looking = self._round.begun_s >= self._confirm_at_s
        if is_looking:
            variants |= self._look_for_confirmed(db, source, now)
            items |= self._round.confirmed.keys()
        is_drained = self._round.is_drained
        is_whole = _is_whole(source, head)
        parts = [part for part in _rows(db, items, variants) if part.rows]
        if (compared := self._next_range(db, source, head, is_whole=is_whole)) is not None:
            parts.append(compared)
        self.is_behind = not is_caught_up or not is_whole or (is_looking and not is_drained)
        if not changes and not parts and not is_drained:
            return None
        is_fresh = is_whole and is_caught_up and is_drained
        self._round.is_settled = is_fresh or (is_drained and not is_whole)
        listings = None
        if self._round.compared == "listings" and self._listings is not None:
            listings, _ = self._listings
        return Batch(
            before=before,
            after=after,
            now=now,
            parts=parts,
            changes=changes,
            last=_last_changes(db, parts) if source.is_filled else {},
            copy=source.copy,
            listings_version=listings,
            columns={"confirmed_until": now} if is_drained else {},
            freshness=mirror.freshness(db) if is_fresh else None,
        )

    def _look_for_confirmed(
        self, db: sqlite3.Connection, source: Source, now: datetime
    ) -> set[int]:
        """Find items that were confirmed and are not published; return their variants."""
        since = min(source.confirmed_until or now, now) - OVERLAP
        found = dict(mirror.confirmed_since(db, since))
        self._confirmed = {
            item: at for item, at in self._confirmed.items() if found.get(item) == at
        }
        new = [item for item in found if item not in self._confirmed]
        variants: set[int] = set()
        for item in new[:MOST_ITEMS]:
            self._round.confirmed[item] = found[item]
            variants.update(mirror.variants_of(db, item))
            if len(variants) >= MOST_ROWS:
                break
        self._round.is_drained = len(self._round.confirmed) == len(new)
        return variants

    def _next_range(
        self, db: sqlite3.Connection, source: Source, head: Head, *, is_whole: bool
    ) -> Slice | None:
        """Return the range to compare: of a copy, of changed listings, or of the rolling one."""
        this = self._round
        if source.copy is not None:
            this.compared, position = "copy", source.copy
        elif not is_whole:
            if self._listings is None or self._listings[0] != head.listings_version:
                self._listings = head.listings_version, None
            this.compared, position = "listings", Position("skus", self._listings[1])
        elif this.begun_s >= self._compare_at_s:
            if self._rolling.table == "skus" and not head.listings_version:
                self._rolling = Position(ORDER[0])
            this.compared, position = "rolling", self._rolling
        else:
            return None
        return mirror.range_of(db, position.table, position.after, MOST_ROWS)


def _is_whole(source: Source, head: Head) -> bool:
    """Return whether the target has every row of the mirror, except for the newest changes.

    A mirror that never had listings leaves those of the target alone.
    """
    has_listings = head.listings_version in {0, source.listings_version}
    return source.is_filled and source.copy is None and has_listings


def _follows_copy(db: sqlite3.Connection, source: Source, head: Head, copy: Copy) -> bool:
    """Return whether mirror and target are those of a copy, and nobody published since."""
    is_same_target = (source.cursor, source.epoch, source.copy) == (copy.before, copy.epoch, None)
    is_same_mirror = copy.cursor.mirror == head.mirror and mirror.has_change(db, copy.cursor)
    return is_same_target and is_same_mirror


def _rows(db: sqlite3.Connection, items: set[int], variants: set[int]) -> tuple[Slice, Slice]:
    return mirror.rows_of(db, "items", items), mirror.rows_of(db, "variants", variants)


def _last_changes(db: sqlite3.Connection, parts: list[Slice]) -> dict[int, Change]:
    return mirror.last_changes(
        db, [row[0] for part in parts if part.table == "variants" for row in part.rows]
    )
