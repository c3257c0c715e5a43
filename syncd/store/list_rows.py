"""Fingerprints of the rows of the list, and whether changed rows show changed availability.

All of it is a hint: the fetcher writes it in separate transactions, so that a damaged page here
prevents nothing else.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime

import msgspec

from syncd.core import list_hints
from syncd.core.list_hints import HintCounts
from syncd.core.model import SourceItem
from syncd.core.timestamps import to_text
from syncd.store.rows import as_json, get_state, put_state

_COUNTS = "list_hints"


def counts(db: sqlite3.Connection) -> HintCounts:
    """Return how well rows have shown changes so far."""
    return msgspec.json.decode(get_state(db, _COUNTS) or "{}", type=HintCounts)


def save(db: sqlite3.Connection, shown: Sequence[SourceItem], began_at: datetime) -> None:
    """Store the rows of a page. An item whose row has changed is to be read soon."""
    new = {one.item_id: one.fingerprint for one in shown if one.fingerprint is not None}
    stored = {
        item_id: (print_, bool(is_awaited))
        for item_id, print_, is_awaited in db.execute(
            """SELECT r.item_id, r.fingerprint, r.is_awaited FROM json_each(?) j
               JOIN list_rows r ON r.item_id = j.value""",
            (as_json(new),),
        )
    }
    added = [(item_id, print_) for item_id, print_ in new.items() if item_id not in stored]
    changed = [one for one, (print_, _) in stored.items() if new[one] != print_]
    awaited = [one for one, (_, is_awaited) in stored.items() if is_awaited]
    db.executemany(
        "INSERT INTO list_rows (item_id, fingerprint, checked_seq) VALUES (?, ?, ?)",
        [(*one, _newest_change(db, one[0])) for one in added],
    )
    db.executemany(
        """UPDATE list_rows SET fingerprint = ?, changed_at = coalesce(changed_at, ?)
           WHERE item_id = ?""",
        [(new[one], to_text(began_at), one) for one in changed],
    )
    db.execute(
        """UPDATE list_rows SET is_awaited = 0
           WHERE is_awaited AND item_id IN (SELECT value FROM json_each(?))""",
        (as_json(stored),),
    )
    _count(
        db,
        checked=len(awaited),
        predicted=len(set(awaited) & set(changed)),
        listed=len(stored),
        flagged=len(changed),
    )


def item_was_read(db: sqlite3.Connection, item_id: int, began_at: datetime) -> None:
    """Compare the changes of an item since the last call, of a read or a delivery, with its row.

    If a changed item has the same row as before, the next reading of the list decides whether its
    row has changed too.
    """
    row = db.execute(
        "SELECT changed_at, checked_seq FROM list_rows WHERE item_id = ?", (item_id,)
    ).fetchone()
    if row is None:
        return
    changed_at, checked_seq = row
    newest = _newest_change(db, item_id)
    was_flagged = changed_at is not None and changed_at <= to_text(began_at)
    if was_flagged:
        db.execute("UPDATE list_rows SET changed_at = NULL WHERE item_id = ?", (item_id,))
    if newest <= checked_seq:
        return
    db.execute("UPDATE list_rows SET checked_seq = ? WHERE item_id = ?", (newest, item_id))
    if was_flagged:
        _count(db, checked=1, predicted=1)
    else:
        db.execute("UPDATE list_rows SET is_awaited = 1 WHERE item_id = ?", (item_id,))


def _newest_change(db: sqlite3.Connection, item_id: int) -> int:
    """Return the last change of a value of an item; a new policy or a new variant is none."""
    (seq,) = db.execute(
        """SELECT max(c.seq) FROM variants v JOIN change_log c ON c.seq = v.last_change_seq
           WHERE v.item_id = ? AND c.old_availability IS NOT c.availability
             AND c.old_availability IS NOT NULL""",
        (item_id,),
    ).fetchone()
    return seq or 0


def prune(db: sqlite3.Connection) -> None:
    """Delete the rows of items that are gone."""
    db.execute(
        """DELETE FROM list_rows WHERE NOT EXISTS
               (SELECT 1 FROM items i WHERE i.item_id = list_rows.item_id AND i.is_gone = 0)"""
    )


def _count(
    db: sqlite3.Connection, *, checked: int, predicted: int, listed: int = 0, flagged: int = 0
) -> None:
    if not (checked or flagged):
        return  # most readings of the list write nothing
    after = list_hints.add(
        counts(db), checked=checked, predicted=predicted, listed=listed, flagged=flagged
    )
    put_state(db, _COUNTS, msgspec.json.encode(after).decode())
