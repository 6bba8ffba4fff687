// Package site is what both programs have: users, a database, a list of what was
// heard, and how an answer is written.
package site

import (
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

// Reply writes an answer.
func Reply(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(v)
}

// Entry is a cached value.
type Entry struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	Exists bool   `json:"exists"`
}

// Data is a record, and where it came from: "cache" or "database".
type Data struct {
	Data   string `json:"data"`
	Source string `json:"source"`
}

// Find asks the database.
func Find(id string) (data string, found bool) {
	data, found = map[string]string{"1": "the first record"}[id]
	return data, found
}

// User is an account.
type User struct{ ID, Username, Role string }

// Authenticate says who sent the request.
func Authenticate(r *http.Request) (User, bool) {
	if r.FormValue("username") == "ada" && r.FormValue("password") == "lovelace" {
		return User{"7", "ada", "admin"}, true
	}
	return User{}, false
}

// Visit is what a session holds.
type Visit struct {
	UserID    string    `json:"user_id"`
	Username  string    `json:"username"`
	Role      string    `json:"role"`
	LoginTime time.Time `json:"login_time"`
}

// Heard are the messages that came.
type Heard struct {
	mu   sync.Mutex
	list []string
}

// Add adds one.
func (h *Heard) Add(message string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.list = append(h.list, message)
}

// List returns them.
func (h *Heard) List() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string{}, h.list...)
}
