/**
 * Read the database server into which syncd publishes: what may be sold? Copy this file; it needs the
 * package pg or mysql2.
 *
 *     import pg from 'pg'
 *     import { Target } from './target.mjs'
 *     const pool = new pg.Pool({ connectionString: 'postgresql://shop:secret@db.example.com/shop' })
 *     const target = new Target(async (sql, values) => (await pool.query(sql, values)).rows)
 *
 *     import mysql from 'mysql2/promise'
 *     const pool = mysql.createPool('mysql://shop:secret@db.example.com/shop')
 *     const target = new Target(async (sql, values) => (await pool.query(sql, values))[0], { isMysql: true })
 *
 *     await target.maySell(48211, 48212) // a Set of the ids of variants that may be sold now
 *     await target.maySellSkus('TEE-M', 'TEE-L') // a Set of the SKUs that may be sold now
 */

// The clock of the database decides, so that all hosts agree.
const POSTGRESQL = `AND a.sellable AND a.confirmed_at > now() - interval '1 day'
    AND f.daemon_seen_at BETWEEN now() - interval '5 minutes' AND now() + interval '1 minute'`
const MYSQL = `AND a.sellable AND a.confirmed_at > utc_timestamp() - interval 1 day
    AND f.daemon_seen_at BETWEEN utc_timestamp() - interval 5 minute
        AND utc_timestamp() + interval 1 minute`

export class Target {
  #query
  #isMysql
  #source

  constructor(query, { isMysql = false, source = 'default' } = {}) {
    this.#query = query
    this.#isMysql = isMysql
    this.#source = source
  }

  /** Which of these variants may be sold now, as a Set; after an error, none. */
  async maySell(...variantIds) {
    return new Set((await this.#sellable('availability', 'variant_id', variantIds)).map(Number))
  }

  /** Which of these SKUs may be sold now, as a Set; after an error, none. */
  async maySellSkus(...skus) {
    return new Set(await this.#sellable('listings', 'sku', skus))
  }

  async #sellable(view, key, wanted) {
    if (wanted.length === 0) return []
    const at = this.#isMysql ? 'syncd_' : 'syncd.'
    const place = (number) => (this.#isMysql ? '?' : `$${number}`)
    const places = wanted.map((_, index) => place(index + 2)).join(', ')
    const sql = `SELECT a.${key} FROM ${at}${view} a JOIN ${at}freshness f ON f.source = a.source
      WHERE a.source = ${place(1)} AND a.${key} IN (${places})
      ${this.#isMysql ? MYSQL : POSTGRESQL}`
    for (let attempt = 1; ; attempt++) {
      try {
        // A pool gives another connection after an error.
        return (await this.#query(sql, [this.#source, ...wanted])).map((row) => row[key])
      } catch (error) {
        if (attempt === 2) {
          console.error(`the target cannot be read: ${error.message}`)
          return []
        }
      }
    }
  }
}
