package settings

import (
	"strings"
	"testing"
)

func TestEnv_WarnsOfNamesThatAreNearlySettings(t *testing.T) {
	for name, meant := range map[string]string{
		"REDIS_HOTS": "REDIS_HOST", "REDIS_URI": "REDIS_URL", "REDIS_PASWORD_FILE": "REDIS_PASSWORD_FILE",
		"REDIS_COMAND_TIMEOUTS": "REDIS_COMMAND_TIMEOUT", "REDIS_SENTINEL": "REDIS_SENTINELS",
	} {
		for _, prefix := range []string{"", "ORDERS_"} {
			t.Run(prefix+name, func(t *testing.T) {
				t.Setenv(prefix+name, "top-secret")
				c, err := Env{Prefix: prefix}.Values()
				if err != nil {
					t.Fatal(err)
				}
				wantWarning(t, c, prefix+name+" ", "did you mean "+prefix+meant+"?")
				if strings.Contains(strings.Join(c.Warnings, ""), "top-secret") {
					t.Errorf("it shows the value: %q", c.Warnings)
				}
			})
		}
	}
}

// They come from service links, or are read by other programs.
func TestEnv_DoesNotWarnOfForeignNames(t *testing.T) {
	for _, name := range []string{
		"REDIS_SERVICE_HOST", "REDIS_SERVICE_PORT", "REDIS_SERVICE_PORT_REDIS", "REDIS_PORT_6379_TCP", "REDIS_PORT_6379_TCP_ADDR",
		"REDIS_PORT_6379_TCP_PORT", "REDIS_PORT_6379_TCP_PROTO", "REDIS_NAME", "REDIS_MASTER_SERVICE_HOST", "REDIS_MASTER_PORT",
		"REDIS_CLUSTER_SERVICE_HOST", "REDIS_SENTINEL_SERVICE_HOST", "REDIS_VERSION", "REDIS_TTL", "REDIS_DSN", "REDISCLI_AUTH", "ORDERS_REDIS_HOTS",
	} {
		t.Setenv(name, "1")
	}
	t.Setenv("REDIS_URL", "redis://h.test:1")
	t.Setenv("REDIS_URI", "redis://h.test:1") // for another program: the setting itself is set
	c, err := Env{}.Values()
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range c.Warnings {
		if strings.Contains(w, "did you mean") {
			t.Error(w)
		}
	}
}
