package session

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
)

// seal encrypts at rest: the first key encrypts, all decrypt. What is sealed is
// bound to its user, so that it cannot be put in the place of another's.
type seal struct{ keys []cipher.AEAD }

func newSeal(keys [][]byte) (seal, error) {
	var s seal
	for _, k := range keys {
		block, err := aes.NewCipher(k)
		if err != nil {
			return s, fmt.Errorf("session: %w", err)
		}
		gcm, err := cipher.NewGCM(block)
		if err != nil {
			return s, fmt.Errorf("session: %w", err)
		}
		s.keys = append(s.keys, gcm)
	}
	return s, nil
}

// The first byte of what is stored.
const (
	plainData  = '0'
	sealedData = '1'
)

func (s seal) close(plain []byte, bound string) []byte {
	if len(s.keys) == 0 {
		return append([]byte{plainData}, plain...)
	}
	gcm := s.keys[0]
	out := make([]byte, 1+gcm.NonceSize(), 1+gcm.NonceSize()+len(plain)+gcm.Overhead())
	out[0] = sealedData
	nonce := out[1:]
	_, _ = rand.Read(nonce) // never fails: crypto/rand ends the program instead
	return gcm.Seal(out, nonce, plain, []byte(bound))
}

var errSealed = errors.New("the data cannot be decrypted with any of the keys")

func (s seal) open(stored, bound string) ([]byte, error) {
	switch {
	case stored == "":
		return nil, errSealed
	case stored[0] == plainData && len(s.keys) == 0:
		return []byte(stored[1:]), nil
	case stored[0] != sealedData:
		return nil, errSealed
	}
	for _, gcm := range s.keys {
		if n := 1 + gcm.NonceSize(); len(stored) > n {
			if plain, err := gcm.Open(nil, []byte(stored[1:n]), []byte(stored[n:]), []byte(bound)); err == nil {
				return plain, nil
			}
		}
	}
	return nil, errSealed
}
