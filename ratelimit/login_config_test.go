package ratelimit_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/ratelimit"
)

func TestLoginOptionsFromEnv(t *testing.T) {
	for name, c := range map[string]struct {
		env  map[string]string
		want ratelimit.LoginOptions
	}{
		"defaults": {nil, ratelimit.LoginOptions{MaxAttempts: 5, Window: 15 * time.Minute}},
		"empty":    {map[string]string{"RATE_LIMIT_LOGIN_ENABLED": " ", "RATE_LIMIT_LOGIN_MAX_ATTEMPTS": ""}, ratelimit.LoginOptions{MaxAttempts: 5, Window: 15 * time.Minute}},
		"as FastAPI Madcrow's": {
			map[string]string{"RATE_LIMIT_LOGIN_ENABLED": "False", "RATE_LIMIT_LOGIN_MAX_ATTEMPTS": "0", "RATE_LIMIT_LOGIN_TIME_WINDOW": "60"},
			ratelimit.LoginOptions{Disabled: true, MaxAttempts: -1, Window: time.Minute},
		},
		"durations": {
			map[string]string{"RATE_LIMIT_LOGIN_ENABLED": "on", "RATE_LIMIT_LOGIN_TIME_WINDOW": "1h30m", "RATE_LIMIT_LOGIN_BLOCKS": "60, 15m ,24h"},
			ratelimit.LoginOptions{MaxAttempts: 5, Window: 90 * time.Minute, Blocks: []time.Duration{time.Minute, 15 * time.Minute, 24 * time.Hour}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			env := madcrow.Env{Prefix: "SHOP_", Lookup: func(n string) (string, bool) {
				v, ok := c.env[strings.TrimPrefix(n, "SHOP_")]
				return v, ok && strings.HasPrefix(n, "SHOP_")
			}}
			if got, err := ratelimit.LoginOptionsFromEnv(env); err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("%+v %v", got, err)
			}
		})
	}
}

func TestLoginOptionsFromEnv_NamesEveryProblemWithValueAndFix(t *testing.T) {
	for name, value := range map[string]string{
		"ENABLED": "maybe", "MAX_ATTEMPTS": "-1", "TIME_WINDOW": "soon", "BLOCKS": "1m,0",
	} {
		t.Setenv("RATE_LIMIT_LOGIN_"+name, value)
	}
	_, err := ratelimit.LoginOptionsFromEnv(madcrow.Env{})
	var all *madcrow.ConfigError
	if !errors.Is(err, madcrow.ErrConfig) || !errors.As(err, &all) || len(all.Problems) != 4 {
		t.Fatalf("%v", err)
	}
	for _, want := range []string{
		`RATE_LIMIT_LOGIN_ENABLED="maybe": it is neither true nor false (fix: set true or false)`,
		`RATE_LIMIT_LOGIN_MAX_ATTEMPTS="-1": it is out of range (fix: set a whole number from 0 to 1000000)`,
		`RATE_LIMIT_LOGIN_TIME_WINDOW="soon": it is neither seconds nor a duration (fix: set seconds (900) or a duration (15m), from 10ms to 31 days)`,
		`RATE_LIMIT_LOGIN_BLOCKS="1m,0": it is out of range`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("lacks %s\n%v", want, err)
		}
	}
}

func TestNewLogin_NamesEveryProblem(t *testing.T) {
	_, err := ratelimit.NewLogin(open(t), "login", ratelimit.LoginOptions{MaxAttempts: -2, Window: time.Nanosecond, Blocks: []time.Duration{0}, ForgetBlocks: -1, FailPolicy: madcrow.FailPolicy{}})
	var wrong *madcrow.ArgumentError
	if !errors.As(err, &wrong) {
		t.Fatalf("%v", err)
	}
	fields := []string{"MaxAttempts", "Window", "Blocks", "ForgetBlocks", "FailPolicy"}
	for _, field := range fields {
		if !strings.Contains(wrong.Reason, "LoginOptions."+field+" ") {
			t.Errorf("%s is missing: %v", field, err)
		}
	}
	if n := strings.Count(wrong.Argument, ","); n != len(fields)-1 {
		t.Errorf("more or less than what is wrong: %v", err)
	}
}
