// Package shop reads syncd's mirror: what may be sold? Copy this file into a package of your shop; it
// needs Go 1.18 and github.com/mattn/go-sqlite3 (Debian: golang-github-mattn-go-sqlite3-dev).
//
//	mirror := Mirror{Path: "/var/lib/syncd/availability.db"}
//	mirror.MaySell(48211, 48212) // the ids of variants that may be sold now
//	mirror.MaySellSKUs("TEE-M", "TEE-L") // the SKUs that may be sold now
//
// With modernc.org/sqlite, which needs no C compiler, the driver is "sqlite" and the option for the
// busy timeout is _pragma=busy_timeout(1000).
package shop

import (
	"database/sql"
	"encoding/json"
	"log"
	"net/url"

	_ "github.com/mattn/go-sqlite3"
)

const sellableNow = ` AND sellable = 1
	AND confirmed_at > strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-1 day')
	AND (SELECT daemon_seen_at FROM freshness)
		BETWEEN strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-5 minutes')
			AND strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+1 minute')`

const maySell = `SELECT variant_id FROM availability
	WHERE variant_id IN (SELECT value FROM json_each(?))` + sellableNow

const maySellSKUs = `SELECT sku FROM listings
	WHERE sku IN (SELECT value FROM json_each(?))` + sellableNow

// Mirror is the mirror at Path. Each query opens the file again, so that goroutines can share it.
type Mirror struct {
	Path string
}

// Position is your stored row of the feed; the zero value is no row.
type Position struct {
	Seq        int64
	RecordedAt string
}

// Variant is one variant of the mirror; Availability is not valid if the variant was removed.
type Variant struct {
	ID           int64
	Availability sql.NullString
	Sellable     bool
}

// Listing is one SKU of the shop; Reason is not valid while the SKU is sellable.
type Listing struct {
	SKU       string
	VariantID int64
	Sellable  bool
	Reason    sql.NullString
}

// Change is one row of the feed.
type Change struct {
	Position
	Variant
}

// MaySell returns which of these variants may be sold now; after an error, none.
func (m Mirror) MaySell(variantIDs ...int64) map[int64]bool {
	return sellable(m, maySell, variantIDs)
}

// MaySellSKUs returns which of these SKUs may be sold now; after an error, none.
func (m Mirror) MaySellSKUs(skus ...string) map[string]bool {
	return sellable(m, maySellSKUs, skus)
}

// Variant returns one variant, or nil if the mirror does not know it.
func (m Mirror) Variant(variantID int64) (variant *Variant, err error) {
	err = m.query(`SELECT variant_id, availability, sellable FROM availability WHERE variant_id = ?`,
		func() { variant = nil },
		func(rows *sql.Rows) error {
			variant = &Variant{}
			return rows.Scan(&variant.ID, &variant.Availability, &variant.Sellable)
		}, variantID)
	return variant, err
}

// Listing returns one SKU, or nil if the listings lack it.
func (m Mirror) Listing(sku string) (listing *Listing, err error) {
	err = m.query(`SELECT sku, variant_id, sellable, reason FROM listings WHERE sku = ?`,
		func() { listing = nil },
		func(rows *sql.Rows) error {
			listing = &Listing{}
			return rows.Scan(&listing.SKU, &listing.VariantID, &listing.Sellable, &listing.Reason)
		}, sku)
	return listing, err
}

// Changes returns the changes after your stored row; found is false if the feed lacks that row, and
// you have to start over.
func (m Mirror) Changes(after Position) (changes []Change, found bool, err error) {
	err = m.query(`SELECT seq, recorded_at, variant_id, availability, sellable
		FROM changes WHERE seq >= ? ORDER BY seq LIMIT 1000`,
		func() { changes = nil },
		func(rows *sql.Rows) error {
			var change Change
			err := rows.Scan(&change.Seq, &change.RecordedAt,
				&change.ID, &change.Availability, &change.Sellable)
			changes = append(changes, change)
			return err
		}, after.Seq)
	if err != nil || len(changes) == 0 || changes[0].Position != after {
		return nil, false, err
	}
	return changes[1:], true, nil
}

// StartOver returns a position in the feed, and the content of availability at that position or
// later.
func (m Mirror) StartOver() (position Position, all []Variant, err error) {
	err = m.query(`SELECT seq, recorded_at FROM changes ORDER BY seq DESC LIMIT 1`,
		func() { position = Position{} },
		func(rows *sql.Rows) error { return rows.Scan(&position.Seq, &position.RecordedAt) })
	if err != nil {
		return Position{}, nil, err
	}
	err = m.query(`SELECT variant_id, availability, sellable FROM availability`,
		func() { all = nil },
		func(rows *sql.Rows) error {
			var variant Variant
			err := rows.Scan(&variant.ID, &variant.Availability, &variant.Sellable)
			all = append(all, variant)
			return err
		})
	return position, all, err
}

func sellable[K int64 | string](m Mirror, statement string, wanted []K) map[K]bool {
	var found map[K]bool
	list, err := json.Marshal(wanted)
	if err == nil {
		err = m.query(statement,
			func() { found = map[K]bool{} },
			func(rows *sql.Rows) error {
				var key K
				err := rows.Scan(&key)
				found[key] = err == nil
				return err
			}, string(list))
	}
	if err != nil {
		log.Printf("the mirror %s cannot be read: %v", m.Path, err)
		return map[K]bool{}
	}
	return found
}

// query scans each row of the result. After an error it runs once more, on a new connection. begin
// resets the result before each attempt.
func (m Mirror) query(statement string, begin func(), scan func(*sql.Rows) error, values ...any) (err error) {
	for attempt := 1; attempt <= 2; attempt++ {
		begin()
		if err = m.queryOnce(statement, scan, values...); err == nil {
			return nil
		}
	}
	return err
}

func (m Mirror) queryOnce(statement string, scan func(*sql.Rows) error, values ...any) error {
	uri := url.URL{Scheme: "file", Opaque: (&url.URL{Path: m.Path}).EscapedPath(),
		RawQuery: "mode=ro&_busy_timeout=1000"}
	db, err := sql.Open("sqlite3", uri.String())
	if err != nil {
		return err
	}
	defer db.Close()
	rows, err := db.Query(statement, values...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}
