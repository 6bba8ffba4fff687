package madcrow

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// shownInEveryWay prints, encodes and logs values, each as a program would.
func shownInEveryWay(t *testing.T, values ...any) []string {
	t.Helper()
	var all []string
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%10s", "%d", "%x", "%X", "%t", "%c", "%U", "%e"} {
			all = append(all, fmt.Sprintf(verb+" of %T", v, v))
		}
		all = append(all, fmt.Sprint(v), fmt.Sprintln(v), fmt.Errorf("refused: %v", v).Error())
		for _, h := range []func(*bytes.Buffer) slog.Handler{
			func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
			func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
		} {
			var b bytes.Buffer
			slog.New(h(&b)).With("w", v).WithGroup("g").Info("m", "v", v, slog.Group("h", "v", v))
			all = append(all, b.String())
		}
		text, err := json.Marshal(v)
		if err != nil || !strings.Contains(string(text), "***") {
			t.Errorf("JSON of %T: %s, %v", v, text, err)
		}
		all = append(all, string(text))
	}
	return all
}

func TestSecret_IsShownInNoWay(t *testing.T) {
	s := Secret(secretMark)
	// A secret in the wrong place is hidden too: an address may be a whole URL.
	misplaced := []string{"redis://u:" + secretMark + "@h:26379", "u:" + secretMark + "@h"}
	sentinel := Sentinel{Enabled: true, Addresses: misplaced, Username: "u", Password: s}
	cluster := Cluster{Enabled: true, Addresses: misplaced, Password: s}
	credentials := Credentials{Username: "u", Password: s, RefreshAfter: time.Now()}
	type nested struct {
		Name string
		S    Secret
		P    *Secret
		Deep struct{ List []Secret }
	}
	n := nested{Name: "n", S: s, P: &s}
	n.Deep.List = []Secret{s}
	for _, shown := range shownInEveryWay(
		t, s, &s, []Secret{s}, [1]Secret{s}, []*Secret{&s}, map[string]Secret{"a": s}, struct{ Any any }{s}, n, &n, []nested{n},
		sentinel, &sentinel, map[string]Sentinel{"a": sentinel}, cluster, &cluster, credentials, &credentials, []Credentials{credentials},
	) {
		for _, hint := range []string{secretMark, strings.ToLower(fmt.Sprintf("%x", secretMark)), strings.ToUpper(fmt.Sprintf("%x", secretMark))} {
			if strings.Contains(shown, hint) {
				t.Error(shown)
			}
		}
	}
	if text, err := xml.Marshal(credentials); err != nil || strings.Contains(string(text), secretMark) {
		t.Errorf("XML: %s, %v", text, err)
	}
}

func TestSections_ShowTheFieldsThatAreSet(t *testing.T) {
	at := []string{"redis://u:" + secretMark + "@h", "b"}
	if got := fmt.Sprintf("%+v", Sentinel{Addresses: at, ServiceName: "m", Password: "p"}); got != "madcrow.Sentinel{Addresses:redis://***@h,b ServiceName:m Password:***}" {
		t.Error(got)
	}
	if got := fmt.Sprint(Cluster{Addresses: at, Password: "p"}); got != "madcrow.Cluster{Addresses:redis://***@h,b Password:***}" {
		t.Error(got)
	}
	if got := fmt.Sprint(Cluster{}); got != "madcrow.Cluster{}" {
		t.Error(got)
	}
}

func TestSecret_ShowsWhetherItIsSet(t *testing.T) {
	type fields struct{ A, B Secret }
	v := fields{A: "x"}
	for format, want := range map[string]string{
		"%v": "{*** }", "%+v": "{A:*** B:}", "%#v": `madcrow.fields{A:"***", B:""}`, "%q": `{"***" ""}`,
	} {
		if got := fmt.Sprintf(format, v); got != want {
			t.Errorf("%s: %s, want %s", format, got, want)
		}
	}
	if text, err := json.Marshal(v); err != nil || string(text) != `{"A":"***","B":""}` {
		t.Errorf("%s, %v", text, err)
	}
	if string(v.A) != "x" {
		t.Error("the conversion does not return the password")
	}
}

// A configuration file may hold the password: only showing it is prevented.
func TestSecret_IsReadFromJSON(t *testing.T) {
	var c struct{ Password Secret }
	if err := json.Unmarshal([]byte(`{"Password":"p w"}`), &c); err != nil || string(c.Password) != "p w" {
		t.Errorf("%q, %v", string(c.Password), err)
	}
}
