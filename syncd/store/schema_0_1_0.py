"""The schema of version 0.1.0. It is released, so no text here ever changes."""

from __future__ import annotations

TABLES = """
CREATE TABLE items (
    item_id INTEGER PRIMARY KEY,
    name TEXT,
    confirmed_at TEXT,              -- when the last read of it began, by this host's clock
    read_at TEXT,                   -- the Date of that answer, Dreamship's clock
    is_gone INTEGER NOT NULL DEFAULT 0, -- that read was answered 404
    attempts INTEGER NOT NULL DEFAULT 0,
    not_before TEXT                 -- back-off after failed reads
);
CREATE INDEX items_by_read ON items (confirmed_at);
CREATE INDEX items_put_off ON items (not_before) WHERE not_before IS NOT NULL;
CREATE TABLE variants (
    variant_id INTEGER PRIMARY KEY,
    item_id INTEGER,
    name TEXT,
    color TEXT,
    size TEXT,
    value TEXT,                     -- availability as received; NULL: gone from the catalogue
    doubts TEXT,                    -- JSON list of values set against it; NULL: none
    sellable INTEGER NOT NULL,
    event_at TEXT,
    delivered_at TEXT,
    confirmed_at TEXT NOT NULL,     -- its own; a read of the item may be newer
    changed_at TEXT NOT NULL,
    source TEXT NOT NULL,
    rule TEXT NOT NULL,             -- what wrote this row last
    judged_at TEXT NOT NULL,        -- and when
    absent_at TEXT                  -- since when a sweep that has not ended does not find it
);
CREATE INDEX variants_by_item ON variants (item_id);
CREATE INDEX variants_apart ON variants (confirmed_at) WHERE value IS NOT NULL
    AND (doubts IS NOT NULL OR absent_at IS NOT NULL OR item_id IS NULL);
CREATE INDEX variants_absent ON variants (absent_at) WHERE absent_at IS NOT NULL;
CREATE TABLE deliveries (
    delivery_id INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL,
    told TEXT NOT NULL,             -- what it told: a retry with newer data is no duplicate
    received_at TEXT NOT NULL,
    event_at TEXT,
    action TEXT,
    variant_id INTEGER,
    item_id INTEGER,
    outcome TEXT NOT NULL,
    rule TEXT,
    reason TEXT,
    duplicates INTEGER NOT NULL DEFAULT 0,
    body BLOB                       -- NULL when it was not about availability: not ours to keep
);
CREATE UNIQUE INDEX deliveries_once ON deliveries (event_id, told);
CREATE INDEX deliveries_by_variant ON deliveries (variant_id);
CREATE INDEX deliveries_by_moment ON deliveries (received_at);
CREATE INDEX deliveries_about_variants ON deliveries (delivery_id) WHERE rule IS NOT NULL;
CREATE INDEX deliveries_quarantined ON deliveries (delivery_id) WHERE outcome = 'quarantined';
CREATE TABLE change_log (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    variant_id INTEGER NOT NULL,
    item_id INTEGER,
    old_availability TEXT,
    availability TEXT,
    old_sellable INTEGER NOT NULL,
    sellable INTEGER NOT NULL,
    cause TEXT NOT NULL,
    rule TEXT NOT NULL,
    missed INTEGER NOT NULL,
    is_excused INTEGER NOT NULL,    -- missed while the daemon itself was not there
    occurred_at TEXT NOT NULL,
    recorded_at TEXT NOT NULL
);
CREATE INDEX change_log_by_variant ON change_log (variant_id);
CREATE INDEX change_log_by_moment ON change_log (recorded_at);
CREATE INDEX change_log_missed ON change_log (variant_id) WHERE missed = 1;
CREATE TABLE refresh_queue (
    item_id INTEGER PRIMARY KEY,
    asked_at TEXT,                  -- a doubt: ask from then on; NULL: no hurry
    settle_at TEXT NOT NULL,        -- from when on a read of it settles something
    latest_at TEXT NOT NULL         -- from when on it settles everything
);
CREATE INDEX refresh_queue_due ON refresh_queue (settle_at);
CREATE INDEX refresh_queue_asked ON refresh_queue (asked_at) WHERE asked_at IS NOT NULL;
CREATE TABLE unlocated (
    variant_id INTEGER PRIMARY KEY, -- no delivery named its item, and the mirror does not know it
    asked_at TEXT NOT NULL,
    answered_at TEXT                -- a whole sweep did not find it
);
CREATE TABLE sweeps (
    sweep_id INTEGER PRIMARY KEY AUTOINCREMENT,
    cause TEXT NOT NULL,
    is_catalogue INTEGER NOT NULL,
    began_at TEXT NOT NULL,
    ended_at TEXT,
    position TEXT,                  -- JSON, where the listing stands; NULL: nothing is listed
    is_listing INTEGER NOT NULL DEFAULT 0,
    has_moved INTEGER NOT NULL DEFAULT 0, -- what it listed was gone when it was asked for
    accepts_removals INTEGER NOT NULL DEFAULT 0,
    is_braked INTEGER NOT NULL DEFAULT 0, -- too much is absent to be believed
    held INTEGER NOT NULL DEFAULT 0,      -- so many variants were therefore not removed
    result TEXT,
    items INTEGER NOT NULL DEFAULT 0,
    variants INTEGER NOT NULL DEFAULT 0,
    changed INTEGER NOT NULL DEFAULT 0,
    added INTEGER NOT NULL DEFAULT 0,
    removed INTEGER NOT NULL DEFAULT 0,
    missed INTEGER NOT NULL DEFAULT 0,
    calls INTEGER NOT NULL DEFAULT 0,
    throttled INTEGER NOT NULL DEFAULT 0,
    failed_items TEXT NOT NULL DEFAULT '[]',
    error TEXT NOT NULL DEFAULT ''
);
CREATE INDEX sweeps_open ON sweeps (sweep_id) WHERE ended_at IS NULL;
CREATE TABLE sweep_items (
    sweep_id INTEGER NOT NULL,
    item_id INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'todo',
    tries INTEGER NOT NULL DEFAULT 0,
    run INTEGER NOT NULL DEFAULT 0, -- the run of the listing that showed it last; 0: none did
    PRIMARY KEY (sweep_id, item_id)
) WITHOUT ROWID;
CREATE INDEX sweep_items_todo ON sweep_items (item_id) WHERE state = 'todo';
CREATE TABLE calls (call_id INTEGER PRIMARY KEY, at TEXT NOT NULL);
CREATE TABLE counts (
    name TEXT NOT NULL,
    hour TEXT NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (name, hour)
) WITHOUT ROWID;
CREATE TABLE state (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID
"""

VIEWS = """
CREATE VIEW availability AS
-- One row a variant: what the mirror says now. The contract, number in PRAGMA user_version.
SELECT v.variant_id, v.item_id, i.name AS item_name, v.name AS variant_name, v.color, v.size,
       v.value AS availability, v.sellable, v.value IS NULL AS removed,
       v.doubts IS NOT NULL AS verifying, v.changed_at,
       CASE WHEN v.doubts IS NULL AND v.absent_at IS NULL
            THEN max(v.confirmed_at, coalesce(i.confirmed_at, ''))
            ELSE v.confirmed_at END AS confirmed_at,
       v.source
FROM variants v LEFT JOIN items i ON i.item_id = v.item_id;
CREATE VIEW changes AS
-- One row for each change of availability, sellable or removed, oldest first. The contract.
SELECT seq, variant_id, item_id, old_availability, availability, old_sellable, sellable, cause,
       missed, occurred_at, recorded_at
FROM change_log;
CREATE VIEW freshness AS
-- One row: when the daemon and its sources were last heard. The contract.
SELECT (SELECT value FROM state WHERE key = 'last_delivery_at') AS last_delivery_at,
       (SELECT max(ended_at) FROM sweeps
        WHERE is_catalogue = 1 AND result IN ('complete', 'partial')) AS last_sweep_finished_at,
       -- min(confirmed_at) of `availability` WHERE removed = 0, without reading all of it.
       -- The oldest read that is the last word on a variant:
       (WITH read(at) AS (
            SELECT confirmed_at FROM items i WHERE confirmed_at IS NOT NULL AND EXISTS
                (SELECT 1 FROM variants v
                 WHERE v.item_id = i.item_id AND v.confirmed_at <= i.confirmed_at
                   AND v.value IS NOT NULL AND v.doubts IS NULL AND v.absent_at IS NULL)
            ORDER BY confirmed_at LIMIT 1)
        SELECT min(at) FROM (
            SELECT at FROM read
            UNION ALL
            -- of items whose read is older, or was never, what deliveries said since:
            SELECT min(v.confirmed_at) FROM items i CROSS JOIN variants v ON v.item_id = i.item_id
            WHERE i.confirmed_at < coalesce((SELECT at FROM read), '~')
              AND v.value IS NOT NULL AND v.doubts IS NULL AND v.absent_at IS NULL
            UNION ALL
            SELECT min(v.confirmed_at) FROM items i CROSS JOIN variants v ON v.item_id = i.item_id
            WHERE i.confirmed_at IS NULL
              AND v.value IS NOT NULL AND v.doubts IS NULL AND v.absent_at IS NULL
            UNION ALL
            -- and variants that no read of an item speaks for:
            SELECT min(confirmed_at) FROM variants WHERE value IS NOT NULL
                AND (doubts IS NOT NULL OR absent_at IS NOT NULL OR item_id IS NULL)))
           AS oldest_confirmed_at,
       coalesce((SELECT value FROM state WHERE key = 'webhooks_state'), 'unknown')
           AS webhooks_state,
       (SELECT value FROM state WHERE key = 'daemon_seen_at') AS daemon_seen_at
"""

WEBHOOK_STATES = """CREATE TABLE webhook_states (
    change_id INTEGER PRIMARY KEY AUTOINCREMENT,
    state TEXT NOT NULL,            -- see webhook_health
    began_at TEXT NOT NULL
)"""

# One page of the log a delivery less than with an index of variants and one of events, which
# begin with a text that is new each time.
DELIVERIES_BY_VARIANT = """
CREATE UNIQUE INDEX deliveries_of_variants ON deliveries (variant_id, event_id, told);
CREATE UNIQUE INDEX deliveries_of_none ON deliveries (event_id, told) WHERE variant_id IS NULL;
DROP INDEX deliveries_once;
DROP INDEX deliveries_by_variant;
"""
