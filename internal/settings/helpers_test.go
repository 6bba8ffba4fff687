package settings

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// secretMark is part of every secret in these tests; it must be seen nowhere.
const secretMark = "hUsH-7pq"

// fakeEnv is an environment of variables and files.
func fakeEnv(vars, files map[string]string) Env {
	return Env{
		Lookup: func(name string) (string, bool) { v, ok := vars[name]; return v, ok },
		ReadFile: func(name string) ([]byte, error) {
			if text, ok := files[name]; ok {
				return []byte(text), nil
			}
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		},
	}
}

func fromEnv(t *testing.T, vars map[string]string) Values {
	t.Helper()
	c, err := fakeEnv(vars, nil).Values()
	if err != nil {
		t.Fatalf("%v: %v", vars, err)
	}
	return c
}

// wantProblem fails unless err is a list of problems in every promised way and
// has a problem of that setting whose text holds want.
func wantProblem(t *testing.T, err error, setting, want string) Problem {
	t.Helper()
	var problems Problems
	switch {
	case err == nil:
		t.Fatalf("no error; want %s: …%s…", setting, want)
	case !errors.As(err, &problems):
		t.Fatalf("no list of problems: %#v", err)
	case strings.Contains(err.Error(), secretMark):
		t.Fatalf("the error shows a secret: %v", err)
	case strings.Contains(err.Error(), "\n"):
		t.Fatalf("the error is more than one line: %v", err)
	}
	for _, p := range problems {
		if p.Fix == "" || p.Reason == "" {
			t.Errorf("%s: reason %q, fix %q; both are promised", p.Setting, p.Reason, p.Fix)
		}
		if !strings.Contains(err.Error(), p.Reason) || !strings.Contains(err.Error(), p.Fix) {
			t.Errorf("the error does not show %+v", p)
		}
	}
	for _, p := range problems {
		if p.Setting == setting && strings.Contains(p.Error(), want) {
			return p
		}
	}
	t.Fatalf("no problem of %s with %q in: %v", setting, want, err)
	return Problem{}
}

func wantWarning(t *testing.T, c Values, parts ...string) {
	t.Helper()
	for _, w := range c.Warnings {
		found := true
		for _, part := range parts {
			found = found && strings.Contains(w, part)
		}
		if found {
			return
		}
	}
	t.Errorf("no warning with %q in %q", parts, c.Warnings)
}

// certificate writes a self-signed certificate and its key.
func certificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: []string{"redis.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "EC PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// problemsOf returns the problems inside err.
func problemsOf(err error) Problems {
	var problems Problems
	_ = errors.As(err, &problems)
	return problems
}
