package madcrow

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
)

// rereads are the files of a Config that are read again for new connections:
// certificates, authorities, and the secrets that NAME_FILE settings name. A
// file that cannot be used leaves in use what was read before.
type rereads struct {
	log     *slog.Logger
	secrets map[string]secretFile // by the field of Config

	mu     sync.Mutex
	faults map[string]string // by the name of the setting: what is wrong with its file
	last   map[string]string // the secrets that were read last

	cfg    Config // as it was opened
	config *tls.Config
	stamps []fs.FileInfo // of the files when they were read last; nil for one that cannot be looked at
}

// secretFile is a secret that stands in a file.
type secretFile struct {
	setting string // that names the file
	was     string // what it held when the Config was made
	path    string
	read    func() (string, error)
}

// reread makes the rereads of a Config. A secret that was changed in code since
// it was read is not in a file any more.
func (c Config) reread() (*rereads, error) {
	r := &rereads{cfg: c, log: c.Logger, secrets: map[string]secretFile{}, faults: map[string]string{}, last: map[string]string{}}
	if c.origin != nil && c.Credentials == nil {
		for field, s := range c.origin.secrets {
			if *settingByField[field].ref(&c).(*string) == s.was {
				r.secrets[field], r.last[field] = s, s.was
			}
		}
		if s, ok := r.secrets["Password"]; ok && string(c.Cluster.Password) == s.was && c.origin.secrets["Cluster.Password"].read == nil {
			r.secrets["Cluster.Password"], r.last["Cluster.Password"] = s, s.was // its default
		}
	}
	if !c.TLS.Enabled && !c.sentinelTLS() {
		return r, nil
	}
	r.stamps = stampsOf(c.TLS.paths())
	var err error
	r.config, err = c.loadTLS("")
	return r, err
}

// tlsNow is the TLS of a new connection, without a name. The files are looked
// at, and read where they are not those that were read last: also where a
// symbolic link now leads to another one.
func (r *rereads) tlsNow() *tls.Config {
	paths := r.cfg.TLS.paths()
	if len(paths) == 0 {
		return r.config
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	stamps := stampsOf(paths) // before they are read: a later change is seen the next time
	if slices.ContainsFunc(stamps, func(i fs.FileInfo) bool { return i != nil && !i.Mode().IsRegular() }) {
		return r.config // a pipe gives its text once, and then keeps its reader waiting
	}
	if sameStamps(stamps, r.stamps) && r.faults["TLS"] == "" {
		return r.config
	}
	config, err := r.cfg.loadTLS("")
	r.note("TLS", err)
	if err == nil {
		r.config, r.stamps = config, stamps
	}
	return r.config
}

// note says once what is wrong with a file, and that it can be used again.
func (r *rereads) note(setting string, err error) {
	before := r.faults[setting]
	if err == nil {
		if before != "" {
			r.log.Info("a changed file of the configuration can be used again", "setting", setting)
		}
		delete(r.faults, setting)
		return
	}
	reason := err.Error()
	if problems := problemsOf(err); len(problems) > 0 {
		reason = (&ConfigError{Problems: problems}).Error()
	}
	if r.faults[setting] = reason; reason != before {
		r.log.Warn("a changed file of the configuration cannot be used; what was read before stays in use", "setting", setting, "reason", reason)
	}
}

// secret returns what the file of a field holds now, or otherwise what the
// Config holds.
func (r *rereads) secret(field, otherwise string) string {
	if r == nil {
		return otherwise
	}
	s, ok := r.secrets[field]
	if !ok {
		return otherwise
	}
	if info, err := os.Stat(s.path); err == nil && !info.Mode().IsRegular() {
		return otherwise // a pipe gives its text once, and then keeps its reader waiting
	}
	var value string
	err := guard.Call(func() (err error) { // Env.ReadFile may be a user's
		value, err = s.read()
		return err
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.note(s.setting, err)
	if err == nil {
		r.last[field] = value
	}
	return r.last[field]
}

// credentials are those of a new connection to a data node, or to a Sentinel.
func (c Config) credentials(sentinel bool) (user, password string) {
	r := c.files
	switch {
	case sentinel:
		return r.secret("Sentinel.Username", c.Sentinel.Username), r.secret("Sentinel.Password", string(c.Sentinel.Password))
	case r != nil && r.cfg.Cluster.Enabled: // c may be that of one node
		return r.secret("Username", c.Username), r.secret("Cluster.Password", string(c.Password))
	}
	return r.secret("Username", c.Username), r.secret("Password", string(c.Password))
}

// paths are the files of a TLS.
func (t TLS) paths() []string {
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

// explain says what to do about a failed handshake.
func (r *rereads) explain(err error) error {
	if unknown := (x509.UnknownAuthorityError{}); errors.As(err, &unknown) && r.cfg.TLS.CAFile != "" {
		return fault.Untrusted{Err: err}
	}
	return err
}
