package session_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/session"
)

func TestNew_NamesTheOptionThatIsWrong(t *testing.T) {
	r := open(t)
	for _, tc := range []struct {
		field string
		opt   options
	}{
		{"Options.Cookie", options{InsecureCookie: true, Cookie: "__Host-x"}},
		{"Options.Cookie", options{Cookie: "a b"}},
		{"Options.Cookie", options{Cookie: "a=b"}},
		{"Options.InsecureCookie", options{InsecureCookie: true, Partitioned: true}},
		{"Options.InsecureCookie", options{InsecureCookie: true, SameSite: http.SameSiteNoneMode}},
		{"Options.IdleTimeout", options{IdleTimeout: time.Hour, AbsoluteTimeout: time.Minute}},
		{"Options.IdleTimeout", options{IdleTimeout: time.Millisecond}},
		{"Options.AbsoluteTimeout", options{AbsoluteTimeout: 11 * 365 * 24 * time.Hour}},
		{"Options.RememberIdleTimeout", options{RememberIdleTimeout: time.Hour, RememberAbsoluteTimeout: time.Minute}},
		{"Options.RotationGrace", options{RotationGrace: time.Hour}},
		{"Options.FallbackTTL", options{FallbackTTL: 2 * time.Hour}},
		{"Options.EncryptionKeys", options{EncryptionKeys: [][]byte{{1}}}},
		{"Options.Secret", options{Secret: []byte("x")}},
		{"Options.Secret", options{Secret: []byte("")}},
		{"Options.Secret", options{Secret: []byte(strings.Repeat("x", 15))}},
		{"Options.MaxPerUser", options{MaxPerUser: -1}},
		{"Options.WaitReplicas", options{WaitReplicas: -1}},
		{"Options.WaitTimeout", options{WaitReplicas: 1, WaitTimeout: 20 * time.Second}},
		{"Options.FastAPILayout", options{FastAPILayout: true, MaxPerUser: 1}},
		{"Options.FastAPILayout", options{FastAPILayout: true, Codec: plainCart{}}},
	} {
		_, err := session.New(r, "web", tc.opt)
		var wrong *madcrow.ArgumentError
		if !errors.As(err, &wrong) || wrong.Argument != tc.field || wrong.Reason == "" || strings.Contains(wrong.Reason, "h0m0s") {
			t.Errorf("%+v: %v, want only %s", tc.opt, err, tc.field)
		}
	}
	if _, err := session.New(r, "web", options{Secret: []byte(strings.Repeat("x", 16))}); err != nil {
		t.Errorf("a Secret of 16 bytes: %v", err)
	}
	for _, name := range []string{"", "a:b", "{x}", strings.Repeat("n", 65)} {
		if _, err := session.New(r, name, options{}); err == nil || !strings.Contains(err.Error(), "name") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestNew_NamesAllProblemsInOneError(t *testing.T) {
	_, err := session.New(open(t), "a:b", options{IdleTimeout: -1, MaxPerUser: -1, Secret: []byte("short"), Cookie: "a b"})
	for _, want := range []string{"name ", "Options.IdleTimeout ", "Options.MaxPerUser ", "Options.Secret ", "Options.Cookie "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing: %v", want, err)
		}
	}
	if err != nil && strings.Contains(err.Error(), "short") {
		t.Errorf("it holds the secret: %v", err)
	}
}

func TestMiddleware_RefusesAPolicyThatSessionsDoNotHave(t *testing.T) {
	m := newManager(t, open(t), options{})
	for _, policy := range []madcrow.FailPolicy{{}, madcrow.FailLocal(2)} {
		func() {
			defer func() {
				text, _ := recover().(string)
				for _, want := range []string{`"web"`, policy.String(), "FailClosed", "FailOpen", "FailStale"} {
					if !strings.Contains(text, want) {
						t.Errorf("%v: %q does not say %s", policy, text, want)
					}
				}
			}()
			m.Middleware(policy)
		}()
	}
}
