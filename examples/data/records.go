package main

import (
	"context"
	"database/sql"
	"errors"
	"net/url"

	_ "modernc.org/sqlite" // pure Go: no cgo

	"github.com/madcrow-go/madcrow/cache"
)

// records is the database.
type records struct{ *sql.DB }

// openRecords opens a file, or memory where there is none named, and makes sure
// of a first record.
func openRecords(ctx context.Context, file string) (*records, error) {
	name := ":memory:"
	if file != "" {
		name = "file:" + (&url.URL{Path: file}).EscapedPath() + "?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)"
	}
	db, err := sql.Open("sqlite", name)
	if err != nil {
		return nil, err
	}
	if file == "" {
		db.SetMaxOpenConns(1) // each connection would have a memory of its own
	}
	_, err = db.ExecContext(ctx, `
		CREATE TABLE IF NOT EXISTS records (id TEXT PRIMARY KEY, data TEXT NOT NULL) STRICT;
		INSERT OR IGNORE INTO records VALUES ('1', 'the first record')`)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &records{db}, nil
}

// find returns cache.ErrNotFound where there is no such record.
func (db *records) find(ctx context.Context, id string) (data string, err error) {
	err = db.QueryRowContext(ctx, `SELECT data FROM records WHERE id = ?`, id).Scan(&data)
	if errors.Is(err, sql.ErrNoRows) {
		err = cache.ErrNotFound
	}
	return data, err
}

func (db *records) store(ctx context.Context, id, data string) error {
	_, err := db.ExecContext(ctx, `INSERT INTO records VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET data = excluded.data`, id, data)
	return err
}
