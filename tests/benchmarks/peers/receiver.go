// Go's net/http with mattn/go-sqlite3, one commit a request.
//
// receiver DATABASE SQL_FOLDER    prints its URL
package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	_ "github.com/mattn/go-sqlite3"
)

type delivery struct {
	Event struct {
		UUID      string `json:"uuid"`
		Action    string `json:"action"`
		Timestamp string `json:"timestamp"`
	} `json:"event"`
	Data struct {
		ID           int64  `json:"id"`
		Item         int64  `json:"item"`
		Availability string `json:"availability"`
	} `json:"data"`
}

// statement is prepared once; database/sql wants exactly the values that it names.
type statement struct {
	*sql.Stmt
	names []string
}

func (s statement) values(row map[string]any) []any {
	values := make([]any, len(s.names))
	for i, name := range s.names {
		values[i] = sql.Named(name, row[name])
	}
	return values
}

type store struct {
	mutex                                    sync.Mutex
	database                                 *sql.Conn
	find, delivery, variant, change, refresh statement
}

var (
	key       = []byte(os.Getenv("DREAMSHIP_API_KEY"))
	parameter = regexp.MustCompile(`:([a-z_]+)\b`)
)

func open(path, folder string) *store {
	ctx := context.Background()
	// Without _synchronous mattn/go-sqlite3 sets NORMAL, which does not survive a power failure.
	pool, err := sql.Open("sqlite3", "file:"+path+"?_journal_mode=WAL&_synchronous=FULL&_busy_timeout=5000")
	must(err)
	// One connection: SQLite has one writer, and Go's mutex is a better queue than its busy timeout.
	connection, err := pool.Conn(ctx)
	must(err)
	s := &store{database: connection}
	for name, to := range map[string]*statement{
		"find": &s.find, "delivery": &s.delivery, "variant": &s.variant, "change": &s.change,
		"refresh": &s.refresh,
	} {
		text, err := os.ReadFile(filepath.Join(folder, name+".sql"))
		must(err)
		to.Stmt, err = connection.PrepareContext(ctx, string(text))
		must(err)
		seen := map[string]bool{}
		for _, found := range parameter.FindAllStringSubmatch(string(text), -1) {
			if !seen[found[1]] {
				seen[found[1]] = true
				to.names = append(to.names, found[1])
			}
		}
	}
	return s
}

// keep stores one authentic body, and returns its outcome once it is on disk.
func (s *store) keep(body []byte) (outcome string, err error) {
	var d delivery
	if err := json.Unmarshal(body, &d); err != nil {
		return "", err
	}
	row := map[string]any{
		"event_id": d.Event.UUID, "event_at": d.Event.Timestamp, "action": d.Event.Action,
		"variant_id": d.Data.ID, "item_id": d.Data.Item, "availability": d.Data.Availability,
		"body": body,
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	ctx := context.Background()
	if _, err := s.database.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return "", err
	}
	defer func() {
		end := "COMMIT"
		if err != nil {
			end = "ROLLBACK"
		}
		if _, failed := s.database.ExecContext(ctx, end); failed != nil && err == nil {
			err = failed
		}
	}()
	var oldAvailability sql.NullString
	var oldSellable bool
	if err := s.find.QueryRow(s.find.values(row)...).Scan(&outcome, &oldAvailability, &oldSellable); err != nil {
		return "", err
	}
	row["outcome"], row["old_availability"], row["old_sellable"] = outcome, oldAvailability, oldSellable
	done, err := s.delivery.Exec(s.delivery.values(row)...)
	if err != nil {
		return "", err
	}
	if added, err := done.RowsAffected(); err != nil || added == 0 {
		return "duplicate", err
	}
	for _, one := range []statement{s.variant, s.change, s.refresh} {
		if _, err := one.Exec(one.values(row)...); err != nil {
			return "", err
		}
	}
	return outcome, nil
}

func isAuthentic(body []byte, header string) bool {
	mac := hmac.New(sha256.New, key)
	mac.Write(body)
	expected := mac.Sum(nil)
	for _, segment := range strings.Split(header, ",") {
		given, err := hex.DecodeString(strings.TrimSpace(segment))
		if err == nil && hmac.Equal(given, expected) {
			return true
		}
	}
	return false
}

func main() {
	s := open(os.Args[1], os.Args[2])
	http.HandleFunc("/webhooks/dreamship", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method != http.MethodPost {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if !isAuthentic(body, r.Header.Get("X-Dreamship-Signature")) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		outcome, err := s.keep(body)
		if err != nil {
			log.Print(err)
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintf(w, "{\"outcome\":%q}", outcome)
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	fmt.Printf("http://%s\n", listener.Addr())
	log.Fatal(http.Serve(listener, nil))
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
