/**
 * Read syncd's mirror: what may be sold? Copy this file; it needs Node 22.13 or newer.
 *
 *     import { Mirror } from './mirror.mjs'
 *     const mirror = new Mirror()
 *     mirror.maySell(48211, 48212) // a Set of the ids of variants that may be sold now
 *     mirror.maySellSkus('TEE-M', 'TEE-L') // a Set of the SKUs that may be sold now
 *
 * For Node 20, run `npm install @photostructure/sqlite` and import from that name instead.
 */
import { DatabaseSync } from 'node:sqlite'

const SELLABLE_NOW = `AND sellable = 1
    AND confirmed_at > strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-1 day')
    AND (SELECT daemon_seen_at FROM freshness)
        BETWEEN strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-5 minutes')
            AND strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+1 minute')`
const MAY_SELL = `SELECT variant_id FROM availability
    WHERE variant_id IN (SELECT value FROM json_each(?)) ${SELLABLE_NOW}`
const MAY_SELL_SKUS = `SELECT sku FROM listings
    WHERE sku IN (SELECT value FROM json_each(?)) ${SELLABLE_NOW}`

export class Mirror {
  #path
  #db = null

  constructor(path = '/var/lib/syncd/availability.db') {
    this.#path = path
  }

  /** Which of these variants may be sold now, as a Set; after an error, none. */
  maySell(...variantIds) {
    return this.#sellable(MAY_SELL, variantIds)
  }

  /** Which of these SKUs may be sold now, as a Set; after an error, none. */
  maySellSkus(...skus) {
    return this.#sellable(MAY_SELL_SKUS, skus)
  }

  /** The row of one variant, or undefined. */
  variant(variantId) {
    return this.#query('SELECT * FROM availability WHERE variant_id = ?', variantId)[0]
  }

  /** The row of one SKU, or undefined. */
  listing(sku) {
    return this.#query('SELECT * FROM listings WHERE sku = ?', sku)[0]
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

  #sellable(sql, wanted) {
    try {
      const rows = this.#query(sql, JSON.stringify(wanted))
      return new Set(rows.map((row) => Object.values(row)[0]))
    } catch (error) {
      console.error(`the mirror ${this.#path} cannot be read: ${error.message}`)
      return new Set()
    }
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
