/**
 * Read syncd's mirror: which variants may be sold? Copy this file; it needs Node 22.13 or newer.
 *
 *     import { Mirror } from './mirror.mjs'
 *     const mirror = new Mirror()
 *     mirror.maySell(48211, 48212) // a Set of the ids that may be sold now
 *
 * For Node 20, run `npm install @photostructure/sqlite` and import from that name instead.
 */
import { DatabaseSync } from 'node:sqlite'

const MAY_SELL = `SELECT variant_id FROM availability
    WHERE variant_id IN (SELECT value FROM json_each(?)) AND sellable = 1
    AND confirmed_at > strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-1 day')
    AND (SELECT daemon_seen_at FROM freshness)
        BETWEEN strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-5 minutes')
            AND strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+1 minute')`

export class Mirror {
  #path
  #db = null

  constructor(path = '/var/lib/syncd/availability.db') {
    this.#path = path
  }

  /** Which of these variants may be sold now, as a Set; after an error, none. */
  maySell(...variantIds) {
    try {
      const rows = this.#query(MAY_SELL, JSON.stringify(variantIds))
      return new Set(rows.map((row) => row.variant_id))
    } catch (error) {
      console.error('the mirror cannot be read:', error.message)
      return new Set()
    }
  }

  /** The row of one variant, or undefined. */
  variant(variantId) {
    return this.#query('SELECT * FROM availability WHERE variant_id = ?', variantId)[0]
  }

  /** The changes after your stored row. If the feed lacks that row, null: start over. */
  changes(seq, recordedAt) {
    const [first, ...rows] = this.#query(
      `SELECT seq, recorded_at, variant_id, availability, sellable
       FROM changes WHERE seq >= ? ORDER BY seq LIMIT 1000`, seq)
    return first?.seq === seq && first.recorded_at === recordedAt ? rows : null
  }

  /** A position in the feed, and the content of `availability` at that position or later. */
  startOver() {
    const [last] = this.#query('SELECT seq, recorded_at FROM changes ORDER BY seq DESC LIMIT 1')
    const all = this.#query('SELECT variant_id, availability, sellable FROM availability')
    return [last ?? { seq: 0, recorded_at: '' }, all]
  }

  #query(sql, ...values) {
    for (let attempt = 1; ; attempt++) {
      try {
        if (this.#db === null) {
          this.#db = new DatabaseSync(this.#path, { readOnly: true })
          this.#db.exec('PRAGMA busy_timeout = 1000')
        }
        return this.#db.prepare(sql).all(...values)
      } catch (error) {
        this.#db = null
        if (attempt === 2) throw error
      }
    }
  }
}
