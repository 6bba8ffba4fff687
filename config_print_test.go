package madcrow

import (
	"crypto/tls"
	"reflect"
	"strings"
	"testing"
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
		t.Error("the original was changed")
	}
	if r := (Config{}).redacted(); r.Password != "" {
		t.Errorf("no password is shown as %q", string(r.Password))
	}
}

func TestProblem_LongValuesAreCut(t *testing.T) {
	_, err := Config{Host: strings.Repeat("ä", 1000)}.validate()
	if p := wantProblem(t, err, "Config.Host", "…"); len(p.Value) > 130 || strings.ContainsRune(p.Value, '\uFFFD') {
		t.Errorf("%d bytes: %s", len(p.Value), p.Value)
	}
}
