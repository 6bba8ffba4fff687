package service

import (
	"encoding/json"
	"os/exec"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What Python's json.dumps writes: ", " and ": ", and \u escapes.
const pythonSession = `{"user_id": 1, "name": "Zo\u00eb <b>&", "n": 12345678901234567890, "f": 1.5, "nested": {"a": [1, 2, null, true]}, "emoji": "\ud83d\ude00"}`

func TestSharing_SessionOfPythonIsReadByteForByte(t *testing.T) {
	s, srv := start(t)
	ctx := t.Context()
	srv.Do(t, "SETEX", "session:py", "3600", pythonSession)
	data, found, err := s.GetSession(ctx, "py")
	if err != nil || !found || string(data) != pythonSession {
		t.Fatalf("%s %v %v", data, found, err)
	}
	var got struct {
		Name  string
		Emoji string
		N     json.Number
	}
	must(t, json.Unmarshal(data, &got))
	if got.Name != "Zoë <b>&" || got.Emoji != "😀" || got.N != "12345678901234567890" {
		t.Errorf("%+v", got)
	}
	if existed, err := s.DeleteSession(ctx, "py"); !existed || err != nil {
		t.Errorf("delete: %v %v", existed, err)
	}
	if _, found, err := s.GetSession(ctx, "py"); found || err != nil {
		t.Errorf("after delete: %v %v", found, err)
	}
}

func TestSharing_SessionOfOursIsPlainJSONWithALifetime(t *testing.T) {
	s, srv := start(t)
	ctx := t.Context()
	must(t, s.SetSession(ctx, "go", map[string]any{"html": "<b>&", "name": "Zoë", "user_id": 1}, 0))
	const want = `{"html":"<b>&","name":"Zoë","user_id":1}`
	if got := srv.Do(t, "GET", "session:go"); got != want {
		t.Errorf("stored %v, want %s", got, want)
	}
	if got := srv.Do(t, "TTL", "session:go"); got != int64(3600) {
		t.Errorf("lifetime %v, want the default of 3600", got)
	}
	// A RawMessage keeps numbers that a float64 cannot hold.
	must(t, s.SetSession(ctx, "raw", json.RawMessage(pythonSession), time.Minute))
	stored, _ := srv.Do(t, "GET", "session:raw").(string)
	if !strings.Contains(stored, `"n":12345678901234567890`) {
		t.Errorf("stored %s", stored)
	}
	if got := srv.Do(t, "TTL", "session:raw"); got != int64(60) {
		t.Errorf("lifetime %v", got)
	}
	pythonReads(t, stored)
	pythonReads(t, want)
}

// pythonReads gives text to json.loads where there is a Python, and compares
// what it understood.
func pythonReads(t *testing.T, text string) {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Log("no python3 here: json.loads was not tried")
		return
	}
	cmd := exec.CommandContext(t.Context(), python, "-c", "import json,sys; print(json.dumps(json.loads(sys.stdin.buffer.read().decode('utf-8'))))")
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("json.loads(%s): %v", text, err)
	}
	var a, b any
	must(t, json.Unmarshal([]byte(text), &a))
	must(t, json.Unmarshal(out, &b))
	if !reflect.DeepEqual(a, b) {
		t.Errorf("Python understood %s as %s", text, out)
	}
}

func TestSharing_CacheValuesAreTheSameBytes(t *testing.T) {
	s, srv := start(t)
	ctx := t.Context()
	const value = "line\nZoë \x00 \" 😀"
	srv.Do(t, "SETEX", "py", "60", value)
	if e, err := s.GetCacheWithTTL(ctx, "py"); err != nil || e.Value != value || e.TTL > time.Minute || e.TTL < 50*time.Second {
		t.Errorf("%+v %v", e, err)
	}
	must(t, s.SetCache(ctx, "go", value, time.Minute))
	if got := srv.Do(t, "GET", "go"); got != value {
		t.Errorf("%q", got)
	}
	if got := srv.Do(t, "TTL", "go"); got != int64(60) {
		t.Errorf("TTL %v", got)
	}
}

// pythonFloat writes a float as Python's repr does, within the range of times.
func pythonFloat(seconds float64) string { return strconv.FormatFloat(seconds, 'f', -1, 64) }

func TestSharing_LimitEntriesOfPythonCountAndAgeAway(t *testing.T) {
	s, srv := start(t)
	ctx := t.Context()
	now := float64(time.Now().UnixNano()) / 1e9
	for _, age := range []float64{70, 61, 30.25, 10.5} { // two have left a window of 60 s
		score := pythonFloat(now - age)
		srv.Do(t, "ZADD", "rate_limit:u", score, score)
	}
	d, err := s.CheckRateLimit(ctx, "rate_limit:u", 3, time.Minute)
	if err != nil || !d.Allowed || d.Count != 3 || d.Remaining != 0 {
		t.Fatalf("%+v %v", d, err)
	}
	d, err = s.CheckRateLimit(ctx, "rate_limit:u", 3, time.Minute)
	if err != nil || d.Allowed || d.Count != 3 {
		t.Fatalf("%+v %v", d, err)
	}
	// The oldest that counts is 30.25 s old.
	if d.RetryAfter < 25*time.Second || d.RetryAfter > 29750*time.Millisecond {
		t.Errorf("retry after %v, want just under 29.75 s", d.RetryAfter)
	}
	// A Python that is 90 s ahead must not move our clock.
	ahead := pythonFloat(now + 90)
	srv.Do(t, "ZADD", "rate_limit:ahead", ahead, ahead)
	if d, err = s.CheckRateLimit(ctx, "rate_limit:ahead", 2, time.Minute); err != nil || !d.Allowed || d.Count != 2 {
		t.Errorf("%+v %v", d, err)
	}
	entries, _ := srv.Do(t, "ZRANGE", "rate_limit:ahead", "0", "0", "WITHSCORES").([]any)
	if len(entries) != 2 || !strings.HasPrefix(entries[0].(string), "m:") {
		t.Fatalf("%v", entries)
	}
	score, err := strconv.ParseFloat(entries[1].(string), 64)
	if err != nil || score < now-1 || score > now+30 {
		t.Errorf("our score %v is not the Unix time in seconds (%v): %v", score, now, err)
	}
}

func TestSharing_PythonCanCountAndTrimOurEntries(t *testing.T) {
	s, srv := start(t)
	for range 3 {
		if _, err := s.CheckRateLimit(t.Context(), "rate_limit:u", 5, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	// The pipeline of FastAPI Madcrow: trim by its clock, count, add, expire.
	now := float64(time.Now().UnixNano()) / 1e9
	if n := srv.Do(t, "ZREMRANGEBYSCORE", "rate_limit:u", "0", pythonFloat(now-60)); n != int64(0) {
		t.Errorf("Python trimmed %v entries that are not old", n)
	}
	if n := srv.Do(t, "ZCARD", "rate_limit:u"); n != int64(3) {
		t.Errorf("Python counts %v, want 3", n)
	}
	if n := srv.Do(t, "ZREMRANGEBYSCORE", "rate_limit:u", "0", pythonFloat(now+61-60)); n != int64(3) {
		t.Errorf("Python trims %v of 3 old entries", n)
	}
}
