-- The tables that every peer keeps. The benchmark creates them; the peers only write.
-- No index but the primary keys and the one that recognizes a repeated delivery.

CREATE TABLE variants (
    variant_id INTEGER PRIMARY KEY,
    item_id INTEGER,
    name TEXT,
    color TEXT,
    size TEXT,
    availability TEXT NOT NULL,
    sellable INTEGER NOT NULL,
    event_at TEXT,
    delivered_at TEXT,
    changed_at TEXT NOT NULL
);
CREATE TABLE deliveries (
    delivery_id INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL UNIQUE,
    received_at TEXT NOT NULL,
    event_at TEXT NOT NULL,
    action TEXT NOT NULL,
    variant_id INTEGER NOT NULL,
    item_id INTEGER,
    outcome TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE changes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    variant_id INTEGER NOT NULL,
    item_id INTEGER,
    old_availability TEXT,
    availability TEXT NOT NULL,
    old_sellable INTEGER NOT NULL,
    sellable INTEGER NOT NULL,
    occurred_at TEXT NOT NULL,
    recorded_at TEXT NOT NULL
);
CREATE TABLE refresh_requests (
    item_id INTEGER PRIMARY KEY,
    settle_at TEXT NOT NULL,
    requested_at TEXT NOT NULL
);
