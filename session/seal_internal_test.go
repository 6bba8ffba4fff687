package session

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
)

// What was sealed with a nonce from elsewhere is read, and the other way round:
// both write nonce, text and tag.
func TestSeal_ReadsDataWithAnExplicitNonce(t *testing.T) {
	key := []byte("0123456789abcdef0123456789abcdef")
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newSeal([][]byte{key})
	if err != nil {
		t.Fatal(err)
	}
	to := binding{"member", "user"}
	nonce := make([]byte, gcm.NonceSize())
	_, _ = rand.Read(nonce)
	old := append([]byte{sealedData}, gcm.Seal(nonce, nonce, []byte("old"), to.bytes())...)
	if got, err := s.open(string(old), to); err != nil || string(got) != "old" {
		t.Errorf("old: %q %v", got, err)
	}
	fresh := s.close([]byte("new"), to)
	n := 1 + gcm.NonceSize()
	if got, err := gcm.Open(nil, fresh[1:n], fresh[n:], to.bytes()); err != nil || string(got) != "new" {
		t.Errorf("new: %q %v", got, err)
	}
	if len(fresh) != 1+12+3+16 || string(s.close([]byte("new"), to)) == string(fresh) {
		t.Errorf("%d bytes, or a repeated nonce", len(fresh))
	}
	if _, err := s.open(string(fresh[:12]), to); err == nil {
		t.Error("a part was opened")
	}
}

// A secret of one byte was accepted, and ended the program under fips140=only
// when it was first used.
func TestNew_RefusesAShortSecret(t *testing.T) {
	for size, ok := range map[int]bool{0: false, 1: false, 15: false, 16: true} {
		_, err := Options[int]{Secret: make([]byte, size)}.filled("web", madcrow.Config{CommandTimeout: time.Second})
		if (err == nil) != ok {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}
