package settings

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"os"
)

// LoadTLS reads the files and makes the TLS of new connections. Its ServerName
// is empty unless the settings have one. The error is [Problems].
func (v Values) LoadTLS() (*tls.Config, error) {
	x := validator{in: v, c: v}
	return x.loadTLS(), x.problems.orNil()
}

// loadTLS reads the files. Verification is on unless InsecureSkipVerify is set.
func (v *validator) loadTLS() *tls.Config {
	t := v.c.TLS
	if t.Config != nil {
		return t.Config.Clone()
	}
	c := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         t.ServerName,
		InsecureSkipVerify: t.InsecureSkipVerify,
	}
	if t.CAFile != "" {
		c.RootCAs = x509.NewCertPool()
		if pem := v.readPEM("TLS.CAFile", t.CAFile); pem != nil && !c.RootCAs.AppendCertsFromPEM(pem) {
			v.add("TLS.CAFile", "the file holds no certificate", "name a PEM file with BEGIN CERTIFICATE")
		}
	}
	if t.CertFile != "" && t.KeyFile != "" {
		cert, key := v.readPEM("TLS.CertFile", t.CertFile), v.readPEM("TLS.KeyFile", t.KeyFile)
		if cert != nil && key != nil {
			pair, err := tls.X509KeyPair(cert, key)
			if err != nil {
				v.addCause("TLS.CertFile", "certificate and key do not go together: "+err.Error(), "name a certificate and its own key, both PEM", err)
			}
			c.Certificates = []tls.Certificate{pair}
		}
	}
	return c
}

// readPEM reads one file; nil after a problem.
func (v *validator) readPEM(field, file string) []byte {
	pem, err := os.ReadFile(file)
	if err != nil {
		err = cause(err)
		v.addCause(field, "the file cannot be read: "+err.Error(), "name a PEM file that this process may read", err)
		return nil
	}
	return pem
}

// cause is err without the name of the file, which could be a secret that was
// given in the place of a name.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// NamedTLS is base for a connection to addr, unless base has a name to verify.
func NamedTLS(base *tls.Config, addr string) *tls.Config {
	if base.ServerName != "" {
		return base
	}
	c := base.Clone()
	c.ServerName = addr
	if host, _, err := net.SplitHostPort(addr); err == nil {
		c.ServerName = host
	}
	return c
}
