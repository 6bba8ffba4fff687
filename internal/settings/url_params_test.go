package settings

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

// The URL of another library was refused for a parameter that means a setting.
func TestParseURL_ParametersOfOtherLibrariesAreSettings(t *testing.T) {
	base := Values{Host: "h", Port: 6379}
	with := func(change func(*Values)) Values { c := base; change(&c); return c }
	for query, want := range map[string]Values{
		"client_name=shop":               with(func(c *Values) { c.ClientName = "shop" }),
		"clientName=shop":                with(func(c *Values) { c.ClientName = "shop" }),
		"socket_connect_timeout=2.5":     with(func(c *Values) { c.ConnectTimeout = 2500 * time.Millisecond }),
		"dial_timeout=3s":                with(func(c *Values) { c.ConnectTimeout = 3 * time.Second }),
		"connectTimeout=1500":            with(func(c *Values) { c.ConnectTimeout = 1500 * time.Millisecond }),
		"socket_timeout=1":               with(func(c *Values) { c.CommandTimeout = time.Second }),
		"read_timeout=250ms":             with(func(c *Values) { c.CommandTimeout = 250 * time.Millisecond }),
		"max_connections=50":             with(func(c *Values) { c.MaxConnections = 50 }),
		"pool_size=7&max_connections=7":  with(func(c *Values) { c.MaxConnections = 7 }),
		"ssl_cert_reqs=required":         base,
		"ssl_cert_reqs=CERT_REQUIRED":    base,
		"verifyPeer=FULL":                base,
		"skip_verify=false":              base,
		"ssl_check_hostname=true":        base,
		"ssl=false":                      base,
		"ssl_ca_certs=%2Fca.pem":         with(func(c *Values) { c.TLS.CAFile = "/ca.pem" }),
		"ssl_certfile=/c&ssl_keyfile=/k": with(func(c *Values) { c.TLS.CertFile, c.TLS.KeyFile = "/c", "/k" }),
	} {
		c, err := ParseURL("redis://h?" + query)
		c.Origin = nil
		if err != nil || !reflect.DeepEqual(c, want) {
			t.Errorf("%s:\ngot  %v, %v\nwant %v", query, c, err, want)
		}
	}
	if _, err := ParseURL("rediss://h?ssl=true"); err != nil {
		t.Errorf("TLS, said twice: %v", err)
	}
}

// What has no use here is named in one warning.
func TestParseURL_HarmlessParametersAreNamedAndIgnored(t *testing.T) {
	c, err := ParseURL("redis://h?family=0&protocol=3&timeout=5&decode_responses=True&health_check_interval=30&virtual_host=x&min_idle_conns=2")
	if err != nil || len(c.Warnings) != 1 {
		t.Fatalf("%q, %v", c.Warnings, err)
	}
	for _, name := range []string{"URL: ", "family", "protocol", "timeout", "decode_responses", "health_check_interval", "virtual_host", "min_idle_conns"} {
		if !strings.Contains(c.Warnings[0], name) {
			t.Errorf("%s is missing: %s", name, c.Warnings[0])
		}
	}
	env := fromEnv(t, map[string]string{"REDIS_URL": "redis://h?family=4", "REDIS_HOST": "other"})
	wantWarning(t, env, "REDIS_URL", "family")
	wantWarning(t, env, "REDIS_HOST", "ignored")
}

// A parameter that would weaken TLS is refused by name, on every scheme.
func TestParseURL_ParametersThatWeakenTLSAreRefused(t *testing.T) {
	for _, query := range []string{
		"ssl_cert_reqs=none", "ssl_cert_reqs=CERT_NONE", "ssl_cert_reqs=optional", "ssl_cert_reqs=", "skip_verify=true", "skip_verify",
		"insecure=1", "insecure_skip_verify=yes", "verifyPeer=NONE", "verifyPeer=CA", "ssl_check_hostname=false", "rejectUnauthorized=false",
	} {
		for _, scheme := range []string{"redis", "rediss", "valkeys", "rediss-cluster"} {
			_, err := ParseURL(scheme + "://h?" + query)
			name, _, _ := strings.Cut(query, "=")
			if err == nil || !strings.Contains(err.Error(), "parameter "+name+" would") || !strings.Contains(err.Error(), "REDIS_SSL_INSECURE_SKIP_VERIFY") {
				t.Errorf("%s, %s: %v", scheme, query, err)
			}
		}
	}
	_, err := ParseURL("redis://h?ssl=true")
	wantProblem(t, err, "URL", "parameter ssl")
	_, err = ParseURL("rediss://h?tls=false")
	wantProblem(t, err, "URL", "parameter tls")
}

func TestParseURL_BrokenValuesOfParametersAreNamed(t *testing.T) {
	for query, want := range map[string]string{
		"socket_timeout=soon":           "REDIS_COMMAND_TIMEOUT",
		"read_timeout=-1":               "REDIS_COMMAND_TIMEOUT",
		"pool_size=0":                   "REDIS_MAX_CONNECTIONS",
		"client_name=":                  "REDIS_CLIENT_NAME",
		"pool_size=5&max_connections=7": "REDIS_MAX_CONNECTIONS",
	} {
		_, err := ParseURL("redis://h?" + query)
		wantProblem(t, err, "URL", want)
	}
}

// A setting wins over a parameter of the URL.
func TestEnv_SettingsWinOverParametersOfTheURL(t *testing.T) {
	c := fromEnv(t, map[string]string{"REDIS_URL": "redis://h?pool_size=50&client_name=url", "REDIS_MAX_CONNECTIONS": "30"})
	if c.MaxConnections != 30 || c.ClientName != "url" {
		t.Errorf("%d, %q", c.MaxConnections, c.ClientName)
	}
}

// Kubernetes writes REDIS_PORT=tcp://10.0.0.1:6379 into every pod beside a
// service named redis; the start failed.
func TestEnv_ServiceLinksAreIgnored(t *testing.T) {
	for prefix, vars := range map[string]map[string]string{
		"":      {"REDIS_HOST": "h", "REDIS_PORT": "tcp://10.0.0.1:6380"},
		"SHOP_": {"SHOP_REDIS_HOST": "h", "SHOP_REDIS_PORT": "tcp://[fd00::1]:6380"},
	} {
		vars["REDIS_SERVICE_PORT"], vars["REDIS_PORT_6379_TCP"] = "6380", "tcp://10.0.0.1:6380"
		c, err := Env{Prefix: prefix, Lookup: func(name string) (string, bool) { v, ok := vars[name]; return v, ok }}.Values()
		if err != nil || c.Port != DefaultPort || len(c.Warnings) != 1 {
			t.Errorf("%sREDIS_PORT: %v, %q, %v", prefix, c, c.Warnings, err)
			continue
		}
		wantWarning(t, c, prefix+"REDIS_PORT", "Kubernetes", "enableServiceLinks")
	}
	for _, extra := range []string{"REDIS_USE_SENTINEL", "REDIS_USE_CLUSTERS"} {
		vars := map[string]string{
			extra: "1", "REDIS_SENTINELS": "h", "REDIS_CLUSTERS": "h", "REDIS_SENTINEL_SERVICE_NAME": "m", "REDIS_PORT": "tcp://10.0.0.1:6379",
		}
		wantWarning(t, fromEnv(t, vars), "REDIS_PORT", "Kubernetes")
	}
	for _, bad := range []string{"tcp://10.0.0.1", "tcp://", "tcp://h:x", "http://h:6379"} {
		_, err := fakeEnv(map[string]string{"REDIS_PORT": bad}, nil).Values()
		wantProblem(t, err, "REDIS_PORT", "whole number")
	}
}
