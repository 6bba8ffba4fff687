package settings

import (
	"reflect"
	"strings"
	"testing"
)

func TestParseURL(t *testing.T) {
	sentinel := func(c Values, s Sentinel) Values { s.Enabled = true; c.Sentinel = s; return c }
	cluster := func(c Values, list ...string) Values {
		c.Cluster = Cluster{Enabled: true, Addresses: list}
		return c
	}
	tlsOn := TLS{Enabled: true}
	for raw, want := range map[string]Values{
		"redis://":                         {Host: "localhost", Port: 6379},
		"redis:///4":                       {Host: "localhost", Port: 6379, DB: 4},
		"redis://:7000":                    {Host: "localhost", Port: 7000},
		"redis://h":                        {Host: "h", Port: 6379},
		" REDIS://h/ ":                     {Host: "h", Port: 6379},
		"redis://h:7000/15":                {Host: "h", Port: 7000, DB: 15},
		"redis://h?db=3":                   {Host: "h", Port: 6379, DB: 3},
		"redis://h/3?db=3":                 {Host: "h", Port: 6379, DB: 3},
		"redis://u:p@h":                    {Host: "h", Port: 6379, Username: "u", Password: "p"},
		"redis://:p@h":                     {Host: "h", Port: 6379, Password: "p"},
		"redis://p@h":                      {Host: "h", Port: 6379, Password: "p"},
		"redis://u:@h":                     {Host: "h", Port: 6379, Username: "u"},
		"redis://u:a:b@h":                  {Host: "h", Port: 6379, Username: "u", Password: "a:b"},
		"redis://u:a@b@h":                  {Host: "h", Port: 6379, Username: "u", Password: "a@b"},
		"redis://u%40x:p%2F%3A%23%25+@h":   {Host: "h", Port: 6379, Username: "u@x", Password: "p/:#%+"},
		"redis://u:p@[::1]:7/1":            {Host: "::1", Port: 7, Username: "u", Password: "p", DB: 1},
		"redis://[fe80::1%25eth0]":         {Host: "fe80::1%eth0", Port: 6379},
		"redis://h:7000/15/":               {Host: "h", Port: 7000, DB: 15},
		"valkey://u:p@h/2":                 {Host: "h", Port: 6379, Username: "u", Password: "p", DB: 2},
		"valkeys://h":                      {Host: "h", Port: 6379, TLS: tlsOn},
		"rediss://[2001:db8::1]":           {Host: "2001:db8::1", Port: 6379, TLS: tlsOn},
		"unix:///run/redis.sock":           {Socket: "/run/redis.sock"},
		"unix://u:p@/run/a%20b.sock?db=2":  {Socket: "/run/a b.sock", Username: "u", Password: "p", DB: 2},
		"redis+unix:///s":                  {Socket: "/s"},
		"redis-cluster://h":                cluster(Values{}, "h:6379"),
		"rediss-cluster://u:p@h,[::1]:1,i": cluster(Values{TLS: tlsOn, Username: "u", Password: "p"}, "h:6379", "[::1]:1", "i:6379"),
		"redis-cluster://h/0":              cluster(Values{}, "h:6379"),

		"redis-sentinel://pw@h1,h2/2?sentinelMasterId=m": sentinel(Values{Password: "pw", DB: 2}, Sentinel{Addresses: []string{"h1:26379", "h2:26379"}, ServiceName: "m"}),
		"redis-sentinel://u:pw@h1:1,h2?master=m":         sentinel(Values{Username: "u", Password: "pw"}, Sentinel{Addresses: []string{"h1:1", "h2:26379"}, ServiceName: "m"}),
		"rediss-sentinel://[::1],[::2]:9?master=m":       sentinel(Values{TLS: tlsOn}, Sentinel{Addresses: []string{"[::1]:26379", "[::2]:9"}, ServiceName: "m"}),
		"redis-sentinel://h/3":                           sentinel(Values{DB: 3}, Sentinel{Addresses: []string{"h:26379"}}),
		"redis-sentinel://h/m/":                          sentinel(Values{}, Sentinel{Addresses: []string{"h:26379"}, ServiceName: "m"}),
		"redis-sentinel://h/m/4/":                        sentinel(Values{DB: 4}, Sentinel{Addresses: []string{"h:26379"}, ServiceName: "m"}),
		"redis-sentinel://h/m":                           sentinel(Values{}, Sentinel{Addresses: []string{"h:26379"}, ServiceName: "m"}),
		"redis+sentinel://u:p@h1,h2:26380/svc/4?sentinel_username=su&sentinel_password=s%26%2Bp": sentinel(Values{Username: "u", Password: "p", DB: 4}, Sentinel{Addresses: []string{"h1:26379", "h2:26380"}, ServiceName: "svc", Username: "su", Password: "s&+p"}),
		"rediss+sentinel://h/svc":                    sentinel(Values{TLS: tlsOn}, Sentinel{Addresses: []string{"h:26379"}, ServiceName: "svc"}),
		"redis+sentinel://h/svc?db=5":                sentinel(Values{DB: 5}, Sentinel{Addresses: []string{"h:26379"}, ServiceName: "svc"}),
		"redis+sentinel://h/7/8":                     sentinel(Values{DB: 8}, Sentinel{Addresses: []string{"h:26379"}, ServiceName: "7"}),
		"redis+sentinel://h/m?sentinel_password=a+b": sentinel(Values{}, Sentinel{Addresses: []string{"h:26379"}, ServiceName: "m", Password: "a b"}),
		"redis+sentinel://h/m/1?master=m":            sentinel(Values{DB: 1}, Sentinel{Addresses: []string{"h:26379"}, ServiceName: "m"}),
	} {
		c, err := ParseURL(raw)
		if err != nil {
			t.Errorf("%s: %v", raw, err)
			continue
		}
		c.Origin = nil
		if !reflect.DeepEqual(c, want) {
			t.Errorf("%s:\ngot  %v\nwant %v", raw, c, want)
		}
		// The printed form hides passwords: compare them apart.
		if c.Password != want.Password || c.Sentinel.Password != want.Sentinel.Password {
			t.Errorf("%s: passwords %q %q", raw, c.Password, c.Sentinel.Password)
		}
	}
}

func TestParseURL_Refuses(t *testing.T) {
	for raw, want := range map[string]string{
		"":                                   "no scheme",
		"localhost:6379":                     "no scheme",
		"http://h":                           "redis-sentinel://",
		"memcached://h":                      "unknown scheme",
		"redis://h:0":                        "out of range",
		"redis://h:65536":                    "out of range",
		"redis://h:":                         "port is missing",
		"redis://h:+1":                       "not a number",
		"redis://u:p@h:x":                    "not a number",
		"redis://h1,h2":                      "several hosts",
		"redis://::1":                        "needs brackets",
		"redis://[::1":                       "bracket",
		"redis://[::1]6379":                  "bracket",
		"redis://[1.2.3.4]":                  "IPv6",
		"redis://[h]":                        "IPv6",
		"redis://h%20x":                      "character",
		"redis://h/x":                        "database",
		"redis://h/-1":                       "database",
		"redis://h/1/2":                      "database",
		"redis://h/99999999999":              "database",
		"redis://h/1?db=2":                   "different databases",
		"redis://h?db=":                      "database",
		"redis://h?db=1&db=1":                "twice",
		"redis://h?colour=5":                 `"colour"`,
		"redis://h?addr=other:6379":          `"addr"`,
		"redis://h/1//":                      "database",
		"redis://h?master=m":                 `"master"`,
		"redis://h#x":                        "%23",
		"redis://h h":                        "blank",
		"redis://u:p/q@h":                    "%2F",
		"redis://u:p?q@h":                    "%3F",
		"redis://u:%zz@h":                    "percent",
		"redis://h?db=%zz":                   "percent",
		"unix://run/redis.sock":              "three slashes",
		"unix://":                            "three slashes",
		"unix:///":                           "three slashes",
		"redis-cluster://":                   "host is missing",
		"redis-cluster://h,,i":               "host is missing",
		"redis-sentinel://h,?master=m":       "host is missing",
		"redis-sentinel://h/m?master=n":      "database",
		"redis-sentinel://h/m/0?master=n":    "different masters",
		"redis+sentinel://h/m/x":             "database",
		"redis-sentinel://h?sentinelmaster=": `"sentinelmaster"`,
	} {
		c, err := ParseURL(raw)
		wantProblem(t, err, "URL", want)
		if !reflect.DeepEqual(c, Values{}) {
			t.Errorf("%s: an error and a configuration: %v", raw, c)
		}
	}
}

func TestParseURL_ShowsAllButSecrets(t *testing.T) {
	for raw, want := range map[string]string{
		"redis://u:p@h:6379x/1?db=1": "redis://***@h:6379x/1?***",
		"redis://h:70000/1":          "redis://h:70000/1",
		"redis://u:hunter2":          "redis://***",
		"redis://[::1]:70000,h:1/a":  "redis://[::1]:70000,h:1/a",
		"redis://a:b/c@d/e@f:x":      "redis://***@f:x",
		"not a URL":                  "***",
		"a b://c":                    "***",
		"http://h/x#y":               "http://h/x",
	} {
		if got := shownURL(raw); got != want {
			t.Errorf("%s is shown as %s, want %s", raw, got, want)
		}
	}
}

func TestParseURL_WhatIsMissingIsFoundByValidate(t *testing.T) {
	c, err := ParseURL("redis-sentinel://:" + secretMark + "@h/3")
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Validate()
	wantProblem(t, err, "Config.Sentinel.ServiceName", "?master=")
	c, err = ParseURL("redis-cluster://:" + secretMark + "@h/3")
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Validate()
	wantProblem(t, err, "URL", "database 0")
}

func FuzzParseURL(f *testing.F) {
	f.Add("redis", "u", "p", "w", "h:6379/0")
	f.Add("redis-sentinel", "", "a/b", "?c", "[::1]:1,h2/m/0?sentinel_password=x&db=1")
	f.Add("rediss+sentinel", "u%40", "%", "#", "h/m")
	f.Add("unix", "", "", "", "/run/s?db=1")
	f.Add("redis://h?x", "@", "@", "://", "h@i")
	f.Add("redis-cluster", "a:b", ":", ",", "h,i/3")
	f.Fuzz(func(t *testing.T, scheme, user, before, after, rest string) {
		raw := scheme + "://" + user + ":" + before + secretMark + after + "@" + rest
		c, err := ParseURL(raw)
		shows := c.String()
		if err != nil {
			shows = err.Error()
		} else {
			if !strings.Contains(c.Password, secretMark) {
				t.Errorf("accepted, and the password is lost: %q", raw)
			}
			filled, err := c.Validate()
			shows += filled.String() + strings.Join(filled.Warnings, "")
			if err != nil {
				shows += err.Error()
			}
		}
		if strings.Contains(shows, secretMark) {
			t.Errorf("%q shows its password: %s", raw, shows)
		}
		// Without the @ the same text is hosts only; it must not panic.
		if c, err := ParseURL(scheme + "://" + rest); err == nil {
			_, _ = c.Validate()
		}
		_, _ = ParseURL(rest)
	})
}

func FuzzEnv(f *testing.F) {
	f.Add(uint8(1), "h", uint8(2), "70000", "redis://u:", "@h")
	f.Add(uint8(14), "a,[::1]:1", uint8(13), "1", "", "")
	f.Add(uint8(25), "NaN", uint8(26), "1e999", "rediss-sentinel://:", "@h,i/0?master=m")
	f.Add(uint8(6), "{x}", uint8(255), "\x00", "x", "@")
	f.Fuzz(func(t *testing.T, i uint8, a string, j uint8, b, urlBefore, urlAfter string) {
		vars := map[string]string{"REDIS_PASSWORD": secretMark, "REDIS_SENTINEL_PASSWORD": secretMark, "REDIS_CLUSTERS_PASSWORD": secretMark}
		if urlBefore != "" {
			vars["REDIS_URL"] = urlBefore + "://u:" + secretMark + "@" + urlAfter
		}
		for n, v := range map[uint8]string{i: a, j: b} {
			s := table[int(n)%len(table)]
			vars[s.name] = v
			if s.file && len(v)%2 == 1 {
				vars[s.name+"_FILE"] = v
			}
		}
		c, err := fakeEnv(vars, map[string]string{"/f": secretMark}).Values()
		shows := c.String() + strings.Join(c.Warnings, "")
		if err != nil {
			shows = err.Error()
		} else if filled, err := c.Validate(); err != nil {
			t.Errorf("accepted and not valid: %v from %q", err, vars)
		} else if again, err := filled.Validate(); err != nil || !reflect.DeepEqual(filled, again) {
			t.Errorf("validating twice: %v\n%v\n%v", err, filled, again)
		}
		if strings.Contains(shows, secretMark) {
			t.Errorf("%q shows a secret: %s", vars, shows)
		}
	})
}
