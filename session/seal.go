package session

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
)

// seal encrypts data at rest: the first key encrypts, all decrypt. Sealed data is
// bound to its session and user, so that it is unreadable in any other place.
type seal struct{ keys []cipher.AEAD }

func newSeal(keys [][]byte) (seal, error) {
	var s seal
	for _, k := range keys {
		block, err := aes.NewCipher(k)
		if err != nil {
			return s, fmt.Errorf("must be AES-256 keys: %w", err)
		}
		// Each value has a random nonce, stored in front of it.
		gcm, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return s, fmt.Errorf("must be AES-256 keys: %w", err)
		}
		s.keys = append(s.keys, gcm)
	}
	return s, nil
}

// binding identifies the session and the user of sealed data. All members have the
// same length.
type binding struct{ member, user string }

func (b binding) bytes() []byte { return []byte(b.member + b.user) }

// The first byte of stored data.
const (
	plainData  = '0'
	sealedData = '1'
)

func (s seal) close(plain []byte, to binding) []byte {
	if len(s.keys) == 0 {
		return append([]byte{plainData}, plain...)
	}
	gcm := s.keys[0]
	out := make([]byte, 1, 1+len(plain)+gcm.Overhead())
	out[0] = sealedData
	return gcm.Seal(out, nil, plain, to.bytes())
}

var errSealed = errors.New("the data cannot be decrypted with any of the keys")

func (s seal) open(stored string, to binding) ([]byte, error) {
	switch {
	case stored == "":
		return nil, errSealed
	case stored[0] == plainData && len(s.keys) == 0:
		return []byte(stored[1:]), nil
	case stored[0] != sealedData:
		return nil, errSealed
	}
	bound := to.bytes()
	for _, gcm := range s.keys {
		if plain, err := gcm.Open(nil, nil, []byte(stored[1:]), bound); err == nil {
			return plain, nil
		}
	}
	return nil, errSealed
}
