package reread

import (
	"io/fs"
	"log/slog"
	"maps"
	"testing"

	"github.com/madcrow-go/madcrow/internal/settings"
)

// Each secret that stands in a file is read again, a password of the Sentinels,
// of a cluster and of a URL too; what code changed since then is left alone.
func TestCredentials_EverySecretInAFileIsReadAgain(t *testing.T) {
	for name, tc := range map[string]struct {
		vars     map[string]string
		change   func(*settings.Values)
		sentinel bool
		before   string
		after    string
	}{
		"password": {vars: map[string]string{"REDIS_PASSWORD_FILE": "/p"}, before: ":old", after: ":new"},
		"user":     {vars: map[string]string{"REDIS_USERNAME_FILE": "/p", "REDIS_PASSWORD": "x"}, before: "old:x", after: "new:x"},
		"cluster": {
			vars:   map[string]string{"REDIS_USE_CLUSTERS": "1", "REDIS_CLUSTERS": "h", "REDIS_CLUSTERS_PASSWORD_FILE": "/p"},
			before: ":old", after: ":new",
		},
		"cluster by the common one": {
			vars:   map[string]string{"REDIS_USE_CLUSTERS": "1", "REDIS_CLUSTERS": "h", "REDIS_PASSWORD_FILE": "/p"},
			before: ":old", after: ":new",
		},
		"cluster with one of its own": {
			vars:   map[string]string{"REDIS_USE_CLUSTERS": "1", "REDIS_CLUSTERS": "h", "REDIS_PASSWORD_FILE": "/p", "REDIS_CLUSTERS_PASSWORD": "own"},
			before: ":own", after: ":own",
		},
		"sentinel": {
			vars:     map[string]string{"REDIS_USE_SENTINEL": "1", "REDIS_SENTINELS": "h", "REDIS_SENTINEL_SERVICE_NAME": "m", "REDIS_SENTINEL_PASSWORD_FILE": "/p"},
			sentinel: true, before: ":old", after: ":new",
		},
		"URL":             {vars: map[string]string{"REDIS_URL_FILE": "/u"}, before: "me:old", after: "me:new"},
		"changed in code": {vars: map[string]string{"REDIS_PASSWORD_FILE": "/p"}, change: func(v *settings.Values) { v.Password = "code" }, before: ":code", after: ":code"},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{"/p": "old\n", "/u": "redis://me:old@h/1\n"}
			env := settings.Env{
				Lookup: func(name string) (string, bool) { v, ok := tc.vars[name]; return v, ok },
				ReadFile: func(name string) ([]byte, error) {
					if text, ok := files[name]; ok {
						return []byte(text), nil
					}
					return nil, fs.ErrNotExist
				},
			}
			v, err := env.Values()
			if err != nil {
				t.Fatal(err)
			}
			if tc.change != nil {
				tc.change(&v)
			}
			if v, err = v.Validate(); err != nil {
				t.Fatal(err)
			}
			f, err := New(v, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			if !f.HasSecrets() && tc.before != tc.after {
				t.Error("no secret stands in a file")
			}
			got := func() string {
				user, password := f.Credentials(tc.sentinel)
				return user + ":" + password
			}
			if g := got(); g != tc.before {
				t.Errorf("at first %q, want %q", g, tc.before)
			}
			maps.Copy(files, map[string]string{"/p": "new\n", "/u": "redis://me:new@elsewhere/1\n"})
			if g := got(); g != tc.after {
				t.Errorf("after the change %q, want %q", g, tc.after)
			}
			clear(files)
			if g := got(); g != tc.after {
				t.Errorf("without the files %q, want %q", g, tc.after)
			}
		})
	}
}
