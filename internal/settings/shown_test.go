package settings

import (
	"fmt"
	"strings"
	"testing"
)

func TestShown_LongValuesAreCut(t *testing.T) {
	_, err := Values{Host: strings.Repeat("ä", 1000)}.Validate()
	if p := wantProblem(t, err, "Config.Host", "…"); len(p.Value) > 130 || strings.ContainsRune(p.Value, '\uFFFD') {
		t.Errorf("%d bytes: %s", len(p.Value), p.Value)
	}
}

// What went to the wrong place is not shown either.
func TestValues_PrintNoSecret(t *testing.T) {
	v := Values{
		Host: "h.test", Username: "app", Password: secretMark, Socket: "redis://u:" + secretMark + "@x",
		Sentinel: Sentinel{Enabled: true, Addresses: []string{"s.test:1"}, Password: secretMark},
		Cluster:  Cluster{Addresses: []string{"redis://:" + secretMark + "@c.test"}, Password: secretMark},
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
		for _, x := range []any{v, &v, []Values{v}, struct{ V Values }{v}} {
			if got := fmt.Sprintf(verb, x); strings.Contains(got, secretMark) || strings.Contains(got, fmt.Sprintf("%x", secretMark)) || got == "" {
				t.Errorf("%s of %T: %s", verb, x, got)
			}
		}
	}
	if got := (Values{Cluster: v.Cluster}).String(); got != "settings.Values{Cluster.Addresses:redis://***@c.test Cluster.Password:***}" {
		t.Error(got)
	}
}
