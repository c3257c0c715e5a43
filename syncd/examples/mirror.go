// Package shop asks syncd's mirror which variants may be sold. Copy this file into a package of
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

// Mirror is the mirror at Path. Each question opens it anew, so that goroutines can share it.
type Mirror struct {
	Path string
}

// Position is a row of the feed that you remember; the zero value is no row.
type Position struct {
	Seq        int64
	RecordedAt string
}

// Variant is what the mirror has of one variant; Availability is not valid if it was removed.
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

// MaySell returns which of these variants may be sold now. In doubt: none.
func (m Mirror) MaySell(variantIDs ...int64) map[int64]bool {
	var sellable map[int64]bool
	ids, err := json.Marshal(variantIDs)
	if err == nil {
		err = m.ask(maySell,
			func() { sellable = map[int64]bool{} },
			func(rows *sql.Rows) error {
				var id int64
				err := rows.Scan(&id)
				sellable[id] = err == nil
				return err
			}, string(ids))
	}
	if err != nil {
		log.Printf("the mirror does not answer: %v", err)
		return map[int64]bool{}
	}
	return sellable
}

// Variant returns one variant, or nil if the mirror does not know it.
func (m Mirror) Variant(variantID int64) (variant *Variant, err error) {
	err = m.ask(`SELECT variant_id, availability, sellable FROM availability WHERE variant_id = ?`,
		func() { variant = nil },
		func(rows *sql.Rows) error {
			variant = &Variant{}
			return rows.Scan(&variant.ID, &variant.Availability, &variant.Sellable)
		}, variantID)
	return variant, err
}

// Changes returns the changes after the row you remember; kept is false when the feed lacks that row
// and you have to start over.
func (m Mirror) Changes(after Position) (changes []Change, kept bool, err error) {
	err = m.ask(`SELECT seq, recorded_at, variant_id, availability, sellable
		FROM changes WHERE seq >= ? ORDER BY seq LIMIT 1000`,
		func() { changes = nil },
		func(rows *sql.Rows) error {
			var c Change
			err := rows.Scan(&c.Seq, &c.RecordedAt, &c.ID, &c.Availability, &c.Sellable)
			changes = append(changes, c)
			return err
		}, after.Seq)
	if err != nil || len(changes) == 0 || changes[0].Position != after {
		return nil, false, err
	}
	return changes[1:], true, nil
}

// StartOver returns a position in the feed, and the content of availability at that position or
// later.
func (m Mirror) StartOver() (at Position, all []Variant, err error) {
	err = m.ask(`SELECT seq, recorded_at FROM changes ORDER BY seq DESC LIMIT 1`,
		func() { at = Position{} },
		func(rows *sql.Rows) error { return rows.Scan(&at.Seq, &at.RecordedAt) })
	if err != nil {
		return Position{}, nil, err
	}
	err = m.ask(`SELECT variant_id, availability, sellable FROM availability`,
		func() { all = nil },
		func(rows *sql.Rows) error {
			var v Variant
			err := rows.Scan(&v.ID, &v.Availability, &v.Sellable)
			all = append(all, v)
			return err
		})
	return at, all, err
}

// ask scans each row of an answer; after an error once more, on a new connection. begin resets the
// result before each attempt.
func (m Mirror) ask(query string, begin func(), scan func(*sql.Rows) error, values ...any) (err error) {
	for attempt := 1; attempt <= 2; attempt++ {
		begin()
		if err = m.askOnce(query, scan, values...); err == nil {
			return nil
		}
	}
	return err
}

func (m Mirror) askOnce(query string, scan func(*sql.Rows) error, values ...any) error {
	uri := url.URL{Scheme: "file", Opaque: (&url.URL{Path: m.Path}).EscapedPath(),
		RawQuery: "mode=ro&_busy_timeout=1000"}
	db, err := sql.Open("sqlite3", uri.String())
	if err != nil {
		return err
	}
	defer db.Close()
	rows, err := db.Query(query, values...)
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
