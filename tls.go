package madcrow

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"os"
)

// sentinelTLS says whether connections to Sentinels are encrypted.
func (c Config) sentinelTLS() bool {
	if c.Sentinel.UseTLS != nil {
		return *c.Sentinel.UseTLS
	}
	return c.TLS.Enabled
}

func (c Config) loadTLS(serverName string) (*tls.Config, error) {
	v := validator{in: c, c: c}
	t, problems := c.TLS.load(serverName)
	for _, p := range problems {
		v.addCause(p.field, p.reason, p.fix, p.err)
	}
	return t, configError(v.problems)
}

// named is base for a connection to addr, unless base has a name to verify.
func named(base *tls.Config, addr string) *tls.Config {
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

// tlsProblem is what is wrong with one field of TLS.
type tlsProblem struct {
	field, reason, fix string
	err                error
}

// load reads the files. Verification is on unless InsecureSkipVerify is set.
func (t TLS) load(serverName string) (*tls.Config, []tlsProblem) {
	if t.Config != nil {
		c := t.Config.Clone()
		if c.ServerName == "" {
			c.ServerName = serverName
		}
		return c, nil
	}
	if t.ServerName != "" {
		serverName = t.ServerName
	}
	c := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         serverName,
		InsecureSkipVerify: t.InsecureSkipVerify,
	}
	var problems []tlsProblem
	read := func(field, file string) []byte {
		pem, err := os.ReadFile(file)
		if err != nil {
			problems = append(problems, tlsProblem{
				"TLS." + field, "the file cannot be read: " + cause(err).Error(),
				"name a PEM file that this process may read", cause(err),
			})
			return nil
		}
		return pem
	}
	if t.CAFile != "" {
		c.RootCAs = x509.NewCertPool()
		if pem := read("CAFile", t.CAFile); pem != nil && !c.RootCAs.AppendCertsFromPEM(pem) {
			problems = append(problems, tlsProblem{"TLS.CAFile", "the file holds no certificate", "name a PEM file with BEGIN CERTIFICATE", nil})
		}
	}
	if t.CertFile != "" && t.KeyFile != "" {
		cert, key := read("CertFile", t.CertFile), read("KeyFile", t.KeyFile)
		if cert != nil && key != nil {
			pair, err := tls.X509KeyPair(cert, key)
			if err != nil {
				problems = append(problems, tlsProblem{"TLS.CertFile", "certificate and key do not go together: " + err.Error(), "name a certificate and its own key, both PEM", err})
			}
			c.Certificates = []tls.Certificate{pair}
		}
	}
	return c, problems
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
