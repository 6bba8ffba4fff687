package node

import (
	"testing"
	"time"
)

// Valkey was shown with the version of Redis that it stands in for.
func TestParseInfo_ServersHaveTheirOwnNameAndVersion(t *testing.T) {
	for text, want := range map[string][2]string{
		"redis_version:7.0.15\r\nredis_mode:standalone\r\nexecutable:/usr/bin/redis-server\r\n":                      {"redis", "7.0.15"},
		"redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.1\r\nexecutable:/usr/bin/valkey-server\r\n": {"valkey", "8.1.1"},
		"valkey_version:8.1.1\r\nredis_version:7.2.4\r\n":                                                            {"valkey", "8.1.1"},
		"redis_version:7.4.0\r\ndragonfly_version:df-v1.25.1\r\nredis_mode:standalone\r\n":                           {"dragonfly", "1.25.1"},
		"redis_version:7.4.3\r\ngarnet_version:1.0.61\r\n":                                                           {"garnet", "1.0.61"},
		"version:2.8.0\r\nkvrocks_version:2.8.0\r\nredis_version:4.0.0\r\n":                                          {"kvrocks", "2.8.0"},
		"redis_version:6.3.4\r\nexecutable:/usr/local/bin/keydb-server\r\n":                                          {"keydb", "6.3.4"},
		"connected_clients:1\r\n": {"", ""},
	} {
		if info := parseInfo("# Server\r\n" + text); info.Name != want[0] || info.Version != want[1] {
			t.Errorf("%q: %q %q, want %q", text, info.Name, info.Version, want)
		}
	}
}

func TestParseInfo_SaysHowLongItRunsAndWhatItDeletes(t *testing.T) {
	info := parseInfo("# Server\r\nuptime_in_seconds:120\r\n# Memory\r\nmaxmemory_policy:allkeys-lru\r\n# Stats\r\nevicted_keys:3687\r\n")
	if info.Uptime != 2*time.Minute || info.MaxMemoryPolicy != "allkeys-lru" || info.EvictedKeys != 3687 {
		t.Errorf("%+v", info)
	}
}
