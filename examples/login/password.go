package main

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"github.com/madcrow-go/madcrow/problem"
)

// The least that the OWASP Password Storage Cheat Sheet asks of argon2id: 19
// MiB of memory, two passes, one lane. Hashes hold their own, so these can grow.
const (
	hashMemory = 19 * 1024 // KiB
	hashTime   = 2
	hashLanes  = 1
	hashSize   = 32
	saltSize   = 16
)

// hashParams begins every hash of today.
var hashParams = fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$", argon2.Version, hashMemory, hashTime, hashLanes)

// hasher hashes passwords, no more at a time than there are processors:
// whoever sends many logins takes neither the memory nor the time of the rest.
type hasher struct {
	slots  chan struct{}
	absent string // the hash for names without an account
}

func newHasher() *hasher {
	return &hasher{
		slots:  make(chan struct{}, runtime.GOMAXPROCS(0)),
		absent: encodeHash(rand.Text()),
	}
}

// patience is how long a password waits for its turn.
const patience = 5 * time.Second

func (h *hasher) enter(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return problem.With(problem.Problem{Status: http.StatusServiceUnavailable, Code: "BUSY", Message: "There is too much to do at the moment", RetryAfter: patience})
	}
}

func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	if err := h.enter(ctx); err != nil {
		return "", err
	}
	defer func() { <-h.slots }()
	return encodeHash(password), nil
}

// matches says whether hash is of password. With "" it does the same work and
// is false.
func (h *hasher) matches(ctx context.Context, hash, password string) (bool, error) {
	if err := h.enter(ctx); err != nil {
		return false, err
	}
	defer func() { <-h.slots }()
	if hash == "" {
		_, err := sameHash(h.absent, password)
		return false, err
	}
	return sameHash(hash, password)
}

// outdated says whether a hash has parameters of another day.
func outdated(hash string) bool { return !strings.HasPrefix(hash, hashParams) }

// encodeHash writes the form that all implementations of argon2 read.
func encodeHash(password string) string {
	salt := make([]byte, saltSize)
	_, _ = rand.Read(salt) // never fails: crypto/rand ends the program instead
	sum := argon2.IDKey([]byte(password), salt, hashTime, hashMemory, hashLanes, hashSize)
	return hashParams + base64.RawStdEncoding.EncodeToString(salt) + "$" + base64.RawStdEncoding.EncodeToString(sum)
}

var errHash = errors.New("the account's hash cannot be read")

func sameHash(hash, password string) (bool, error) {
	var version int
	var memory, passes uint32
	var lanes uint8
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return false, errHash
	}
	_, err1 := fmt.Sscanf(parts[2], "v=%d", &version)
	_, err2 := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &memory, &passes, &lanes)
	salt, err3 := base64.RawStdEncoding.DecodeString(parts[4])
	sum, err4 := base64.RawStdEncoding.DecodeString(parts[5])
	if errors.Join(err1, err2, err3, err4) != nil || version != argon2.Version || passes == 0 || lanes == 0 || len(sum) < 16 {
		return false, errHash
	}
	again := argon2.IDKey([]byte(password), salt, passes, memory, lanes, uint32(len(sum)))
	return subtle.ConstantTimeCompare(sum, again) == 1, nil
}

const (
	leastPassword = 15 // NIST SP 800-63B, where there is no second factor
	mostPassword  = 256
)

// weakness says what is wrong with a new password, "" for nothing. There are no
// rules of digits and signs: they make passwords worse.
func weakness(password, name string) string {
	n := utf8.RuneCountInString(password)
	_, size := utf8.DecodeRuneInString(password)
	first := password[:size]
	switch {
	case n < leastPassword:
		return fmt.Sprintf("The new password needs %d characters or more: a few words do.", leastPassword)
	case n > mostPassword:
		return fmt.Sprintf("The new password can have %d characters at most.", mostPassword)
	case strings.Contains(strings.ToLower(password), name) && n-utf8.RuneCountInString(name) < leastPassword/2:
		return "The new password is too close to your name."
	case strings.Trim(password, first) == "":
		return "The new password is one character, repeated."
	}
	return ""
}
