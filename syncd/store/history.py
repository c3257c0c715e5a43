"""The history of one variant, and the stored deliveries, for operators."""

from __future__ import annotations

import sqlite3

import msgspec

from syncd.core.explain import VariantHistory
from syncd.core.model import Row

_NEWEST = 10
# How far back the delivery or the change is searched that set the value.
_DEEPEST = 1000


def variant_history(db: sqlite3.Connection, variant_id: int) -> VariantHistory:
    """Return the stored history of one variant, the newest rows first.

    It has the newest deliveries and changes, and, however many are newer, those that set the value
    and the deliveries that were rejected since.
    """
    db.execute("BEGIN")
    try:
        row = dicts(db.execute("SELECT * FROM availability WHERE variant_id = ?", (variant_id,)))
        grounds = dicts(
            db.execute(
                """SELECT v.rule, v.decided_at, v.conflicting_values, v.missing_since,
                          i.confirmed_at AS item_read_at, i.is_gone AS item_is_gone,
                          q.urgent_at, q.settle_at
                   FROM variants v LEFT JOIN items i ON i.item_id = v.item_id
                   LEFT JOIN refresh_queue q ON q.item_id = v.item_id
                   WHERE v.variant_id = ?""",
                (variant_id,),
            )
        )
        for one in grounds:
            one["conflicting_values"] = msgspec.json.decode(one["conflicting_values"] or "[]")
        return VariantHistory(
            variant_id=variant_id,
            row=row[0] if row else None,
            grounds=grounds[0] if grounds else None,
            deliveries=dicts(
                db.execute(
                    """WITH RECURSIVE chain (delivery_id, depth) AS (
                           SELECT last_delivery_id, 1 FROM variants WHERE variant_id = :variant_id
                           UNION ALL
                           SELECT d.previous_delivery_id, c.depth + 1
                           FROM chain c JOIN deliveries d ON d.delivery_id = c.delivery_id
                           WHERE c.depth < :deepest),
                       newest AS (
                           SELECT delivery_id FROM (
                               SELECT delivery_id FROM chain WHERE depth <= :newest
                               UNION SELECT * FROM (
                                   SELECT delivery_id FROM deliveries
                                   WHERE variant_id = :variant_id AND rule IS NULL
                                   ORDER BY delivery_id DESC LIMIT :newest)
                               UNION SELECT * FROM (
                                   -- Quarantined ones that name the variant, or only its item.
                                   SELECT delivery_id FROM deliveries d
                                   WHERE outcome = 'quarantined'
                                     AND CASE WHEN d.named_variants IS NULL
                                         THEN d.item_id = (SELECT v.item_id FROM variants v
                                                           WHERE v.variant_id = :variant_id)
                                         ELSE :variant_id IN
                                           (SELECT j.value FROM json_each(d.named_variants) j) END
                                   ORDER BY delivery_id DESC LIMIT :newest))
                           ORDER BY delivery_id DESC LIMIT :newest),
                       setter AS (
                           SELECT max(d.delivery_id) AS delivery_id
                           FROM chain c CROSS JOIN deliveries d ON d.delivery_id = c.delivery_id
                           WHERE d.rule IN ('newer', 'first-word', 'first-word-doubted')
                             AND 'webhook' =
                               (SELECT source FROM variants WHERE variant_id = :variant_id)),
                       rejected AS (
                           SELECT d.delivery_id
                           FROM chain c CROSS JOIN deliveries d ON d.delivery_id = c.delivery_id
                           WHERE d.rule = 'contradicts' AND d.received_at >=
                               (SELECT changed_at FROM variants WHERE variant_id = :variant_id)
                           ORDER BY d.delivery_id DESC LIMIT :newest)
                       -- Each join begins with the few ids: SQLite 3.46 would read the whole table
                       -- for a condition with OR.
                       SELECT d.delivery_id, event_id, received_at, event_at, outcome, rule, reason,
                              CASE WHEN content_key LIKE '%=%'
                                   THEN substr(content_key, instr(content_key, '=') + 1)
                              END AS told
                       FROM (SELECT delivery_id FROM newest UNION SELECT delivery_id FROM setter
                             UNION SELECT delivery_id FROM rejected) shown
                       CROSS JOIN deliveries d ON d.delivery_id = shown.delivery_id
                       ORDER BY d.delivery_id DESC""",
                    {"variant_id": variant_id, "newest": _NEWEST, "deepest": _DEEPEST},
                )
            ),
            changes=dicts(
                db.execute(
                    """WITH RECURSIVE chain (seq, depth) AS (
                           SELECT last_change_seq, 1 FROM variants WHERE variant_id = :variant_id
                           UNION ALL
                           SELECT l.previous_seq, c.depth + 1
                           FROM chain c JOIN change_log l ON l.seq = c.seq
                           WHERE c.depth < :deepest)
                       SELECT l.seq, old_availability, availability, sellable, cause, rule, missed,
                              recorded_at
                       FROM (SELECT seq FROM chain WHERE depth <= :newest
                             UNION SELECT max(l.seq) FROM chain c CROSS JOIN change_log l
                                 ON l.seq = c.seq
                             WHERE l.old_availability IS NOT l.availability) shown
                       CROSS JOIN change_log l ON l.seq = shown.seq
                       ORDER BY l.seq DESC""",
                    {"variant_id": variant_id, "newest": _NEWEST, "deepest": _DEEPEST},
                )
            ),
            is_unplaced=bool(
                db.execute(
                    "SELECT 1 FROM unplaced_variants WHERE variant_id = ?", (variant_id,)
                ).fetchone()
            ),
        )
    finally:
        db.execute("COMMIT")


def deliveries(
    db: sqlite3.Connection, outcome: str | None, limit: int, *, with_body: bool
) -> list[Row]:
    r"""Return stored deliveries, newest first; the body as text, or null if it is not stored.

    If a body is not UTF-8, each invalid byte becomes text such as `\xff`. `named_variants` are the
    variants that a quarantined body names.
    """
    body = ", CAST(body AS BLOB) AS body" if with_body else ""
    # The index of quarantined deliveries needs the value in the statement.
    is_quarantined = outcome == "quarantined"
    condition = "outcome = 'quarantined'" if is_quarantined else "?1 IS NULL OR outcome = ?1"
    found = dicts(
        db.execute(
            f"""SELECT delivery_id, received_at, event_id, event_at, action, variant_id, item_id,
                       outcome, rule, reason, duplicates, named_variants{body}
                FROM deliveries WHERE {condition}
                ORDER BY delivery_id DESC LIMIT ?2""",  # noqa: S608 - constants
            (outcome, limit),
        )
    )
    for one in found:
        one["named_variants"] = msgspec.json.decode(one["named_variants"] or "[]")
        if one.get("body") is not None:
            one["body"] = one["body"].decode(errors="backslashreplace")
    return found


def dicts(cursor: sqlite3.Cursor) -> list[Row]:
    """Return each row as a dict with the names of the columns."""
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]
