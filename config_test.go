package madcrow

import (
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/internal/settings"
)

// secretMark is part of every secret in these tests; it must be seen nowhere.
const secretMark = "hUsH-7pq"

func noCredentials(context.Context, CredentialsRequest) (Credentials, error) {
	return Credentials{}, nil
}

func configWithSecrets() Config {
	on := true
	return Config{
		Host: "h.test", Username: "app", Password: secretMark,
		Sentinel: Sentinel{Enabled: true, Addresses: []string{"s.test:1"}, Password: secretMark, UseTLS: &on},
		Cluster:  Cluster{Addresses: []string{"redis://:" + secretMark + "@c.test"}, Password: secretMark},
		TLS:      TLS{Enabled: true, Config: &tls.Config{ServerName: secretMark}}, Credentials: noCredentials,
		Socket: "redis://u:" + secretMark + "@x", Warnings: []string{"w"},
	}
}

func TestConfig_PrintsNoSecret(t *testing.T) {
	c := configWithSecrets()
	for _, shown := range shownInEveryWay(t, c, &c, []Config{c}, map[string]Config{"a": c}, struct{ C Config }{c}, struct{ C *Config }{&c}) {
		if strings.Contains(shown, secretMark) {
			t.Error(shown)
		}
	}
	for _, want := range []string{"Host:h.test", "Username:app", "Password:***", "Sentinel.Enabled:true", "Sentinel.Addresses:s.test:1", "Sentinel.Password:***", "Sentinel.UseTLS:true", "TLS.Config:true"} {
		if !strings.Contains(c.String(), want) {
			t.Errorf("%s is not in %s", want, c)
		}
	}
	if got := (Config{}).String(); got != "madcrow.Config{}" {
		t.Error(got)
	}
}

func TestConfig_RedactedHoldsNoSecretAndSharesNothing(t *testing.T) {
	c := configWithSecrets()
	before := configWithSecrets()
	r := c.redacted()
	if r.Password != "***" || r.Sentinel.Password != "***" || r.Cluster.Password != "***" || r.TLS.Config != nil || r.Credentials != nil {
		t.Errorf("%q %q %q %v", string(r.Password), string(r.Sentinel.Password), string(r.Cluster.Password), r)
	}
	if r.Host != "h.test" || r.Username != "app" || !*r.Sentinel.UseTLS {
		t.Error(r)
	}
	r.Sentinel.Addresses[0], r.Cluster.Addresses[0], r.Warnings[0], *r.Sentinel.UseTLS = "x", "x", "x", false
	if !reflect.DeepEqual(c.Sentinel, before.Sentinel) || !reflect.DeepEqual(c.Cluster, before.Cluster) || c.Warnings[0] != "w" || c.Password != secretMark {
		t.Error("the source of the copy was changed")
	}
	if r := (Config{}).redacted(); r.Password != "" {
		t.Errorf("no password is shown as %q", string(r.Password))
	}
}

// fillWith sets every exported field that reflection can reach, but the
// functions and interfaces, to something else than its zero value.
func fillWith(v reflect.Value, mark string) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fillWith(v.Field(i), mark+"."+v.Type().Field(i).Name)
			}
		}
	case reflect.String:
		v.SetString(mark)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(len(mark)) + 1000)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fillWith(v.Index(0), mark)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		if v.Elem().Kind() == reflect.Bool {
			v.Elem().SetBool(true)
		}
	}
}

func TestConfig_EveryFieldIsAmongTheSettingsAndBack(t *testing.T) {
	var c Config
	fillWith(reflect.ValueOf(&c).Elem(), "m")
	c.origin, c.Logger = new(settings.Origin), nil
	v := c.values()
	v.HasCredentials = true // it is a function in Config
	for i := range reflect.TypeOf(v).NumField() {
		if f := reflect.ValueOf(v).Field(i); f.IsZero() {
			t.Errorf("%s does not reach the settings", reflect.TypeOf(v).Field(i).Name)
		}
	}
	got := Config{}.with(v)
	if !reflect.DeepEqual(got, c) {
		t.Errorf("\ngot  %v\nwant %v", got, c)
	}
	if got.Password != "m.Password" || got.Sentinel.Password != "m.Sentinel.Password" || got.Cluster.Password != "m.Cluster.Password" {
		t.Errorf("passwords %q %q %q", string(got.Password), string(got.Sentinel.Password), string(got.Cluster.Password))
	}
}

func TestConfig_DefaultsAreThoseOfTheSettings(t *testing.T) {
	c, err := Config{}.validate()
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Host: DefaultHost, Port: DefaultPort, MaxConnections: DefaultMaxConnections,
		CommandTimeout: DefaultCommandTimeout, ConnectTimeout: DefaultConnectTimeout,
		MaxValueSize: DefaultMaxValueSize, BulkThreshold: DefaultBulkThreshold, DeployEnv: Development,
		ClientName: c.ClientName, Sentinel: Sentinel{SocketTimeout: 100 * time.Millisecond},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("\ngot  %v\nwant %v", c, want)
	}
	if c, err = (Config{DeployEnv: Production}).validate(); err != nil || c.DeployEnv != Production {
		t.Errorf("%v, %v", c, err)
	}
}

// A configuration error is one in every promised way, whatever found it.
func TestConfigError_IsOneInEveryWay(t *testing.T) {
	_, fromURL := ParseURL("redis://h:x")
	_, fromEnv := Env{Lookup: func(name string) (string, bool) {
		return map[string]string{"REDIS_PORT": "x", "REDIS_DB": "y"}[name], true
	}}.Config()
	_, fromCode := Config{Port: -1}.validate()
	_, fromFile := Open(t.Context(), Config{TLS: TLS{Enabled: true, CAFile: "/nowhere/ca.pem"}})
	for setting, err := range map[string]error{"URL": fromURL, "REDIS_PORT": fromEnv, "Config.Port": fromCode, "Config.TLS.CAFile": fromFile} {
		var e *Error
		var ce *ConfigError
		var p ConfigProblem
		if !errors.Is(err, ErrConfig) || !errors.As(err, &e) || e.Kind != KindConfig || e.Outcome != OutcomeNotApplied || !errors.As(err, &ce) || !errors.Is(ce, ErrConfig) || !errors.As(err, &p) {
			t.Fatalf("%s: not a configuration error in every way: %#v", setting, err)
		}
		if p.Setting != setting || p.Reason == "" || p.Fix == "" || !strings.Contains(err.Error(), p.Error()) {
			t.Errorf("%s: %v", setting, err)
		}
	}
	if !errors.Is(fromFile, fs.ErrNotExist) {
		t.Error("the cause is not kept")
	}
	if text := fromEnv.Error(); !strings.Contains(text, "2 problems: [1] REDIS_PORT=") || !strings.Contains(text, "; [2] REDIS_DB=") {
		t.Error(text)
	}
}

func TestEnv_ZeroValueReadsTheProcess(t *testing.T) {
	t.Setenv("REDIS_HOST", "from.process")
	t.Setenv("ORDERS_REDIS_HOST", "from.orders")
	c, err := ConfigFromEnv()
	if err != nil || c.Host != "from.process" {
		t.Errorf("%v, %v", c, err)
	}
	if c, err = (Env{Prefix: "ORDERS_"}).Config(); err != nil || c.Host != "from.orders" {
		t.Errorf("%v, %v", c, err)
	}
}
