package madcrow_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
)

func TestReply_AbsenceIsAValueAndAWrongKindNamesBoth(t *testing.T) {
	_, r := server(t)
	do := func(args ...string) madcrow.Reply { return r.Do(t.Context(), arbitrary(r, args...)) }
	for _, args := range [][]string{
		{"SET", "text", "abc"},
		{"SET", "number", "41"},
		{"SET", "float", "1.5"},
		{"HSET", "hash", "a", "1", "b", "2"},
		{"RPUSH", "list", "x", "y"},
	} {
		if err := do(args...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	show := func(v any, found bool, err error) string { return fmt.Sprintf("%v %v %v", v, found, err) }
	text := func(r madcrow.Reply) string { v, found, err := r.Text(); return show(v, found, err) }
	integer := func(r madcrow.Reply) string { v, found, err := r.Int(); return show(v, found, err) }
	float := func(r madcrow.Reply) string { v, found, err := r.Float(); return show(v, found, err) }
	boolean := func(r madcrow.Reply) string { v, found, err := r.Bool(); return show(v, found, err) }
	list := func(r madcrow.Reply) string { v, err := r.Strings(); return fmt.Sprint(v, err) }
	fields := func(r madcrow.Reply) string { v, err := r.Map(); return fmt.Sprint(v, err) }
	for _, tc := range []struct {
		args string
		read func(madcrow.Reply) string
		want string
	}{
		{"GET text", text, "abc true <nil>"},
		{"GET absent", text, " false <nil>"},
		{"INCR number", text, "42 true <nil>"},
		{"GET number", integer, "42 true <nil>"},
		{"GET absent", integer, "0 false <nil>"},
		{"GET float", float, "1.5 true <nil>"},
		{"STRLEN text", float, "3 true <nil>"},
		{"EXISTS text", boolean, "true true <nil>"},
		{"SET text x NX", boolean, "false false <nil>"},
		{"SET free x NX", boolean, "true true <nil>"},
		{"LRANGE list 0 -1", list, "[x y] <nil>"},
		{"MGET text absent", list, "[abc ] <nil>"},
		{"LRANGE absent 0 -1", list, "[] <nil>"},
		{"BLPOP absent 0.01", list, "[] <nil>"},
		{"HGETALL hash", fields, "map[a:1 b:2] <nil>"},
		{"HGETALL absent", fields, "map[] <nil>"},
		{"GET text", integer, "0 false madcrow: reply: an integer was to be read, and the reply is a text"},
		{"LRANGE list 0 -1", text, " false madcrow: reply: a text was to be read, and the reply is a list"},
		{"STRLEN text", list, "[] madcrow: reply: a list was to be read, and the reply is an integer"},
		{"GET text", fields, "map[] madcrow: reply: fields and their values was to be read, and the reply is a text"},
	} {
		if got := tc.read(do(strings.Fields(tc.args)...)); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.args, got, tc.want)
		}
	}
	if _, found, err := do("LPUSH", "text", "x").Int(); found || !errors.Is(err, madcrow.ErrWrongType) {
		t.Errorf("an error of Redis: %v, %v", found, err)
	}
	all, err := do("MGET", "text", "absent").Slice()
	if err != nil || len(all) != 2 || all[0].IsNil() || !all[1].IsNil() {
		t.Errorf("MGET: %v, %v", all, err)
	}
	data, found, err := do("GET", "text").Bytes()
	if err != nil || !found {
		t.Fatal(err)
	}
	data[0] = 'z' // it is the caller's own
	if _, err := do("NOSUCH").Message(); err == nil || do("NOSUCH").IsNil() {
		t.Error("an unknown command is no error")
	}
}

// The client takes a command back once it was answered, also by a refusal, and
// builds others in its memory.
func TestDo_ACommandThatIsSentAgainIsTheSame(t *testing.T) {
	s, r := server(t)
	long := []string{"RPUSH", "long"}
	for i := range 20 {
		long = append(long, fmt.Sprint("element ", i))
	}
	s.Do(t, "CONFIG", "SET", "lua-time-limit", "10")
	busy := make(chan struct{})
	go func() {
		defer close(busy)
		s.Do(t, "EVAL", "local t = redis.call('TIME') local s = t[1] * 1e6 + t[2] repeat t = redis.call('TIME') until t[1] * 1e6 + t[2] > s + 250000", "0")
	}()
	time.Sleep(60 * time.Millisecond)
	var wg sync.WaitGroup
	call := func(i int) {
		key := fmt.Sprint("k", i)
		if err := r.Do(t.Context(), set(r, key, key)).Err(); err != nil {
			t.Error(err)
		}
		replies, err := r.DoMulti(t.Context(), r.B().Append().Key(key).Value("!").Build(), get(r, key),
			r.B().Hset().Key("h").FieldValue().FieldValue(key, "1").FieldValue(key+"b", "2").FieldValue(key+"c", "3").Build(), get(r, "absent"), get(r, key))
		if err != nil {
			t.Error(err)
			return
		}
		if text, _, _ := replies[4].Text(); text != key+"!" || !replies[3].IsNil() {
			t.Errorf("%s is %q", key, text)
		}
	}
	for i := range 20 {
		wg.Go(func() { call(i) })
	}
	if n, _, err := r.Do(t.Context(), arbitrary(r, long...)).Int(); n != 20 || err != nil {
		t.Errorf("RPUSH: %v, %v", n, err)
	}
	wg.Wait()
	<-busy
	got, err := r.Do(t.Context(), r.B().Lrange().Key("long").Start(0).Stop(-1).Build()).Strings()
	if err != nil || strings.Join(got, ",") != strings.Join(long[2:], ",") {
		t.Errorf("%v, %v", got, err)
	}
}

func TestDo_ACommandIsForOneCall(t *testing.T) {
	_, r := server(t)
	cmd := get(r, "k")
	if err := r.Do(t.Context(), cmd).Err(); err != nil {
		t.Fatal(err)
	}
	for _, err := range map[string]error{
		"never built": r.Do(t.Context(), madcrow.Command{}).Err(),
		"in a Tx":     second(r.Tx(t.Context(), nil, func(tx *madcrow.Tx) error { return tx.Do(madcrow.Command{}).Err() })),
		"in DoMulti":  second(r.DoMulti(t.Context(), get(r, "k"), madcrow.Command{})),
	} {
		wantError(t, err, madcrow.KindServer, madcrow.ErrServer, madcrow.OutcomeNotApplied, "is empty")
	}
}

func second[T any](_ T, err error) error { return err }
