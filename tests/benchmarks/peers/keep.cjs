// The part that both Node peers share: the signature check, and one commit a delivery.
'use strict';

const crypto = require('node:crypto');
const fs = require('node:fs');
const path = require('node:path');

const Database = require('better-sqlite3');

const KEY = process.env.DREAMSHIP_API_KEY;

function isAuthentic(body, header) {
  const expected = crypto.createHmac('sha256', KEY).update(body).digest();
  return String(header ?? '').split(',').some((segment) => {
    const given = Buffer.from(segment.trim(), 'hex');
    return given.length === expected.length && crypto.timingSafeEqual(given, expected);
  });
}

// Returns a function that stores one authentic body and returns its outcome once it is on disk.
function open(file) {
  const database = new Database(file, { timeout: 5000 });
  database.pragma('journal_mode = WAL');
  // better-sqlite3 compiles SQLite with NORMAL as the default in WAL mode.
  database.pragma('synchronous = FULL');
  const [find, delivery, variant, change, refresh] = [
    'find', 'delivery', 'variant', 'change', 'refresh',
  ].map((name) => database.prepare(fs.readFileSync(path.join(__dirname, 'sql', `${name}.sql`), 'utf8')));
  const keep = database.transaction((body, { event, data }) => {
    const row = {
      event_id: event.uuid,
      event_at: event.timestamp,
      action: event.action,
      variant_id: data.id,
      item_id: data.item,
      availability: data.availability,
      body,
    };
    Object.assign(row, find.get(row));
    if (delivery.run(row).changes === 0) return 'duplicate';
    variant.run(row);
    change.run(row);
    refresh.run(row);
    return row.outcome;
  });
  return (body) => keep.immediate(body, JSON.parse(body));
}

module.exports = { isAuthentic, open };
