package settings

import (
	"os"
	"strings"
)

// Env is the environment that settings are read from. Prefix stands before
// every name but DEPLOY_ENV; Lookup and ReadFile default to those of package
// os.
type Env struct {
	Prefix   string
	Lookup   func(string) (string, bool)
	ReadFile func(string) ([]byte, error)
}

// maxSecretFile bounds the files that hold secrets, in bytes.
const maxSecretFile = 64 << 10

// Values reads and validates the whole configuration. An empty variable is one
// that is not set, an unknown name is ignored, and defaults are filled in.
// REDIS_URL comes first; besideURL says what is left to the other settings.
//
// The error is [Problems]; it and the warnings hold no secret.
func (e Env) Values() (Values, error) {
	if e.Prefix != "" && (!strings.HasSuffix(e.Prefix, "_") || strings.ContainsFunc(e.Prefix, notInName)) {
		return Values{}, Problems{{
			Setting: "Env.Prefix", Value: shown(e.Prefix),
			Reason: "no beginning of names", Fix: `use letters, digits and _, with _ at the end, as in "ORDERS_"`,
		}}
	}
	r := envReader{
		env:    e.withDefaults(),
		origin: &Origin{env: true, prefix: e.Prefix, names: map[string]string{}, secrets: map[string]SecretFile{}},
		files:  map[string]fileSetting{},
	}
	r.readURL()
	for _, s := range table {
		if s.path != "" {
			r.read(s)
		}
	}
	r.cfg.Require = r.cfg.DeployEnv == Production
	if r.cfg.Require && !e.NamesRedis() {
		r.warn("no Redis is named (" + e.Prefix + envURL + ", " + e.Prefix + byField["Host"].name + ", …), so " + DefaultHost + " is used")
	}
	if e.Lookup == nil {
		r.warnMistyped(os.Environ())
	}
	r.cfg.Origin = r.origin

	v := validator{in: r.cfg, c: r.cfg, tlsUnknown: r.tlsUnknown}
	v.run()
	if err := append(r.problems, v.problems...).orNil(); err != nil {
		return Values{}, err
	}
	cfg := r.cfg
	cfg.fillDefaults()
	cfg.Warnings = v.c.Warnings
	r.origin.remember(&cfg)
	return cfg, nil
}

// NamesRedis says whether the environment says at all which Redis to use, by
// REDIS_URL, REDIS_HOST, REDIS_SENTINELS or REDIS_CLUSTERS.
func (e Env) NamesRedis() bool {
	e = e.withDefaults()
	for _, name := range []string{envURL, envURL + "_FILE", "REDIS_HOST", "REDIS_SENTINELS", "REDIS_CLUSTERS"} {
		if v, _ := e.Lookup(e.Prefix + name); strings.TrimSpace(v) != "" {
			return true
		}
	}
	return false
}

func (e Env) withDefaults() Env {
	if e.Lookup == nil {
		e.Lookup = os.LookupEnv
	}
	if e.ReadFile == nil {
		e.ReadFile = os.ReadFile
	}
	return e
}

func notInName(r rune) bool {
	return r != '_' && (r < '0' || r > '9') && (r|0x20 < 'a' || r|0x20 > 'z')
}

// envReader is one reading of the environment.
type envReader struct {
	env        Env
	cfg        Values
	origin     *Origin
	url        *urlParser // nil without REDIS_URL
	problems   Problems
	tlsUnknown bool
	files      map[string]fileSetting // read a secret again, by the setting that names its file
}

func (r *envReader) bad(p Problem) { r.problems = append(r.problems, p) }

func (r *envReader) warn(text string) { r.cfg.Warnings = append(r.cfg.Warnings, text) }

// lookup returns the value of a setting, from its variable or its file, and
// the name of the variable that gave it. failed means that it was set and
// cannot be had.
func (r *envReader) lookup(s setting) (value, name string, ok, failed bool) {
	name = s.envName(r.env.Prefix)
	value, _ = r.env.Lookup(name)
	if strings.TrimSpace(value) == "" && (!s.secret || s.kind == kindURL) {
		value = "" // only a password may consist of blanks
	}
	if !s.file {
		return value, name, value != "", false
	}
	fileName := name + "_FILE"
	file, _ := r.env.Lookup(fileName)
	if file = strings.TrimSpace(file); file == "" {
		return value, name, value != "", false
	}
	problem := Problem{Setting: fileName, Value: shownPath(file)}
	if value != "" {
		problem.Reason, problem.Fix = name+" is set too", "keep one of the two"
		r.bad(problem)
		return "", fileName, false, true
	}
	read := func() (string, *Problem) { return readSecret(r.env.ReadFile, fileName, file) }
	value, err := read()
	if err != nil {
		r.bad(*err)
		return "", fileName, false, true
	}
	r.files[fileName] = fileSetting{file, read}
	return value, fileName, true, false
}

// fileSetting is a setting that stands in a file.
type fileSetting struct {
	path string
	read func() (string, *Problem)
}

// readSecret reads the file that the setting name names.
func readSecret(readFile func(string) ([]byte, error), name, file string) (string, *Problem) {
	problem := Problem{Setting: name, Value: shownPath(file)}
	data, err := readFile(file)
	value := strings.TrimRight(string(data), "\r\n")
	switch {
	case err != nil:
		problem.Err = cause(err)
		problem.Reason = "the file cannot be read"
		if problem.Value != Hidden { // the cause may repeat the name
			problem.Reason += ": " + problem.Err.Error()
		}
		problem.Fix = "name a file that this process may read"
	case value == "":
		problem.Reason, problem.Fix = "the file is empty", "write the value into it, or remove the setting"
	case len(data) > maxSecretFile:
		problem.Reason, problem.Fix = "the file is longer than 64 KiB", "name the file that holds only the value"
	default:
		return value, nil
	}
	return "", &problem
}

// secretOf keeps that a setting stands in a file, for new connections.
func (r *envReader) secretOf(s setting, name string) {
	r.keep(s, name, func(raw string) (v Values, err error) {
		err = s.parse(&v, raw)
		return v, err
	})
}

// secretsOfURL is secretOf for what a URL in a file says. Where Redis is stays
// as it was at the start.
func (r *envReader) secretsOfURL(name string) {
	for field := range r.url.set {
		if s := byField[field]; s.file {
			r.keep(s, name, func(raw string) (Values, error) {
				u := parseURL(name, raw)
				return u.cfg, u.problems.orNil()
			})
		}
	}
}

// keep keeps how the secret of a setting is read again from the file that the
// variable name names; parse reads the text of the file.
func (r *envReader) keep(s setting, name string, parse func(string) (Values, error)) {
	f, ok := r.files[name]
	if !ok {
		return
	}
	r.origin.secrets[s.path] = SecretFile{Setting: name, Was: *s.str(&r.cfg), Path: f.path, Read: func() (string, error) {
		raw, problem := f.read()
		if problem != nil {
			return "", *problem
		}
		v, err := parse(raw)
		return *s.str(&v), err
	}}
}

// readURL reads REDIS_URL, which comes before the others.
func (r *envReader) readURL() {
	value, name, ok, failed := r.lookup(table[0])
	if failed {
		r.tlsUnknown = true
	}
	if !ok {
		return
	}
	r.url = parseURL(name, value)
	if len(r.url.problems) > 0 {
		r.problems = append(r.problems, r.url.problems...)
		r.tlsUnknown = true
		return
	}
	r.cfg = r.url.cfg
	r.origin.urlSetting, r.origin.url, r.origin.fromURL = name, r.url.shown, r.url.set
	r.secretsOfURL(name)
}

// read reads one setting other than REDIS_URL.
func (r *envReader) read(s setting) {
	value, name, ok, _ := r.lookup(s)
	if !ok {
		return
	}
	if r.url != nil && r.overruled(s, value, name) {
		return
	}
	if s.path == "Port" && isServiceLink(value) {
		// No error: it is not the author of the settings who wrote it.
		r.warn(name + "=" + shown(strings.TrimSpace(value)) + " is ignored: Kubernetes (a service link) or Docker wrote it, for a service of that name; set " + name + " to a number, or enableServiceLinks: false in the pod")
		return
	}
	if err := s.parse(&r.cfg, value); err != nil {
		shownValue := Hidden
		if !s.secret {
			shownValue = shown(strings.TrimSpace(value))
		}
		r.bad(Problem{Setting: name, Value: shownValue, Reason: err.Error(), Fix: s.fix, Err: err})
		if s.kind == kindBool {
			r.tlsUnknown = true
		}
		return
	}
	delete(r.origin.fromURL, s.path) // a parameter of the URL may say it too
	if name != s.envName(r.env.Prefix) {
		r.origin.names[s.path] = name
		r.secretOf(s, name)
	}
}

// overruled says whether REDIS_URL speaks in the place of a setting, and warns
// where the two do not say the same.
func (r *envReader) overruled(s setting, value, name string) bool {
	u := r.url
	var why string
	switch {
	case s.beside == applies:
		return false
	case s.beside == ignored,
		strings.HasPrefix(s.path, "Sentinel.") && !u.cfg.Sentinel.Enabled,
		strings.HasPrefix(s.path, "Cluster.") && !u.cfg.Cluster.Enabled:
		why = " says which Redis to use"
	case u.set[s.path] || s.path == "Cluster.Password" && u.set["Password"]:
		why = " has a value for it too"
	default:
		return false
	}
	var probe Values
	if s.parse(&probe, value) == nil {
		if s.same(&probe, &u.cfg) {
			return true
		}
		if probe.TLS.Enabled && len(u.problems) == 0 {
			// No warning: it would send the password unencrypted.
			r.bad(Problem{
				Setting: name, Value: value, Reason: u.setting + " is not encrypted and stands in its place",
				Fix: "write the URL with rediss:// (rediss-sentinel://, rediss-cluster://), or remove " + name,
			})
			return true
		}
	}
	r.warn(name + " is ignored, for " + u.setting + why)
	return true
}
