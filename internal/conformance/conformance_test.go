package conformance

import (
	"net/http"
	"testing"
)

func TestConformance_NetHTTP(t *testing.T) {
	Run(t, func(_ *testing.T, k *Kit) Serve {
		mux := http.NewServeMux()
		NetHTTP(k, mux.Handle)
		return HTTP(k.Recover(mux))
	})
}

func TestLeaks_AreFound(t *testing.T) {
	leak := leaks(40123)
	for _, text := range []string{
		"WRONGTYPE Operation against a key", "ERR invalid expire time", "dial tcp", "127.0.0.1", "at :40123", prefix + "a",
		"m1:session:web", "user:alice:token", "madcrow: GET: timeout", "goroutine 7", "main.go:12", ErrForeign.Error(), Secret,
	} {
		if leak.FindString(text) == "" {
			t.Errorf("%q is not found", text)
		}
	}
	for _, text := range []string{
		`{"error":true,"code":"INTERNAL_ERROR","instance":"urn:uuid:6c1","type":"https://iana.org/assignments/http-problem-types#quota-exceeded"}`,
		"Date:[Tue, 24 Nov 2026 17:40:12 GMT]", `{"redis":{"state":"up","mode":"standalone"}}`,
	} {
		if found := leak.FindString(text); found != "" {
			t.Errorf("%q is found in %q", found, text)
		}
	}
}
