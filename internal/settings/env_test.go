package settings

import (
	"errors"
	"io/fs"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestEnv_NothingSetGivesTheDefaultsOfTheMission(t *testing.T) {
	c := fromEnv(t, nil)
	c.Origin = nil
	want := Values{
		Host: "localhost", Port: 6379, MaxConnections: 20,
		CommandTimeout: 500 * time.Millisecond, ConnectTimeout: 5 * time.Second,
		MaxValueSize: 64 << 20, BulkThreshold: 64 << 10, DeployEnv: "DEVELOPMENT",
		Sentinel: Sentinel{SocketTimeout: 100 * time.Millisecond},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %v\nwant %v", c, want)
	}
}

// Every name, each set to something that is not its default.
func TestEnv_EveryNameReachesItsField(t *testing.T) {
	certFile, keyFile := certificate(t)
	on := true
	cases := []struct {
		name, value string
		with        map[string]string // what it cannot be valid without
		get         func(Values) any
		want        any
	}{
		{"REDIS_HOST", "redis.test", nil, func(c Values) any { return c.Host }, "redis.test"},
		{"REDIS_PORT", "7000", nil, func(c Values) any { return c.Port }, 7000},
		{"REDIS_USERNAME", "app", nil, func(c Values) any { return c.Username }, "app"},
		{"REDIS_PASSWORD", " p w ", nil, func(c Values) any { return c.Password }, " p w "},
		{"REDIS_DB", "3", nil, func(c Values) any { return c.DB }, 3},
		{"REDIS_KEY_PREFIX", "shop:", nil, func(c Values) any { return c.KeyPrefix }, "shop:"},
		{"REDIS_USE_SSL", "true", nil, func(c Values) any { return c.TLS.Enabled }, true},
		{"REDIS_SSL_CA_FILE", certFile, map[string]string{"REDIS_USE_SSL": "1"}, func(c Values) any { return c.TLS.CAFile }, certFile},
		{"REDIS_SSL_CERT_FILE", certFile, map[string]string{"REDIS_USE_SSL": "1", "REDIS_SSL_KEY_FILE": keyFile}, func(c Values) any { return c.TLS.CertFile }, certFile},
		{"REDIS_SSL_KEY_FILE", keyFile, map[string]string{"REDIS_USE_SSL": "1", "REDIS_SSL_CERT_FILE": certFile}, func(c Values) any { return c.TLS.KeyFile }, keyFile},
		{"REDIS_SSL_SERVER_NAME", "other.test", map[string]string{"REDIS_USE_SSL": "1"}, func(c Values) any { return c.TLS.ServerName }, "other.test"},
		{"REDIS_SSL_INSECURE_SKIP_VERIFY", "on", map[string]string{"REDIS_USE_SSL": "1"}, func(c Values) any { return c.TLS.InsecureSkipVerify }, true},
		{"REDIS_USE_SENTINEL", "yes", map[string]string{"REDIS_SENTINELS": "a", "REDIS_SENTINEL_SERVICE_NAME": "m"}, func(c Values) any { return c.Sentinel.Enabled }, true},
		{"REDIS_SENTINELS", " a:1 , b,, ", nil, func(c Values) any { return c.Sentinel.Addresses }, []string{"a:1", "b"}},
		{"REDIS_SENTINEL_SERVICE_NAME", "mymaster", nil, func(c Values) any { return c.Sentinel.ServiceName }, "mymaster"},
		{"REDIS_SENTINEL_USERNAME", "su", nil, func(c Values) any { return c.Sentinel.Username }, "su"},
		{"REDIS_SENTINEL_PASSWORD", "sp", nil, func(c Values) any { return c.Sentinel.Password }, "sp"},
		{"REDIS_SENTINEL_SOCKET_TIMEOUT", "0.25", nil, func(c Values) any { return c.Sentinel.SocketTimeout }, 250 * time.Millisecond},
		{"REDIS_SENTINEL_USE_SSL", "t", nil, func(c Values) any { return c.Sentinel.UseTLS }, &on},
		{"REDIS_USE_CLUSTERS", "Y", map[string]string{"REDIS_CLUSTERS": "a"}, func(c Values) any { return c.Cluster.Enabled }, true},
		{"REDIS_READ_REPLICAS", "on", nil, func(c Values) any { return c.ReadReplicas }, true},
		{"REDIS_CLUSTERS", "a:7000,b:7001", nil, func(c Values) any { return c.Cluster.Addresses }, []string{"a:7000", "b:7001"}},
		{"REDIS_CLUSTERS_PASSWORD", "cp", nil, func(c Values) any { return c.Cluster.Password }, "cp"},
		{"REDIS_MAX_CONNECTIONS", "3", nil, func(c Values) any { return c.MaxConnections }, 3},
		{"REDIS_COMMAND_TIMEOUT", "100ms", nil, func(c Values) any { return c.CommandTimeout }, 100 * time.Millisecond},
		{"REDIS_CONNECT_TIMEOUT", "2", nil, func(c Values) any { return c.ConnectTimeout }, 2 * time.Second},
		{"REDIS_MAX_VALUE_SIZE", "1000000", nil, func(c Values) any { return c.MaxValueSize }, 1000000},
		{"REDIS_BULK_THRESHOLD", "1000", nil, func(c Values) any { return c.BulkThreshold }, 1000},
		{"REDIS_CLIENT_NAME", "orders-1", nil, func(c Values) any { return c.ClientName }, "orders-1"},
		{"REDIS_URL", "redis://h.test:1", nil, func(c Values) any { return c.Host }, "h.test"},
		{"DEPLOY_ENV", "production", nil, func(c Values) any { return c.DeployEnv }, "PRODUCTION"},
	}
	tested := map[string]bool{}
	for _, tc := range cases {
		tested[tc.name] = true
		for _, prefix := range []string{"", "ORDERS_"} {
			vars := map[string]string{}
			for name, value := range tc.with {
				vars[prefix+name] = value
			}
			name := prefix + tc.name
			if tc.name == "DEPLOY_ENV" {
				name = tc.name
			}
			vars[name] = tc.value
			env := fakeEnv(vars, nil)
			env.Prefix = prefix
			c, err := env.Values()
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if got := tc.get(c); !reflect.DeepEqual(got, tc.want) {
				t.Errorf("%s: got %v, want %v", name, got, tc.want)
			}
			if _, err := c.Validate(); err != nil {
				t.Errorf("%s: what was accepted is not valid: %v", name, err)
			}
			if prefix != "" && tc.name != "DEPLOY_ENV" {
				env.Prefix = ""
				if c, err := env.Values(); err != nil || reflect.DeepEqual(tc.get(c), tc.want) {
					t.Errorf("%s is read without the prefix (%v)", name, err)
				}
			}
		}
	}
	for _, s := range table {
		if !tested[s.name] {
			t.Errorf("%s is not tested", s.name)
		}
	}
}

func TestEnv_ProductionRequiresRedis(t *testing.T) {
	for value, want := range map[string]bool{"": false, "DEVELOPMENT": false, "PRODUCTION": true, " Production ": true} {
		if c := fromEnv(t, map[string]string{"DEPLOY_ENV": value}); c.Require != want {
			t.Errorf("DEPLOY_ENV=%q: Require %v", value, c.Require)
		}
	}
	_, err := fakeEnv(map[string]string{"DEPLOY_ENV": "staging"}, nil).Values()
	wantProblem(t, err, "DEPLOY_ENV", `"staging"`)
}

func TestEnv_EmptyIsUnset(t *testing.T) {
	vars := map[string]string{}
	for _, s := range table {
		vars[s.name] = ""
		vars[s.name+"_FILE"] = " "
	}
	got, want := fromEnv(t, vars), fromEnv(t, nil)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestEnv_NamesRedis(t *testing.T) {
	for _, name := range []string{"REDIS_URL", "REDIS_URL_FILE", "REDIS_HOST", "REDIS_SENTINELS", "REDIS_CLUSTERS"} {
		if !fakeEnv(map[string]string{name: "x"}, nil).NamesRedis() {
			t.Errorf("%s does not count", name)
		}
	}
	for _, name := range []string{"REDIS_PORT", "REDIS_PASSWORD", "ORDERS_REDIS_HOST"} {
		if fakeEnv(map[string]string{name: "x", "REDIS_HOST": " "}, nil).NamesRedis() {
			t.Errorf("%s counts", name)
		}
	}
}

func TestEnv_Booleans(t *testing.T) {
	for value, want := range map[string]bool{
		"true": true, "TRUE": true, "1": true, "yes": true, "On": true, "t": true, " y ": true,
		"false": false, "0": false, "NO": false, "off": false, "F": false, "n": false,
	} {
		if c := fromEnv(t, map[string]string{"REDIS_USE_SSL": value}); c.TLS.Enabled != want {
			t.Errorf("%q: %v", value, c.TLS.Enabled)
		}
	}
	for _, value := range []string{"maybe", "2", "truee", "-1"} {
		_, err := fakeEnv(map[string]string{"REDIS_USE_SSL": value}, nil).Values()
		wantProblem(t, err, "REDIS_USE_SSL", value)
	}
}

func TestEnv_Durations(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"0.1": 100 * time.Millisecond, "100ms": 100 * time.Millisecond, "5": 5 * time.Second, "1e-2": 10 * time.Millisecond,
		"1h": time.Hour, "3600": time.Hour, ".001": time.Millisecond, " 2s ": 2 * time.Second,
	} {
		if c := fromEnv(t, map[string]string{"REDIS_COMMAND_TIMEOUT": value}); c.CommandTimeout != want {
			t.Errorf("%q: %v", value, c.CommandTimeout)
		}
	}
	for _, value := range []string{"0", "-1", "-5ms", "NaN", "nan", "inf", "-Inf", "1e400", "3601", "61m", "0.0001", "999us", "1d", "fast", "9999999999999h"} {
		for _, name := range []string{"REDIS_COMMAND_TIMEOUT", "REDIS_CONNECT_TIMEOUT", "REDIS_SENTINEL_SOCKET_TIMEOUT"} {
			_, err := fakeEnv(map[string]string{name: value}, nil).Values()
			wantProblem(t, err, name, value)
		}
	}
}

func TestEnv_BadNumbers(t *testing.T) {
	for name, values := range map[string][]string{
		"REDIS_PORT":            {"0", "-1", "65536", "6379.0", "abc", "0x10", "99999999999999999999"},
		"REDIS_DB":              {"-1", "one", "99999999999"},
		"REDIS_MAX_CONNECTIONS": {"0", "1", "2", "-5", "10001", "many"},
		"REDIS_MAX_VALUE_SIZE":  {"0", "-1", "64MB", "1073741825"},
		"REDIS_BULK_THRESHOLD":  {"0", "-1", "67108865"},
	} {
		for _, value := range values {
			_, err := fakeEnv(map[string]string{name: value}, nil).Values()
			p := wantProblem(t, err, name, value)
			if p.Value != value {
				t.Errorf("%s: the value is shown as %q, want %q", name, p.Value, value)
			}
		}
	}
}

func TestEnv_OneErrorListsEveryProblemUnderItsFullName(t *testing.T) {
	env := fakeEnv(map[string]string{
		"X_REDIS_PORT": "70000", "X_REDIS_DB": "minus", "X_REDIS_USE_SENTINEL": "true", "X_REDIS_USE_CLUSTERS": "1",
		"X_REDIS_MAX_CONNECTIONS": "2", "X_REDIS_PASSWORD": secretMark, "X_REDIS_PASSWORD_FILE": "/run/pw",
		"X_REDIS_KEY_PREFIX": "a{b}", "X_REDIS_USE_SSL": "perhaps", "X_REDIS_SENTINEL_PASSWORD_FILE": "/nowhere",
		"DEPLOY_ENV": "test",
	}, nil)
	env.Prefix = "X_"
	_, err := env.Values()
	for setting, want := range map[string]string{
		"X_REDIS_PORT": "70000", "X_REDIS_DB": "minus", "X_REDIS_USE_SENTINEL": "X_REDIS_USE_CLUSTERS",
		"X_REDIS_SENTINELS": "not set", "X_REDIS_SENTINEL_SERVICE_NAME": "no name", "X_REDIS_CLUSTERS": "not set",
		"X_REDIS_MAX_CONNECTIONS": "from 3", "X_REDIS_PASSWORD_FILE": "X_REDIS_PASSWORD is set too",
		"X_REDIS_KEY_PREFIX": "slot", "X_REDIS_USE_SSL": "perhaps", "X_REDIS_SENTINEL_PASSWORD_FILE": "cannot be read",
		"DEPLOY_ENV": "test",
	} {
		wantProblem(t, err, setting, want)
	}
	if n := len(problemsOf(err)); n != 12 {
		t.Errorf("%d problems, want 12: %v", n, err)
	}
	var first Problem
	if !errors.As(err, &first) || first.Setting != "X_REDIS_PORT" {
		t.Errorf("errors.As finds %+v", first)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		t.Error("the cause, fs.ErrNotExist, is not to be found")
	}
}

func TestEnv_BadPrefix(t *testing.T) {
	for _, prefix := range []string{"ORDERS", "A B_", "ä_", "="} {
		_, err := Env{Prefix: prefix}.Values()
		wantProblem(t, err, "Env.Prefix", "with _ at the end")
	}
}

func TestEnv_SecretsFromFiles(t *testing.T) {
	get := map[string]func(Values) string{
		"REDIS_PASSWORD":          func(c Values) string { return c.Password },
		"REDIS_USERNAME":          func(c Values) string { return c.Username },
		"REDIS_SENTINEL_PASSWORD": func(c Values) string { return c.Sentinel.Password },
		"REDIS_SENTINEL_USERNAME": func(c Values) string { return c.Sentinel.Username },
		"REDIS_CLUSTERS_PASSWORD": func(c Values) string { return c.Cluster.Password },
		"REDIS_URL":               func(c Values) string { return c.Password },
	}
	for _, s := range table {
		if s.secret && get[s.name] == nil {
			t.Errorf("%s is a secret and not tested", s.name)
		}
	}
	for name, get := range get {
		content, want := secretMark, secretMark
		if name == "REDIS_URL" {
			content = "redis://:" + secretMark + "@h"
		}
		for _, end := range []string{"", "\n", "\r\n"} {
			c, err := fakeEnv(map[string]string{name + "_FILE": " /run/secret "}, map[string]string{"/run/secret": content + end}).Values()
			if err != nil || get(c) != want {
				t.Errorf("%s_FILE with %q at its end: %q, %v", name, end, get(c), err)
			}
		}
		for reason, env := range map[string]Env{
			"is set too":     fakeEnv(map[string]string{name: content, name + "_FILE": "/run/secret"}, map[string]string{"/run/secret": content}),
			"does not exist": fakeEnv(map[string]string{name + "_FILE": "/run/secret"}, nil),
			"is empty":       fakeEnv(map[string]string{name + "_FILE": "/run/secret"}, map[string]string{"/run/secret": "\n"}),
			"64 KiB":         fakeEnv(map[string]string{name + "_FILE": "/run/secret"}, map[string]string{"/run/secret": strings.Repeat("x", 1<<17)}),
			// The secret itself in the place of its file.
			`"***"`: fakeEnv(map[string]string{name + "_FILE": secretMark}, nil),
		} {
			_, err := env.Values()
			wantProblem(t, err, name+"_FILE", reason)
		}
	}
	// A reader of files that repeats what it was given.
	env := fakeEnv(map[string]string{"REDIS_PASSWORD_FILE": secretMark}, nil)
	env.ReadFile = func(name string) ([]byte, error) { return nil, errors.New("no vault entry " + name) }
	_, err := env.Values()
	wantProblem(t, err, "REDIS_PASSWORD_FILE", "cannot be read")
	// Only secrets and the names of users come from files.
	c := fromEnv(t, map[string]string{"REDIS_HOST_FILE": "/nowhere"})
	if c.Host != "localhost" {
		t.Error(c.Host)
	}
}

func TestEnv_NoSecretIsShown(t *testing.T) {
	const mark = secretMark
	for name, vars := range map[string]map[string]string{
		"URL as host":          {"REDIS_HOST": "redis://u:" + mark + "@h:1"},
		"credentials as host":  {"REDIS_HOST": "u:" + mark + "@h"},
		"credentials in lists": {"REDIS_USE_SENTINEL": "1", "REDIS_SENTINEL_SERVICE_NAME": "m", "REDIS_SENTINELS": "a,u:" + mark + "@h:1"},
		"URL in a list":        {"REDIS_USE_CLUSTERS": "1", "REDIS_CLUSTERS": "redis://:" + mark + "@h:1"},
		"URL as number":        {"REDIS_DB": "redis://:" + mark + "@h:1"},
		"password as URL":      {"REDIS_URL": mark},
		"URL without host":     {"REDIS_URL": "redis://u:" + mark},
		"URL with raw slash":   {"REDIS_URL": "redis://u:" + mark + "/x@h"},
		"URL, secret in query": {"REDIS_URL": "redis+sentinel://h/m?sentinel_password=" + mark + "&sentinel_password=" + mark},
		"wrong parameter":      {"REDIS_URL": "redis://h?password=" + mark},
		"broken encoding":      {"REDIS_URL": "redis://u:" + mark + "%zz@h"},
		"cluster with a db":    {"REDIS_URL": "redis-cluster://u:" + mark + "@h/3"},
		"TLS asked and denied": {"REDIS_URL": "redis://u:" + mark + "@h", "REDIS_USE_SSL": "1"},
	} {
		_, err := fakeEnv(vars, nil).Values()
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		if strings.Contains(err.Error(), mark) {
			t.Errorf("%s: %v", name, err)
		}
		for _, p := range problemsOf(err) {
			if strings.Contains(p.Value+p.Reason+p.Fix, mark) {
				t.Errorf("%s: %#v", name, p)
			}
		}
	}
}

func TestEnv_URLPrecedence(t *testing.T) {
	const mark = secretMark
	cases := []struct {
		name  string
		vars  map[string]string
		want  Values // only what is compared below
		warns [][]string
	}{
		{
			"the URL says it all",
			map[string]string{"REDIS_URL": "redis://u:" + mark + "1@h:1/2", "REDIS_USERNAME": "v", "REDIS_PASSWORD": mark + "2", "REDIS_DB": "3", "REDIS_HOST": "g", "REDIS_PORT": "9"},
			Values{Host: "h", Port: 1, Username: "u", Password: mark + "1", DB: 2},
			[][]string{{"REDIS_USERNAME", "REDIS_URL"}, {"REDIS_PASSWORD", "REDIS_URL"}, {"REDIS_DB", "REDIS_URL"}, {"REDIS_HOST", "REDIS_URL"}, {"REDIS_PORT", "REDIS_URL"}},
		},
		{
			"what it omits is filled in",
			map[string]string{"REDIS_URL": "redis://h", "REDIS_USERNAME": "v", "REDIS_PASSWORD": mark, "REDIS_DB": "3"},
			Values{Host: "h", Port: 6379, Username: "v", Password: mark, DB: 3},
			nil,
		},
		{
			"the same twice is no warning",
			map[string]string{"REDIS_URL": "redis://u:" + mark + "@h:1/2", "REDIS_USERNAME": "u", "REDIS_PASSWORD": mark, "REDIS_DB": "2", "REDIS_HOST": "h", "REDIS_PORT": "1", "REDIS_USE_SSL": "no", "REDIS_USE_SENTINEL": "0"},
			Values{Host: "h", Port: 1, Username: "u", Password: mark, DB: 2},
			nil,
		},
		{
			"a database of 0 in the URL counts",
			map[string]string{"REDIS_URL": "redis://h/0", "REDIS_DB": "3"},
			Values{Host: "h", Port: 6379},
			[][]string{{"REDIS_DB"}},
		},
		{
			"what is overruled need not be right",
			map[string]string{"REDIS_URL": "redis://h/1", "REDIS_PORT": "x", "REDIS_DB": "-1"},
			Values{Host: "h", Port: 6379, DB: 1},
			[][]string{{"REDIS_PORT"}, {"REDIS_DB"}},
		},
		{
			"TLS in the URL counts",
			map[string]string{"REDIS_URL": "rediss://h", "REDIS_USE_SSL": "false"},
			Values{Host: "h", Port: 6379, TLS: TLS{Enabled: true}},
			[][]string{{"REDIS_USE_SSL"}},
		},
		{
			"TLS options apply",
			map[string]string{"REDIS_URL": "rediss://h", "REDIS_SSL_SERVER_NAME": "n"},
			Values{Host: "h", Port: 6379, TLS: TLS{Enabled: true, ServerName: "n"}},
			nil,
		},
		{
			"a topology beside the URL",
			map[string]string{"REDIS_URL": "redis://h", "REDIS_USE_SENTINEL": "1", "REDIS_SENTINELS": "a", "REDIS_SENTINEL_PASSWORD": mark, "REDIS_USE_CLUSTERS": "1", "REDIS_CLUSTERS": "b", "REDIS_CLUSTERS_PASSWORD": mark},
			Values{Host: "h", Port: 6379},
			[][]string{{"REDIS_USE_SENTINEL "}, {"REDIS_SENTINELS "}, {"REDIS_SENTINEL_PASSWORD "}, {"REDIS_USE_CLUSTERS "}, {"REDIS_CLUSTERS "}, {"REDIS_CLUSTERS_PASSWORD "}},
		},
		{
			"a Sentinel URL is completed",
			map[string]string{"REDIS_URL": "redis-sentinel://a,b/1", "REDIS_SENTINEL_SERVICE_NAME": "m", "REDIS_SENTINEL_USERNAME": "su", "REDIS_SENTINEL_PASSWORD": mark, "REDIS_USE_SENTINEL": "1"},
			Values{DB: 1, Sentinel: Sentinel{Enabled: true, Addresses: []string{"a:26379", "b:26379"}, ServiceName: "m", Username: "su", Password: mark}},
			nil,
		},
		{
			"a Sentinel URL that says it",
			map[string]string{"REDIS_URL": "redis+sentinel://a/m?sentinel_username=x&sentinel_password=" + mark, "REDIS_SENTINEL_SERVICE_NAME": "n", "REDIS_SENTINEL_USERNAME": "y", "REDIS_SENTINEL_PASSWORD": "z"},
			Values{Sentinel: Sentinel{Enabled: true, Addresses: []string{"a:26379"}, ServiceName: "m", Username: "x", Password: mark}},
			[][]string{{"REDIS_SENTINEL_SERVICE_NAME"}, {"REDIS_SENTINEL_USERNAME"}, {"REDIS_SENTINEL_PASSWORD"}},
		},
		{
			"a cluster URL with a password",
			map[string]string{"REDIS_URL": "redis-cluster://:" + mark + "@a", "REDIS_CLUSTERS_PASSWORD": "z"},
			Values{Password: mark, Cluster: Cluster{Enabled: true, Addresses: []string{"a:6379"}}},
			[][]string{{"REDIS_CLUSTERS_PASSWORD"}},
		},
		{
			"a cluster URL without",
			map[string]string{"REDIS_URL": "redis-cluster://a", "REDIS_CLUSTERS_PASSWORD": "z", "REDIS_PASSWORD": "y"},
			Values{Password: "y", Cluster: Cluster{Enabled: true, Addresses: []string{"a:6379"}, Password: "z"}},
			nil,
		},
	}
	for _, tc := range cases {
		c := fromEnv(t, tc.vars)
		got := Values{Host: c.Host, Port: c.Port, Socket: c.Socket, Username: c.Username, Password: c.Password, DB: c.DB, TLS: c.TLS, Sentinel: c.Sentinel, Cluster: c.Cluster}
		tc.want.Sentinel.SocketTimeout = 100 * time.Millisecond
		if !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s:\ngot  %v\nwant %v", tc.name, got, tc.want)
		}
		if len(c.Warnings) != len(tc.warns) {
			t.Errorf("%s: %d warnings, want %d: %q", tc.name, len(c.Warnings), len(tc.warns), c.Warnings)
		}
		for _, parts := range tc.warns {
			wantWarning(t, c, parts...)
		}
		if strings.Contains(strings.Join(c.Warnings, ""), mark) {
			t.Errorf("%s: a warning shows a secret: %q", tc.name, c.Warnings)
		}
	}
}

func TestEnv_TLSAskedForAndDeniedByTheURLIsAnError(t *testing.T) {
	for _, url := range []string{"redis://h", "redis-cluster://h", "unix:///s"} {
		_, err := fakeEnv(map[string]string{"REDIS_URL": url, "REDIS_USE_SSL": "true"}, nil).Values()
		wantProblem(t, err, "REDIS_USE_SSL", "rediss://")
	}
	_, err := fakeEnv(map[string]string{"REDIS_URL": "redis://h", "REDIS_SSL_SERVER_NAME": "n"}, nil).Values()
	wantProblem(t, err, "REDIS_SSL_SERVER_NAME", "REDIS_URL")
}

func TestEnv_ABrokenURLBringsNoFurtherComplaints(t *testing.T) {
	for _, vars := range []map[string]string{
		{"REDIS_URL": "http://h", "REDIS_SSL_SERVER_NAME": "n", "REDIS_USE_SSL": "1", "REDIS_USE_SENTINEL": "1"},
		{"REDIS_URL_FILE": "/nowhere", "REDIS_SSL_SERVER_NAME": "n"},
		{"REDIS_USE_SSL": "maybe", "REDIS_SSL_SERVER_NAME": "n"},
	} {
		_, err := fakeEnv(vars, nil).Values()
		if n := len(problemsOf(err)); n != 1 {
			t.Errorf("%v: %d problems: %v", vars, n, err)
		}
	}
}

func TestEnv_ProblemsNameWhoWroteTheValue(t *testing.T) {
	// From the URL: the URL without its secrets.
	_, err := fakeEnv(map[string]string{"REDIS_URL": "redis-cluster://u:" + secretMark + "@h:1/3"}, nil).Values()
	if p := wantProblem(t, err, "REDIS_URL", "database 0"); p.Value != "redis-cluster://***@h:1/3" {
		t.Errorf("value %q", p.Value)
	}
	// From the environment beside a URL.
	_, err = fakeEnv(map[string]string{"REDIS_URL": "redis-cluster://h", "REDIS_DB": "3"}, nil).Values()
	wantProblem(t, err, "REDIS_DB", "database 0")
	// From a file.
	c, err := fakeEnv(map[string]string{"REDIS_PASSWORD_FILE": "/pw"}, map[string]string{"/pw": secretMark}).Values()
	if err != nil {
		t.Fatal(err)
	}
	c.HasCredentials = true
	_, err = c.Validate()
	wantProblem(t, err, "REDIS_PASSWORD_FILE", "Config.Credentials")
	// Changed in code afterwards.
	c = fromEnv(t, map[string]string{"REDIS_PORT": "7000"})
	c.Port = 70000
	_, err = c.Validate()
	wantProblem(t, err, "Config.Port", "70000")
	// Not changed: a range that code cannot reach by the environment.
	c = fromEnv(t, map[string]string{"REDIS_MAX_VALUE_SIZE": "1000"})
	c.BulkThreshold = 2000
	_, err = c.Validate()
	wantProblem(t, err, "Config.BulkThreshold", "REDIS_MAX_VALUE_SIZE, 1000")
}

// A production service without a setting waited for localhost and did not say
// why.
func TestEnv_ProductionWithoutANamedRedisSaysSo(t *testing.T) {
	wantWarning(t, fromEnv(t, map[string]string{"DEPLOY_ENV": "PRODUCTION"}), "no Redis is named", "REDIS_HOST")
	c := fromEnv(t, map[string]string{"DEPLOY_ENV": "PRODUCTION", "REDIS_HOST": "localhost"})
	if len(c.Warnings) != 0 {
		t.Errorf("%q", c.Warnings)
	}
}
