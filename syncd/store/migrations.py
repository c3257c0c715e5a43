"""The schema, as steps that are applied once each. A released step never changes.

Tables are internal and may change; the views are the contract (syncd/docs/reference.md,
"The views").
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from sqlite_utils import Database, Migrations

from syncd.errors import MirrorIncompatible
from syncd.store import schema_0_1_0, schema_0_2_0, views

CONTRACT = 1
# "sync" in ASCII: it distinguishes a mirror from other database files.
APPLICATION_ID = 0x73796E63

migrations = Migrations("syncd")


@migrations()
def first_contract(db: Database) -> None:
    """Create contract 1."""
    for statement in _statements(f"{schema_0_1_0.TABLES};{schema_0_1_0.VIEWS};"):
        db.conn.execute(statement)
    db.conn.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.conn.execute(f"PRAGMA user_version = {CONTRACT}")


@migrations()
def webhook_states(db: Database) -> None:
    """Create the history of the webhook's state: one row each time it changes."""
    db.conn.execute(schema_0_1_0.WEBHOOK_STATES)


@migrations()
def deliveries_by_variant(db: Database) -> None:
    """Find a delivery only by its variant: each index in random order writes one more page."""
    for statement in _statements(schema_0_1_0.DELIVERIES_BY_VARIANT):
        db.conn.execute(statement)


_SWEEP_ERRORS = """
ALTER TABLE items ADD COLUMN is_read INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sweep_items ADD COLUMN error TEXT;
CREATE INDEX change_log_removals ON change_log (recorded_at) WHERE availability IS NULL;
"""


@migrations()
def sweep_faults(db: Database) -> None:
    """Store why a sweep could not read an item, and which items were read one by one.

    The index finds the removals of a day.
    """
    for statement in _statements(_SWEEP_ERRORS):
        db.conn.execute(statement)


@migrations()
def named_variants(db: Database) -> None:
    """Store the variants that a quarantined delivery names."""
    db.conn.execute("ALTER TABLE deliveries ADD COLUMN named_variants TEXT")


@migrations()
def standard_names_and_chains(db: Database) -> None:
    """Use the standard terms of the field, and chains instead of indexes by variant and by time.

    The views are the same, except that `freshness` shows no time in the future.
    """
    for statement in _statements(schema_0_2_0.NAMES + schema_0_2_0.CHAINS):
        db.conn.execute(statement)
    # Each step is a transaction of its own, and shops read between two steps.
    for view in (schema_0_2_0.AVAILABILITY, views.CHANGES, views.FRESHNESS):
        db.conn.execute(view)


@migrations()
def reading_never_ends(db: Database) -> None:
    """Store which sweeps use background calls only, and the rows of the list."""
    for statement in _statements(schema_0_2_0.READING):
        db.conn.execute(statement)


@migrations()
def listings_and_reasons(db: Database) -> None:
    """Store the SKUs of the shop, costs, and statuses of items.

    `availability` has more columns, and the view `listings` is new.
    """
    for statement in _statements(schema_0_2_0.LISTINGS):
        db.conn.execute(statement)
    for view in (views.AVAILABILITY, views.LISTINGS):
        db.conn.execute(view)


@migrations()
def positions_of_pushes(db: Database) -> None:
    """Store where each push goes on in the change feed."""
    for statement in _statements(schema_0_2_0.PUSHES):
        db.conn.execute(statement)


@migrations()
def compared_changes(db: Database) -> None:
    """Store which changes were compared with the rows of the list."""
    for statement in _statements(schema_0_2_0.COMPARED):
        db.conn.execute(statement)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the schema to this version; a step that fails changes nothing.

    Raises MirrorIncompatible if a newer version applied a step that this version does not have: the
    tables are then different, even if the contract is the same.
    """
    database = Database(connection)
    ours = {step.name for step in migrations._migrations}  # noqa: SLF001 - it has no public name
    if foreign := {step.name for step in migrations.applied(database)} - ours:
        raise MirrorIncompatible(
            f"the mirror was made by a newer syncd (its schema has {', '.join(sorted(foreign))})",
            hint="install the newer version again, or restore an older backup",
        )
    migrations.apply(database)


def has_older_schema(connection: sqlite3.Connection) -> bool:
    """Return whether an older version made this mirror, and the daemon has not upgraded it."""
    applied = {step.name for step in migrations.applied(Database(connection))}
    steps = {step.name for step in migrations._migrations}  # noqa: SLF001 - it has no public name
    return bool(applied) and applied < steps


def _statements(script: str) -> Iterator[str]:
    """Split a script into statements; executescript of sqlite3 would commit before it."""
    statement = ""
    for part in script.split(";"):
        statement += f"{part};"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
