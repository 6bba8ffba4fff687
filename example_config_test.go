package madcrow_test

import (
	"errors"
	"fmt"

	"github.com/madcrow-go/madcrow"
)

// environment stands for that of the process.
func environment(vars map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := vars[name]; return v, ok }
}

// Two Redis in one process: the second has a prefix.
func ExampleEnv() {
	lookup := environment(map[string]string{
		"REDIS_HOST":               "cache.example.com",
		"ORDERS_REDIS_URL":         "rediss://app:secret@orders.example.com:6380/2",
		"ORDERS_REDIS_CLIENT_NAME": "orders",
	})
	cache, err := madcrow.Env{Lookup: lookup}.Config()
	if err != nil {
		panic(err)
	}
	orders, err := madcrow.Env{Lookup: lookup, Prefix: "ORDERS_"}.Config()
	if err != nil {
		panic(err)
	}
	fmt.Println(cache.Host, cache.Port, cache.TLS.Enabled)
	fmt.Println(orders.Host, orders.Port, orders.DB, orders.TLS.Enabled, orders.ClientName)
	// Output:
	// cache.example.com 6379 false
	// orders.example.com 6380 2 true orders
}

func ExampleParseURL() {
	cfg, err := madcrow.ParseURL("redis-sentinel://:secret@s1.example.com,[::1]:26380/0?master=mymaster")
	if err != nil {
		panic(err)
	}
	fmt.Println(cfg.Sentinel.ServiceName, cfg.Sentinel.Addresses)
	fmt.Println(cfg) // no secret is printed
	// Output:
	// mymaster [s1.example.com:26379 [::1]:26380]
	// madcrow.Config{Password:*** Sentinel.Enabled:true Sentinel.Addresses:s1.example.com:26379,[::1]:26380 Sentinel.ServiceName:mymaster}
}

// One error has everything that is wrong.
func ExampleConfigError() {
	_, err := madcrow.Env{Lookup: environment(map[string]string{
		"REDIS_PORT":         "70000",
		"REDIS_USE_SENTINEL": "yes",
		"REDIS_SENTINELS":    "s1,s2,s3",
	})}.Config()

	var ce *madcrow.ConfigError
	fmt.Println(errors.Is(err, madcrow.ErrConfig), errors.As(err, &ce))
	for _, p := range ce.Problems {
		fmt.Println(p)
	}
	// Output:
	// true true
	// REDIS_PORT="70000": it is out of range (fix: set a whole number from 1 to 65535)
	// REDIS_SENTINEL_SERVICE_NAME: Sentinel is on and the master has no name (fix: set the name that the Sentinels know the master by; in a URL ?master=name)
}
