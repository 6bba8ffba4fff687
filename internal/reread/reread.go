// Package reread reads the files of a configuration again for new connections,
// so that certificates, authorities and passwords can be renewed without a
// restart.
package reread

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"

	"github.com/madcrow-go/madcrow/internal/fault"
	"github.com/madcrow-go/madcrow/internal/guard"
	"github.com/madcrow-go/madcrow/internal/settings"
)

// Files are the files of a configuration: certificates, authorities, and the
// secrets that NAME_FILE settings name. A file that cannot be used leaves in
// use what was read before. Files are safe for concurrent use.
type Files struct {
	log     *slog.Logger
	v       settings.Values // as they were opened
	secrets map[string]settings.SecretFile
	paths   []string // of the files of TLS

	mu     sync.Mutex
	faults map[string]string // by the name of the setting: what is wrong with its file
	last   map[string]string // the secrets that were read last, by the name of their field
	config *tls.Config
	stamps []fs.FileInfo // of the files of TLS when they were read last; nil for one that cannot be looked at
}

// New reads the files of TLS where a connection is encrypted. The error is
// [settings.Problems].
func New(v settings.Values, log *slog.Logger) (*Files, error) {
	f := &Files{log: log, v: v, secrets: v.SecretFiles(), faults: map[string]string{}, last: map[string]string{}}
	for field, s := range f.secrets {
		f.last[field] = s.Was
	}
	if !v.TLS.Enabled && !v.EncryptsSentinels() {
		return f, nil
	}
	f.paths = pathsOf(v.TLS)
	f.stamps = stampsOf(f.paths)
	var err error
	f.config, err = v.LoadTLS()
	return f, err
}

// TLS is that of a new connection to addr. The files are looked at, and read
// where they are not those that were read last: also where a symbolic link now
// leads to another one.
func (f *Files) TLS(addr string) *tls.Config { return settings.NamedTLS(f.tls(), addr) }

func (f *Files) tls() *tls.Config {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.paths) == 0 {
		return f.config
	}
	stamps := stampsOf(f.paths) // before they are read: a later change is seen the next time
	if slices.ContainsFunc(stamps, func(i fs.FileInfo) bool { return i != nil && !i.Mode().IsRegular() }) {
		return f.config // a pipe gives its text once, and then keeps its reader waiting
	}
	if sameStamps(stamps, f.stamps) && f.faults["TLS"] == "" {
		return f.config
	}
	config, err := f.v.LoadTLS()
	f.note("TLS", err)
	if err == nil {
		f.config, f.stamps = config, stamps
	}
	return f.config
}

// note logs once what is wrong with a file, and that it can be used again.
func (f *Files) note(setting string, err error) {
	before := f.faults[setting]
	if err == nil {
		if before != "" {
			f.log.Info("a changed file of the configuration can be used again", "setting", setting)
		}
		delete(f.faults, setting)
		return
	}
	reason := err.Error()
	if f.faults[setting] = reason; reason != before {
		f.log.Warn("a changed file of the configuration cannot be used; what was read before stays in use", "setting", setting, "reason", reason)
	}
}

// HasSecrets says whether a user or a password stands in a file.
func (f *Files) HasSecrets() bool { return len(f.secrets) > 0 }

// Credentials are those of a new connection to a data node, or to a Sentinel.
func (f *Files) Credentials(sentinel bool) (user, password string) {
	v := &f.v
	switch {
	case sentinel:
		return f.secret("Sentinel.Username", v.Sentinel.Username), f.secret("Sentinel.Password", v.Sentinel.Password)
	case v.Cluster.Enabled:
		return f.secret("Username", v.Username), f.secret("Cluster.Password", v.Cluster.Password)
	}
	return f.secret("Username", v.Username), f.secret("Password", v.Password)
}

// secret returns what the file of a field holds now, or otherwise what the
// configuration holds.
func (f *Files) secret(field, otherwise string) string {
	s, ok := f.secrets[field]
	if !ok {
		return otherwise
	}
	if info, err := os.Stat(s.Path); err == nil && !info.Mode().IsRegular() {
		return otherwise // a pipe gives its text once, and then keeps its reader waiting
	}
	var value string
	err := guard.Call(func() (err error) { // Env.ReadFile may be a user's
		value, err = s.Read()
		return err
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note(s.Setting, err)
	if err == nil {
		f.last[field] = value
	}
	return f.last[field]
}

// pathsOf are the files of a TLS.
func pathsOf(t settings.TLS) []string {
	var out []string
	for _, p := range []string{t.CAFile, t.CertFile, t.KeyFile} {
		if p != "" && t.Config == nil {
			out = append(out, p)
		}
	}
	return out
}

func stampsOf(paths []string) []fs.FileInfo {
	out := make([]fs.FileInfo, len(paths))
	for i, p := range paths {
		out[i], _ = os.Stat(p)
	}
	return out
}

func sameStamps(a, b []fs.FileInfo) bool {
	for i, x := range a {
		y := b[i]
		if x == nil || y == nil || x.Size() != y.Size() || !x.ModTime().Equal(y.ModTime()) || !os.SameFile(x, y) {
			return false
		}
	}
	return true
}

// Explain says what to do about a failed handshake.
func (f *Files) Explain(err error) error {
	if unknown := (x509.UnknownAuthorityError{}); errors.As(err, &unknown) && f.v.TLS.CAFile != "" {
		return fault.Untrusted{Err: err}
	}
	return err
}
