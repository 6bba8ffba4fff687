package madcrowtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// tlsFiles are the PEM files of one server.
type tlsFiles struct {
	caFile                        string
	certFile, keyFile             string
	clientCertFile, clientKeyFile string
	own                           *tls.Config // for this package's own client
}

// OtherCA returns a PEM file with an authority that signed no server's
// certificate, for tests of what a client says when it trusts the wrong one.
func OtherCA(t testing.TB) string {
	t.Helper()
	ca := newAuthority(t)
	file := filepath.Join(t.TempDir(), "other-ca.pem")
	writePEM(t, file, "CERTIFICATE", ca.cert.Raw)
	return file
}

// newTLSFiles makes an authority, a server certificate that ends after expiry
// (in the past when negative), and a client certificate.
func newTLSFiles(t testing.TB, dir string, expiry time.Duration) *tlsFiles {
	t.Helper()
	path := func(name string) string { return filepath.Join(dir, name) }
	f := &tlsFiles{
		caFile:   path("ca.pem"),
		certFile: path("server.pem"), keyFile: path("server-key.pem"),
		clientCertFile: path("client.pem"), clientKeyFile: path("client-key.pem"),
	}
	ca := newAuthority(t)
	writePEM(t, f.caFile, "CERTIFICATE", ca.cert.Raw)
	ca.issue(t, f.certFile, f.keyFile, &x509.Certificate{
		Subject:     pkix.Name{CommonName: "localhost"},
		DNSNames:    []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		NotAfter:    time.Now().Add(expiry),
	})
	ca.issue(t, f.clientCertFile, f.clientKeyFile, &x509.Certificate{
		Subject:     pkix.Name{CommonName: "client"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		NotAfter:    time.Now().Add(24 * time.Hour),
	})
	pair, err := tls.LoadX509KeyPair(f.clientCertFile, f.clientKeyFile)
	if err != nil {
		t.Fatalf("madcrowtest: %v", err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	f.own = &tls.Config{RootCAs: pool, ServerName: "localhost", Certificates: []tls.Certificate{pair}}
	if expiry < 0 {
		// This package's own client must get through all the same.
		valid := time.Now().Add(2 * expiry)
		f.own.Time = func() time.Time { return valid }
	}
	return f
}

func (f *tlsFiles) client(conn net.Conn) net.Conn { return tls.Client(conn, f.own) }

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber:          serial(t),
		Subject:               pkix.Name{CommonName: "madcrowtest authority"},
		NotBefore:             time.Now().Add(-24 * time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatalf("madcrowtest: %v", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatalf("madcrowtest: %v", err)
	}
	return &authority{cert, key}
}

// issue signs template and writes the certificate and its key.
func (a *authority) issue(t testing.TB, certFile, keyFile string, template *x509.Certificate) {
	t.Helper()
	key := newKey(t)
	template.SerialNumber = serial(t)
	template.NotBefore = time.Now().Add(-24 * time.Hour)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatalf("madcrowtest: %v", err)
	}
	writePEM(t, certFile, "CERTIFICATE", der)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatalf("madcrowtest: %v", err)
	}
	writePEM(t, keyFile, "PRIVATE KEY", keyDER)
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("madcrowtest: %v", err)
	}
	return key
}

func serial(t testing.TB) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		t.Fatalf("madcrowtest: %v", err)
	}
	return n
}

func writePEM(t testing.TB, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatalf("madcrowtest: %v", err)
	}
}
