package madcrow

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"
)

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
	values := []any{
		c, &c, c.Sentinel, c.Cluster, &c.Sentinel,
		Credentials{Username: "app", Password: secretMark, RefreshAfter: time.Now()},
		[]Config{c},
		map[string]Sentinel{"a": c.Sentinel},
		struct{ C Config }{c},
	}
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
			if got := fmt.Sprintf(verb, v); strings.Contains(got, secretMark) || strings.Contains(got, fmt.Sprintf("%x", secretMark)) || got == "" {
				t.Errorf("%s of %T: %s", verb, v, got)
			}
		}
		for name, h := range map[string]func(*bytes.Buffer) slog.Handler{
			"text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
			"json": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
		} {
			var b bytes.Buffer
			slog.New(h(&b)).Info("m", "v", v)
			if strings.Contains(b.String(), secretMark) {
				t.Errorf("%s log of %T: %s", name, v, &b)
			}
		}
	}
	for _, v := range values {
		if b, err := json.Marshal(v); err != nil || strings.Contains(string(b), secretMark) || !strings.Contains(string(b), "***") {
			t.Errorf("JSON of %T: %s, %v", v, b, err)
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
	if got := c.Cluster.String(); got != "madcrow.Cluster{Addresses:redis://***@c.test Password:***}" {
		t.Error(got)
	}
}

func TestConfig_RedactedHoldsNoSecretAndSharesNothing(t *testing.T) {
	c := configWithSecrets()
	before := configWithSecrets()
	r := c.redacted()
	if r.Password != "***" || r.Sentinel.Password != "***" || r.Cluster.Password != "***" || r.TLS.Config != nil || r.Credentials != nil {
		t.Errorf("%q %q %q %v", r.Password, r.Sentinel.Password, r.Cluster.Password, r)
	}
	if r.Host != "h.test" || r.Username != "app" || !*r.Sentinel.UseTLS {
		t.Error(r)
	}
	r.Sentinel.Addresses[0], r.Cluster.Addresses[0], r.Warnings[0], *r.Sentinel.UseTLS = "x", "x", "x", false
	if !reflect.DeepEqual(c.Sentinel, before.Sentinel) || !reflect.DeepEqual(c.Cluster, before.Cluster) || c.Warnings[0] != "w" || c.Password != secretMark {
		t.Error("the original was changed")
	}
	if r := (Config{}).redacted(); r.Password != "" {
		t.Errorf("no password is shown as %q", r.Password)
	}
}

func TestProblem_LongValuesAreCut(t *testing.T) {
	_, err := Config{Host: strings.Repeat("ä", 1000)}.validate()
	if p := wantProblem(t, err, "Config.Host", "…"); len(p.Value) > 130 || strings.ContainsRune(p.Value, '\uFFFD') {
		t.Errorf("%d bytes: %s", len(p.Value), p.Value)
	}
}
