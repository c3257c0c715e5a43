// Package shop reads syncd's mirror: which variants may be sold? Copy this file into a package of
// your shop; it needs github.com/mattn/go-sqlite3 (Debian: golang-github-mattn-go-sqlite3-dev).
//
//	mirror := Mirror{Path: "/var/lib/syncd/availability.db"}
//	mirror.MaySell(48211, 48212) // the ids that may be sold now
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

const maySell = `SELECT variant_id FROM availability
	WHERE variant_id IN (SELECT value FROM json_each(?)) AND sellable = 1
	AND confirmed_at > strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-1 day')
	AND (SELECT daemon_seen_at FROM freshness)
		BETWEEN strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-5 minutes')
			AND strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+1 minute')`

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

// Change is one row of the feed.
type Change struct {
	Position
	Variant
}

// MaySell returns which of these variants may be sold now; after an error, none.
func (m Mirror) MaySell(variantIDs ...int64) map[int64]bool {
	var sellable map[int64]bool
	ids, err := json.Marshal(variantIDs)
	if err == nil {
		err = m.query(maySell,
			func() { sellable = map[int64]bool{} },
			func(rows *sql.Rows) error {
				var id int64
				err := rows.Scan(&id)
				sellable[id] = err == nil
				return err
			}, string(ids))
	}
	if err != nil {
		log.Printf("the mirror cannot be read: %v", err)
		return map[int64]bool{}
	}
	return sellable
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
