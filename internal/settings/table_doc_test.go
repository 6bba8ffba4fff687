package settings

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var updateSettings = flag.Bool("update", false, "write docs/settings.md")

const settingsPage = "../../docs/settings.md"

// docDefault is the default of a setting as the page shows it.
func (s setting) docDefault() string {
	if s.def == "" {
		return s.note
	}
	return "`" + s.def + "`"
}

// docKind is the type with its range.
func (s setting) docKind() string { return s.kind + s.limits }

func renderSettings() string {
	var b strings.Builder
	b.WriteString(settingsHead)
	b.WriteString("| setting | type | default | meaning |\n|---|---|---|---|\n")
	var files []string
	for _, s := range table {
		help := s.help
		if s.secret {
			help += " Secret: never shown."
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", s.name, s.docKind(), s.docDefault(), help)
		if s.file {
			files = append(files, "`"+s.name+"_FILE`")
		}
	}
	fmt.Fprintf(&b, settingsTail, strings.Join(files, ", "), strings.Join(beside(fills), ", "))
	return b.String()
}

// beside lists the settings that behave so beside REDIS_URL.
func beside(how besideURL) []string {
	var names []string
	for _, s := range table {
		if s.beside == how {
			names = append(names, "`"+s.name+"`")
		}
	}
	return names
}

// The README holds the same rows, shorter, between these lines.
const (
	readme      = "../../README.md"
	tableBegins = "<!-- settings -->\n"
	tableEnds   = "<!-- end of settings -->\n"
)

func renderReadme(page string) string {
	before, rest, _ := strings.Cut(page, tableBegins)
	_, after, _ := strings.Cut(rest, tableEnds)
	var b strings.Builder
	b.WriteString(before + tableBegins + "| setting | default | meaning |\n|---|---|---|\n")
	for _, s := range table {
		first, _, _ := strings.Cut(s.help, ". ")
		fmt.Fprintf(&b, "| `%s` | %s | %s. |\n", s.name, s.docDefault(), strings.TrimSuffix(first, "."))
	}
	return b.String() + tableEnds + after
}

func TestSettingsDoc(t *testing.T) {
	for page, render := range map[string]func(string) string{
		settingsPage: func(string) string { return renderSettings() },
		readme:       renderReadme,
	} {
		got, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		want := render(string(got))
		if *updateSettings {
			if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		} else if string(got) != want {
			t.Errorf("%s is stale; run: go test -run TestSettingsDoc -update ./internal/settings", page)
		}
	}
}

func TestSettingsTable_IsComplete(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range table {
		if seen[s.name] || seen["field "+s.path] {
			t.Errorf("%s is there twice", s.name)
		}
		seen[s.name], seen["field "+s.path] = true, true
		if s.help == "" || s.kind == "" || (s.parse == nil) != (s.name == envURL) {
			t.Errorf("%s lacks a text or a field", s.name)
		}
		if s.secret && !s.file {
			t.Errorf("%s is a secret and has no _FILE", s.name)
		}
		if s.def != "" {
			var c Values
			s.fill(&c)
			if err := s.parse(&c, s.def); err != nil {
				t.Errorf("%s: its default is refused: %v", s.name, err)
			}
		}
	}
}

// The examples of the page are read as the page says.
func TestSettingsDoc_ExamplesAreAccepted(t *testing.T) {
	n := 0
	for line := range strings.Lines(settingsTail) {
		line = strings.TrimSpace(line)
		if _, _, isURL := lookupScheme(strings.Split(line, "://")[0]); isURL {
			n++
			c, err := ParseURL(line)
			if err == nil {
				_, err = c.Validate()
			}
			if err != nil {
				t.Errorf("%s: %v", line, err)
			}
		}
	}
	if n < len(urlSchemes) {
		t.Errorf("%d examples of %d schemes", n, len(urlSchemes))
	}
}

const settingsHead = `# Settings

<!-- Written from the settings table by "go test -run TestSettingsDoc -update ./internal/settings" -->

` + "`madcrow.ConfigFromEnv()`" + ` reads these environment variables; the fields of ` + "`madcrow.Config`" + ` mean the same. Everything that is wrong is reported in one error, each problem with the setting, its value (never a secret) and the fix.

An empty variable counts as one that is not set. True is ` + "`true`, `t`, `1`, `yes`, `y` or `on`" + `, false is ` + "`false`, `f`, `0`, `no`, `n` or `off`" + `, in any case. A duration is a number of seconds (` + "`0.1`" + `) or a Go duration (` + "`100ms`" + `). Blanks around the items of a list are dropped, and an IPv6 address in a list stands in brackets (` + "`[::1]:26379`" + `). The library reads no ` + "`.env`" + ` file.

`

const settingsTail = `
Settings that contradict each other are an error: Sentinel and Cluster both on, either without its list, a database number with Cluster, TLS options without TLS (their author believes that the connection is encrypted). A list whose switch is off is only a warning.

## One URL

` + "`REDIS_URL`" + ` says in one line which Redis to use; ` + "`madcrow.ParseURL`" + ` reads the same.

    redis://localhost:6379/0
    redis://user:password@redis.example.com/2
    rediss://:password@[2001:db8::1]:6380
    valkey://:password@valkey.example.com
    valkeys://valkey.example.com:6380?client_name=shop&pool_size=30
    unix:///run/redis/redis.sock?db=1
    redis+unix://:password@/run/redis/redis.sock
    redis-sentinel://:password@s1.example.com,s2.example.com:26380/0?master=mymaster
    rediss-sentinel://:password@[::1]:26379,[::2]:26379?sentinelMasterId=mymaster
    redis+sentinel://user:password@s1.example.com,s2.example.com/mymaster/0?sentinel_username=su&sentinel_password=sp
    rediss+sentinel://s1.example.com/mymaster
    redis-cluster://user:password@c1.example.com:7000,c2.example.com:7000
    rediss-cluster://:password@c1.example.com

- A second ` + "`s`" + ` (` + "`rediss`" + `) is TLS, to the Sentinels too unless ` + "`REDIS_SENTINEL_USE_SSL`" + ` says otherwise.
- Ports default to 6379, those of Sentinels to 26379. The database is in the path or in ` + "`?db=`" + `.
- The name of the master is in the path or in ` + "`?master=`" + `, also called ` + "`sentinelMasterId`" + `. A path of one number is the database.
- The credentials before the @ are those of the data nodes; without a colon they are a password. The Sentinels have their own, ` + "`sentinel_username` and `sentinel_password`" + `.
- Special characters are percent-encoded: / is %%2F, @ is %%40, # is %%23, ? is %%3F, %% is %%25; in the values after the ? also & as %%26 and + as %%2B.
- ` + "`valkey` and `valkeys`" + ` are other names of ` + "`redis` and `rediss`" + `.
- Parameters of redis-py, Celery, go-redis, rueidis, ioredis and lettuce that mean a setting are read: ` + "`client_name`" + ` (` + "`clientName`, `connectionName`" + `), ` + "`dial_timeout`" + ` (` + "`socket_connect_timeout`, `connectTimeout`" + `), ` + "`read_timeout`" + ` (` + "`socket_timeout`, `commandTimeout`" + `, the time of a whole call here), ` + "`pool_size`" + ` (` + "`max_connections`" + `), ` + "`ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile`" + `. The setting wins where both are given. The camel-case times are milliseconds.
- Their other harmless parameters, such as ` + "`family`, `protocol` or `decode_responses`" + `, are ignored, and a warning names them.
- One that would leave a certificate unverified (` + "`ssl_cert_reqs=none`, `skip_verify=true`, `verifyPeer=NONE`, `rejectUnauthorized=false`" + ` and their like) is an error: ` + "`REDIS_SSL_INSECURE_SKIP_VERIFY`" + ` does that on purpose. Any other parameter is an error too.

The URL supplies all that it contains. These fill in only what it omits, the Sentinel and cluster ones only with such a URL; where both speak, the URL counts and a warning says so: %[2]s. The other settings that name a Redis are ignored beside it, with a warning where they say something else. ` + "`REDIS_USE_SSL=true`" + ` beside a URL without TLS is an error, since the password would travel unencrypted. All remaining settings apply, ` + "`REDIS_SSL_CA_FILE`" + ` and its like included.

## Secrets in files

For secrets that are mounted as files, each of these names a file that holds the value; trailing newlines are dropped: %[1]s. A setting and its file together, a file that cannot be read, and an empty file are errors.

## Files that change

Certificates, authorities, keys and the files with secrets are read again for each new connection where they have changed, to data nodes, Sentinels and the nodes of a cluster, so that they can be renewed without a restart; open connections go on. Of ` + "`REDIS_URL_FILE`" + ` only the users and passwords are. Where a new file cannot be used (half written, empty, a key that does not belong to its certificate), what was read before stays in use; one line of the log says so, and one that it can be used again. The authorities of the system are read once, when the program starts, and a ` + "`TLS.Config`" + ` made in code is used as it is.

## Kubernetes

Beside a service named ` + "`redis`" + ` Kubernetes writes ` + "`REDIS_PORT=tcp://10.0.0.1:6379`" + ` into every pod, as Docker does for links. It is ignored, with a warning; so is ` + "`SHOP_REDIS_PORT`" + ` with the prefix ` + "`SHOP_`" + `. ` + "`enableServiceLinks: false`" + ` keeps such variables out.

## FIPS 140-3

Every package starts and works with ` + "`GODEBUG=fips140=only`" + `, and uses only what that mode allows. Sessions are sealed with AES-GCM and random nonces. The name of a Lua script is its SHA-1 because Redis wants it so; nothing is protected by it.

## Several Redis in one process

A prefix makes a second set of the same names:

    orders, err := madcrow.Env{Prefix: "ORDERS_"}.Config()

reads ` + "`ORDERS_REDIS_HOST`, `ORDERS_REDIS_PASSWORD_FILE`" + ` and so on, and never the names without the prefix. ` + "`DEPLOY_ENV`" + ` has no prefix.

## Logins

` + "`ratelimit.LoginOptionsFromEnv`" + ` reads these, with a prefix too:

| setting | type | default | meaning |
|---|---|---|---|
| ` + "`RATE_LIMIT_LOGIN_ENABLED` | true/false | `true`" + ` | Limits failed logins. |
| ` + "`RATE_LIMIT_LOGIN_MAX_ATTEMPTS` | whole number, 0 to 1000000 | `5`" + ` | Failures in the window after which further attempts are denied. 0 locks everyone out. |
| ` + "`RATE_LIMIT_LOGIN_TIME_WINDOW` | duration, 10 ms to 31 d | `900`" + ` | The window. |
| ` + "`RATE_LIMIT_LOGIN_BLOCKS`" + ` | durations, 1 ms to 31 d, with commas between them |  | How long an identifier is blocked when it reaches the limit for the first time, the second, and so on. |
`
