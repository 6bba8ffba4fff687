package main

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/madcrow-go/madcrow/problem"
)

func TestFlags_NothingUnsafe(t *testing.T) {
	for args, want := range map[string]string{
		"":                                    "give one of",
		"-dev -cert c -key k":                 "give one of",
		"-dev -proxies 1":                     "give one of",
		"-cert c -secret-file s":              "go together",
		"-cert c -key k":                      "-secret-file is missing",
		"-proxies 1":                          "-secret-file is missing",
		"-dev -addr :8080":                    "this machine only",
		"-dev -addr 192.0.2.1:8080":           "this machine only",
		"-dev more":                           "unknown argument",
		"-dev":                                "",
		"-dev -addr [::1]:1":                  "",
		"-dev -addr localhost:1":              "",
		"-cert c -key k -secret-file s":       "",
		"-addr :80 -proxies 2 -secret-file s": "",
	} {
		_, err := parseFlags(strings.Fields(args))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
	if err := serve(t.Context(), config{dev: true, addr: "127.0.0.1:0", db: t.TempDir() + "/users.db", secretFile: "units_test.go/none"}); err == nil {
		t.Error("a secret that cannot be read")
	}
	t.Setenv("REDIS_PORT", "99999")
	if err := serve(t.Context(), config{}); err == nil || !strings.Contains(err.Error(), "REDIS_PORT") {
		t.Error(err)
	}
}

func TestUseradd_MakesAPasswordOrTakesAGoodOne(t *testing.T) {
	db := t.TempDir() + "/users.db"
	add := func(stdin string, args ...string) (string, error) {
		var out strings.Builder
		err := run(t.Context(), append([]string{"useradd", "-db", db}, args...), strings.NewReader(stdin), &out)
		return out.String(), err
	}
	out, err := add("", " Ada ")
	_, made, _ := strings.Cut(strings.TrimSpace(out), "once: ")
	if err != nil || len(made) < 26 {
		t.Fatalf("%q, %v", out, err)
	}
	accounts, err := openUsers(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	defer accounts.close()
	ada, found, err := accounts.byName(t.Context(), "ada")
	if err != nil || !found || ada.role != "user" || strings.Contains(ada.hash, made) {
		t.Fatalf("%+v %v %v", ada, found, err)
	}
	h := newHasher()
	for password, want := range map[string]bool{made: true, made + "x": false, "": false} {
		if ok, err := h.matches(t.Context(), ada.hash, password); ok != want || err != nil {
			t.Errorf("%q: %v %v", password, ok, err)
		}
	}
	for _, bad := range []struct {
		stdin string
		args  []string
		want  string
	}{
		{"", nil, "one NAME"},
		{"", []string{"a", "b"}, "one NAME"},
		{"", []string{"a b"}, "a NAME has"},
		{"", []string{strings.Repeat("a", 65)}, "a NAME has"},
		{"", []string{"ada"}, "there is an account"},
		{"", []string{"-password-stdin", "bob"}, "15 characters or more"},
		{"bob-bob-bob-bob-bob\n", []string{"-password-stdin", "bob-bob-bob-bob"}, "too close"},
		{strings.Repeat("é", 20) + "\n", []string{"-password-stdin", "bob"}, "repeated"},
		{strings.Repeat("long", 65) + "\n", []string{"-password-stdin", "bob"}, "at most"},
	} {
		if out, err := add(bad.stdin, bad.args...); err == nil || !strings.Contains(err.Error(), bad.want) || out != "" {
			t.Errorf("%v: %q %v", bad.args, out, err)
		}
	}
}

// The hash of another program, with other parameters: argon2 -id of the
// reference implementation.
func TestHash_IsThatOfOtherPrograms(t *testing.T) {
	const foreign = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	for password, want := range map[string]bool{"password": true, "Password": false} {
		if ok, err := sameHash(foreign, password); ok != want || err != nil {
			t.Errorf("%s: %v %v", password, ok, err)
		}
	}
	if !outdated(foreign) || outdated(encodeHash("x")) {
		t.Error("which hash is outdated?")
	}
	for _, bad := range []string{"x", "", "$argon2i$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc", "$argon2id$v=19$m=65536,t=0,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc", "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$"} {
		if ok, err := sameHash(bad, "password"); ok || err == nil {
			t.Errorf("%q: %v %v", bad, ok, err)
		}
	}
}

func TestHasher_WaitingTooLongIsAnErrorOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hasher{slots: make(chan struct{}, 1)}
		h.slots <- struct{}{} // somebody else's turn
		begin := time.Now()
		_, err := h.matches(t.Context(), "", "x")
		if p := problem.From(err); p.Status != 503 || p.Code != "BUSY" || time.Since(begin) != patience {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}

func TestPages_WordsOfTime(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "just now", 61 * time.Second: "1 minute ago", 3 * time.Hour: "3 hours ago", 49 * time.Hour: "2 days ago"} {
		if got := ago(time.Now().Add(-d)); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
	for d, want := range map[time.Duration]string{time.Second: "1 second", 61 * time.Second: "2 minutes", 2 * time.Hour: "2 hours"} {
		if got := wait(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}
