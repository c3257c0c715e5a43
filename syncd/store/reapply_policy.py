"""A changed configuration: decide again about every variant, slice by slice."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import datetime
from functools import partial

import msgspec

from syncd.core.policy import Policy
from syncd.core.removals import reapply_policy
from syncd.store import items, rows
from syncd.store.database import Database

# Variants of one slice. Deliveries wait while a slice is written.
SLICE = 500


async def reapply(database: Database, policy: Policy, clock: Callable[[], datetime]) -> bool:
    """Apply a policy to every variant if it is new; return whether it was new.

    Deliveries are written between two slices. After an interruption, the next call begins again
    with any policy.
    """
    if not await database.read(lambda db: is_new(db, policy)):
        return False
    await database.write(lambda db: begin(db, policy))
    last_id: int | None = -1
    while last_id is not None:
        last_id = await database.write(
            partial(apply_slice, after=last_id, policy=policy, now=clock())
        )
    return True


def is_new(db: sqlite3.Connection, policy: Policy) -> bool:
    """Return whether another policy decided about the variants."""
    return rows.get_state(db, "policy") != _text(policy)


def begin(db: sqlite3.Connection, policy: Policy) -> None:
    """Decide about each item, and store that more than one policy decided about the variants."""
    rows.put_state(db, "policy", "")
    items.block(db, policy.blocks)


def mark_applied(db: sqlite3.Connection, policy: Policy) -> None:
    """Store that this policy decided about every variant."""
    rows.put_state(db, "policy", _text(policy))


def apply_slice(db: sqlite3.Connection, *, after: int, policy: Policy, now: datetime) -> int | None:
    """Apply the policy to the next variants; return the last id, or None after the last slice."""
    states = rows.next_variants(db, after, SLICE)
    if not states:
        if policy.only_items is not None:
            items.delete_empty(db, policy.only_items)
        mark_applied(db, policy)
        return None
    rows.save(db, reapply_policy(states, policy, now=now), now)
    return states[-1].variant_id


def _text(policy: Policy) -> str:
    is_open = policy.has_categories or policy.wanted is not None
    decided: list[object] = [sorted(policy.sellable), None if is_open else sorted(policy.items)]
    if policy.blocked_item_statuses or policy.is_listed_only:
        decided += [sorted(policy.blocked_item_statuses), policy.is_listed_only]
    return msgspec.json.encode(decided).decode()
