package main

import (
	"context"
	"database/sql"
	"errors"
	"net/url"

	"golang.org/x/crypto/bcrypt"
	_ "modernc.org/sqlite" // pure Go: no cgo

	"github.com/madcrow-go/madcrow/cache"
)

// product is an article of the shop.
type product struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Kind  string `json:"kind"`
	Price int    `json:"price"` // cents
}

// store is the database.
type store struct{ *sql.DB }

const schema = `
CREATE TABLE IF NOT EXISTS products (id TEXT PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL, price INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS users (name TEXT PRIMARY KEY, hash BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, user TEXT NOT NULL, product TEXT NOT NULL, amount INTEGER NOT NULL,
	state TEXT NOT NULL DEFAULT 'placed', queued INTEGER NOT NULL DEFAULT 0) STRICT;
INSERT OR IGNORE INTO products VALUES ('lamp', 'Lamp', 'light', 4900), ('candle', 'Candle', 'light', 300), ('table', 'Table', 'furniture', 19900);`

// openStore opens a file, or memory where none is named, with some products and the
// user ada, whose password is "lovelace".
func openStore(ctx context.Context, file string) (*store, error) {
	name := ":memory:"
	if file != "" {
		name = "file:" + (&url.URL{Path: file}).EscapedPath() + "?_txlock=immediate&_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)"
	}
	pool, err := sql.Open("sqlite", name)
	if err != nil {
		return nil, err
	}
	if file == "" {
		pool.SetMaxOpenConns(1) // each connection would have a memory of its own
	}
	db := &store{pool}
	if _, err = db.ExecContext(ctx, schema); err == nil {
		err = db.setPassword(ctx, "ada", "lovelace")
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// product returns cache.ErrNotFound where there is no such product.
func (db *store) product(ctx context.Context, id string) (p product, err error) {
	row := db.QueryRowContext(ctx, `SELECT id, name, kind, price FROM products WHERE id = ?`, id)
	err = row.Scan(&p.ID, &p.Name, &p.Kind, &p.Price)
	if errors.Is(err, sql.ErrNoRows) {
		err = cache.ErrNotFound
	}
	return p, err
}

// products are those of a kind; of all with "".
func (db *store) products(ctx context.Context, kind string) ([]product, error) {
	rows, err := db.QueryContext(ctx, `SELECT id, name, kind, price FROM products WHERE ?1 IN ('', kind) ORDER BY id`, kind)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	list := []product{}
	for rows.Next() {
		var p product
		if err := rows.Scan(&p.ID, &p.Name, &p.Kind, &p.Price); err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, rows.Err()
}

// putProduct returns the product as it was before.
func (db *store) putProduct(ctx context.Context, p product) (before product, err error) {
	before, err = db.product(ctx, p.ID)
	if err != nil && !errors.Is(err, cache.ErrNotFound) {
		return before, err
	}
	_, err = db.ExecContext(ctx, `INSERT OR REPLACE INTO products VALUES (?, ?, ?, ?)`, p.ID, p.Name, p.Kind, p.Price)
	return before, err
}

func (db *store) setPassword(ctx context.Context, user, password string) error {
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.DefaultCost)
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, `INSERT OR REPLACE INTO users VALUES (?, ?)`, user, hash)
	return err
}

// noUser takes as long to compare as a hash of a user.
var noUser, _ = bcrypt.GenerateFromPassword([]byte("no one"), bcrypt.DefaultCost)

func (db *store) passwordIs(ctx context.Context, user, password string) (bool, error) {
	hash := noUser
	err := db.QueryRowContext(ctx, `SELECT hash FROM users WHERE name = ?`, user).Scan(&hash)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return false, err
	}
	same := bcrypt.CompareHashAndPassword(hash, []byte(password)) == nil
	return same && err == nil, nil
}

// placeOrders writes an order for each product of a basket, or none.
func (db *store) placeOrders(ctx context.Context, user string, what basket) (ids []int64, err error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer tx.Rollback()
	for product, amount := range what {
		var id int64
		err := tx.QueryRowContext(ctx, `INSERT INTO orders (user, product, amount) SELECT ?, id, ? FROM products WHERE id = ? RETURNING id`,
			user, amount, product).Scan(&id)
		if errors.Is(err, sql.ErrNoRows) {
			return nil, errNotFound
		} else if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, tx.Commit()
}

func (db *store) markQueued(ctx context.Context, id int64) error {
	_, err := db.ExecContext(ctx, `UPDATE orders SET queued = 1 WHERE id = ?`, id)
	return err
}

// waitingOrders are those that did not reach the stream.
func (db *store) waitingOrders(ctx context.Context) (ids []int64, err error) {
	rows, err := db.QueryContext(ctx, `SELECT id FROM orders WHERE state = 'placed' AND NOT queued ORDER BY id LIMIT 100`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

// orderOf is the owner of an order, and what became of it.
func (db *store) orderOf(ctx context.Context, id int64) (user, state string, err error) {
	err = db.QueryRowContext(ctx, `SELECT user, state FROM orders WHERE id = ?`, id).Scan(&user, &state)
	if errors.Is(err, sql.ErrNoRows) {
		err = errNotFound
	}
	return user, state, err
}

// endOrder says what became of an order that is still placed.
func (db *store) endOrder(ctx context.Context, id int64, state string) error {
	_, err := db.ExecContext(ctx, `UPDATE orders SET state = ? WHERE id = ? AND state = 'placed'`, state, id)
	return err
}

func (db *store) countOrders(ctx context.Context) (map[string]int, error) {
	rows, err := db.QueryContext(ctx, `SELECT state, count(*) FROM orders GROUP BY state`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	counts := map[string]int{}
	for rows.Next() {
		var state string
		var n int
		if err := rows.Scan(&state, &n); err != nil {
			return nil, err
		}
		counts[state] = n
	}
	return counts, rows.Err()
}
