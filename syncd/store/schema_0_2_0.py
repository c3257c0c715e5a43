"""The changes of the schema in version 0.2.0. After the release, no text here changes."""

from __future__ import annotations

NAMES = """
DROP VIEW availability;
DROP VIEW changes;
DROP VIEW freshness;
ALTER TABLE variants RENAME COLUMN doubts TO conflicting_values;
ALTER TABLE variants RENAME COLUMN judged_at TO decided_at;
ALTER TABLE variants RENAME COLUMN absent_at TO missing_since;
ALTER TABLE deliveries RENAME COLUMN told TO content_key;
ALTER TABLE change_log RENAME COLUMN is_excused TO during_downtime;
ALTER TABLE refresh_queue RENAME COLUMN asked_at TO urgent_at;
ALTER TABLE refresh_queue RENAME COLUMN latest_at TO final_at;
ALTER TABLE unlocated RENAME TO unplaced_variants;
ALTER TABLE unplaced_variants RENAME COLUMN asked_at TO delivered_at;
ALTER TABLE unplaced_variants RENAME COLUMN answered_at TO not_found_at;
ALTER TABLE sweeps RENAME COLUMN has_moved TO listing_changed;
ALTER TABLE sweeps RENAME COLUMN is_braked TO removals_blocked;
ALTER TABLE sweeps RENAME COLUMN held TO removals_held;
ALTER TABLE sweep_items RENAME COLUMN tries TO attempts;
UPDATE state SET key = 'accepting_since' WHERE key = 'heard_since';
UPDATE state SET key = 'reported_health' WHERE key = 'told_health';
UPDATE state SET key = 'reported_values' WHERE key = 'told_values';
"""

# Tables without AUTOINCREMENT, which writes one more page in every transaction. The newest row is
# never deleted, so no id is given twice. Version 0.1.0 deleted the newest rows too: the state has
# the last ids that it gave.
CHAINS = """
INSERT INTO state SELECT 'last_id_0_1_' || name, seq FROM sqlite_sequence
    WHERE name IN ('deliveries', 'change_log');
CREATE TABLE deliveries_0_2 (
    delivery_id INTEGER PRIMARY KEY,
    previous_delivery_id INTEGER,   -- of the same variant; NULL: none, or it has no rule
    event_id TEXT NOT NULL,
    content_key TEXT NOT NULL,      -- a retry with newer data is no copy
    received_at TEXT NOT NULL,
    event_at TEXT,
    action TEXT,
    variant_id INTEGER,
    item_id INTEGER,
    outcome TEXT NOT NULL,
    rule TEXT,
    reason TEXT,
    duplicates INTEGER NOT NULL DEFAULT 0,
    named_variants TEXT,            -- JSON list: the variants in a quarantined body
    body BLOB                       -- NULL if it is not about availability
);
CREATE TEMP TABLE previous AS
    SELECT delivery_id AS id, lag(delivery_id) OVER
        (PARTITION BY variant_id ORDER BY delivery_id) AS previous
    FROM deliveries WHERE rule IS NOT NULL ORDER BY 1;
CREATE UNIQUE INDEX temp.previous_ids ON previous (id, previous);
INSERT INTO deliveries_0_2
    SELECT delivery_id, p.previous, event_id, content_key, received_at, event_at, action,
        variant_id, item_id, outcome, rule, reason, duplicates, named_variants, body
    FROM deliveries d LEFT JOIN temp.previous p ON p.id = d.delivery_id ORDER BY d.delivery_id;
DROP TABLE temp.previous;
DROP TABLE deliveries;
ALTER TABLE deliveries_0_2 RENAME TO deliveries;
CREATE INDEX deliveries_without_rule ON deliveries (variant_id, event_id, content_key)
    WHERE rule IS NULL;
CREATE INDEX deliveries_quarantined ON deliveries (delivery_id) WHERE outcome = 'quarantined';

CREATE TABLE change_log_0_2 (
    seq INTEGER PRIMARY KEY,
    previous_seq INTEGER,           -- of the same variant
    variant_id INTEGER NOT NULL,
    item_id INTEGER,
    old_availability TEXT,
    availability TEXT,
    old_sellable INTEGER NOT NULL,
    sellable INTEGER NOT NULL,
    cause TEXT NOT NULL,
    rule TEXT NOT NULL,
    missed INTEGER NOT NULL,
    during_downtime INTEGER NOT NULL, -- missed while the daemon could not receive deliveries
    occurred_at TEXT NOT NULL,
    recorded_at TEXT NOT NULL
);
CREATE TEMP TABLE previous AS
    SELECT seq AS id, lag(seq) OVER (PARTITION BY variant_id ORDER BY seq) AS previous
    FROM change_log ORDER BY 1;
CREATE UNIQUE INDEX temp.previous_ids ON previous (id, previous);
INSERT INTO change_log_0_2
    SELECT seq, p.previous, variant_id, item_id, old_availability, availability, old_sellable,
        sellable, cause, rule, missed, during_downtime, occurred_at, recorded_at
    FROM change_log c LEFT JOIN temp.previous p ON p.id = c.seq ORDER BY c.seq;
DROP TABLE temp.previous;
DROP TABLE change_log;
ALTER TABLE change_log_0_2 RENAME TO change_log;
CREATE INDEX change_log_missed ON change_log (variant_id) WHERE missed = 1;
CREATE INDEX change_log_missed_at ON change_log (recorded_at) WHERE missed = 1;
CREATE INDEX change_log_removals ON change_log (recorded_at) WHERE availability IS NULL;

ALTER TABLE variants ADD COLUMN last_delivery_id INTEGER;
ALTER TABLE variants ADD COLUMN last_change_seq INTEGER;
CREATE TEMP TABLE heads AS
    SELECT variant_id, max(delivery_id) AS delivery_id, max(seq) AS seq FROM (
        SELECT variant_id, delivery_id, NULL AS seq FROM deliveries WHERE rule IS NOT NULL
        UNION ALL
        SELECT variant_id, NULL, seq FROM change_log)
    GROUP BY variant_id;
UPDATE variants SET last_delivery_id = h.delivery_id, last_change_seq = h.seq
    FROM temp.heads h WHERE h.variant_id = variants.variant_id;
DROP TABLE temp.heads;
"""

# The view until the step with the listings.
AVAILABILITY = """CREATE VIEW availability AS
SELECT v.variant_id, v.item_id, i.name AS item_name, v.name AS variant_name, v.color, v.size,
       v.value AS availability, v.sellable, v.value IS NULL AS removed,
       v.conflicting_values IS NOT NULL AS verifying, v.changed_at,
       CASE WHEN v.conflicting_values IS NULL AND v.missing_since IS NULL
            THEN max(v.confirmed_at, coalesce(i.confirmed_at, ''))
            ELSE v.confirmed_at END AS confirmed_at,
       v.source
FROM variants v LEFT JOIN items i ON i.item_id = v.item_id"""

LISTINGS = """
DROP VIEW availability;
ALTER TABLE variants ADD COLUMN cost TEXT;          -- decimal text as received
ALTER TABLE variants ADD COLUMN basic_cost TEXT;
ALTER TABLE items ADD COLUMN release_status TEXT;
ALTER TABLE items ADD COLUMN operational_status TEXT;
ALTER TABLE items ADD COLUMN countries TEXT;        -- JSON list of its ship zones' countries
ALTER TABLE items ADD COLUMN is_blocked INTEGER NOT NULL DEFAULT 0; -- by one of its statuses
CREATE TABLE skus (                                 -- the rows of `catalog.listings`
    sku TEXT PRIMARY KEY,
    variant_id INTEGER NOT NULL,
    title TEXT,
    listed_at TEXT NOT NULL,        -- when its variant was named first
    not_found_at TEXT               -- a whole sweep found no item with its variant
);
CREATE INDEX skus_by_variant ON skus (variant_id);
"""

PUSHES = """
CREATE TABLE pushes (               -- where each `[[push]]` goes on
    name TEXT PRIMARY KEY,
    mirror TEXT NOT NULL,           -- `mirror_id` of the mirror whose feed has `seq`
    only TEXT NOT NULL,             -- 'all' or 'listings'
    listings INTEGER NOT NULL,      -- `listings_version` at the full copy
    run INTEGER NOT NULL,           -- rises with each full copy, and with `syncd push --from`
    seq INTEGER NOT NULL,           -- every change up to it is taken
    copied INTEGER,                 -- the last variant of a full copy that is taken
    pending INTEGER                 -- the end of the batch that is being sent
);
"""

READING = """
ALTER TABLE sweeps ADD COLUMN is_paced INTEGER NOT NULL DEFAULT 0; -- by background calls
CREATE TABLE list_rows (
    item_id INTEGER PRIMARY KEY,
    fingerprint INTEGER NOT NULL,           -- of its row at the last reading of the list
    changed_at TEXT,                        -- when the row changed, if the item was not read since
    is_awaited INTEGER NOT NULL DEFAULT 0   -- the item changed; the list shows whether its row did
);
CREATE INDEX list_rows_changed ON list_rows (changed_at) WHERE changed_at IS NOT NULL;
CREATE INDEX list_rows_awaited ON list_rows (item_id) WHERE is_awaited = 1;
"""

COMPARED = """
-- The last change of the item that was compared with its row.
ALTER TABLE list_rows ADD COLUMN checked_seq INTEGER NOT NULL DEFAULT 0;
"""
