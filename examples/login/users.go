package main

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"os"
	"strings"
	"time"

	_ "modernc.org/sqlite" // pure Go: no cgo
)

// user is an account.
type user struct {
	id   int64
	name string
	role string
	hash string
}

// users are the accounts, in a SQLite file.
type users struct{ db *sql.DB }

func openUsers(ctx context.Context, file string) (*users, error) {
	// SQLite would make it readable for everybody.
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: file}).EscapedPath()+"?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)")
	if err != nil {
		return nil, err
	}
	_, err = db.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS users (
		id      INTEGER PRIMARY KEY,
		name    TEXT NOT NULL UNIQUE,
		role    TEXT NOT NULL,
		hash    TEXT NOT NULL,
		created TEXT NOT NULL
	) STRICT`)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &users{db}, nil
}

func (u *users) close() { _ = u.db.Close() }

// cleanName is a name as accounts have it: one spelling, so that the limit of
// logins cannot be passed by another.
func cleanName(text string) string { return strings.ToLower(strings.TrimSpace(text)) }

// validName says whether an account may have it.
func validName(name string) bool {
	if name == "" || len(name) > 64 {
		return false
	}
	return strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789._-") == "" && name == cleanName(name)
}

var errTaken = errors.New("there is an account of this name")

func (u *users) add(ctx context.Context, name, role, hash string) error {
	res, err := u.db.ExecContext(ctx, `INSERT INTO users (name, role, hash, created) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`,
		name, role, hash, time.Now().UTC().Format(time.RFC3339))
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return errors.Join(errTaken, err)
	}
	return nil
}

// byName finds an account; false where there is none.
func (u *users) byName(ctx context.Context, name string) (user, bool, error) {
	return found(u.db.QueryRowContext(ctx, `SELECT id, name, role, hash FROM users WHERE name = ?`, name))
}

// byID finds an account; false where there is none.
func (u *users) byID(ctx context.Context, id string) (user, bool, error) {
	return found(u.db.QueryRowContext(ctx, `SELECT id, name, role, hash FROM users WHERE id = ?`, id))
}

func found(row *sql.Row) (x user, ok bool, err error) {
	err = row.Scan(&x.id, &x.name, &x.role, &x.hash)
	if errors.Is(err, sql.ErrNoRows) {
		return user{}, false, nil
	}
	return x, err == nil, err
}

var errChanged = errors.New("the hash was changed meanwhile")

// setHash replaces a hash, unless it is another one by now: a password takes
// its time, and what was true of the hash before may not be true any more.
func (u *users) setHash(ctx context.Context, id int64, from, to string) error {
	res, err := u.db.ExecContext(ctx, `UPDATE users SET hash = ? WHERE id = ? AND hash = ?`, to, id, from)
	if err != nil {
		return err
	}
	n, err := res.RowsAffected()
	if err == nil && n == 0 {
		err = errChanged
	}
	return err
}
