package session_test

import (
	"errors"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/session"
)

// clocked is a manager whose scripts read a clock of the test. Keys expire by
// the server's.
func clocked(t testing.TB, r *madcrow.Redis, opt options) (*session.Manager[cart], *time.Time) {
	m := newManager(t, r, opt)
	now := time.Now()
	m.SetClock(func() int64 { return now.UnixMicro() })
	return m, &now
}

func pttl(t testing.TB, r *madcrow.Redis, key string) time.Duration {
	t.Helper()
	msg, err := r.Do(t.Context(), r.B().Pttl().Key(key).Build()).Message()
	must(t, err)
	n, _ := msg.AsInt64()
	return time.Duration(n) * time.Millisecond
}

func pexpire(t testing.TB, r *madcrow.Redis, key string, d time.Duration) {
	t.Helper()
	err := r.Do(t.Context(), r.B().Pexpire().Key(key).Milliseconds(d.Milliseconds()).Build()).Err()
	must(t, err)
}

func TestAbsolute_EndsWhateverTheUse(t *testing.T) {
	r := open(t)
	m, now := clocked(t, r, options{IdleTimeout: 10 * time.Minute, AbsoluteTimeout: time.Hour})
	s := login(t, m, "alice")
	key, _, _ := m.KeysOf(s.Token())
	late := loaded(t, m, s.Token())
	login(t, m, "alice", session.WithLifetimes(time.Minute, time.Minute)) // never used
	*now = now.Add(59*time.Minute + 59*time.Second)
	if !alive(t, m, s.Token()) {
		t.Fatal("ended early")
	}
	if left := pttl(t, r, key); left > time.Second {
		t.Errorf("its key lives for %v, a second before the end", left)
	}
	pexpire(t, r, key, time.Hour)
	if list, err := m.List(t.Context(), "alice"); err != nil || len(list) != 1 {
		t.Errorf("%v %v", list, err)
	}
	*now = now.Add(time.Second - time.Microsecond)
	if !alive(t, m, s.Token()) {
		t.Error("ended a microsecond early")
	}
	pexpire(t, r, key, time.Hour) // the script decides, not the key's life
	*now = now.Add(time.Microsecond)
	if err := late.Update(t.Context(), add("x")); !errors.Is(err, session.ErrEnded) {
		t.Errorf("a commit after the end: %v", err)
	}
	if alive(t, m, s.Token()) {
		t.Error("alive after its end")
	}
	if list, err := m.List(t.Context(), "alice"); err != nil || len(list) != 0 {
		t.Errorf("%v %v", list, err)
	}
}

func TestLogin_SweepsTheIndex(t *testing.T) {
	r := open(t)
	m, now := clocked(t, r, options{})
	var s *session.Session[cart]
	for range 5 {
		s = login(t, m, "alice")
		*now = now.Add(13 * time.Hour)
	}
	_, _, index := m.KeysOf(s.Token())
	msg, err := r.Do(t.Context(), r.B().Zcard().Key(index).Build()).Message()
	must(t, err)
	if n, _ := msg.AsInt64(); n != 1 {
		t.Errorf("%d members, of which 4 have ended", n)
	}
}

func TestRotate_DoesNotProlongTheAbsoluteTime(t *testing.T) {
	m, now := clocked(t, open(t), options{IdleTimeout: time.Hour, AbsoluteTimeout: time.Hour})
	s, anonymous := login(t, m, "alice"), stored(t, m, "x")
	*now = now.Add(59 * time.Minute)
	must(t, s.Rotate(t.Context()))
	must(t, anonymous.Rotate(t.Context()))
	must(t, s.Rotate(t.Context()))
	*now = now.Add(time.Minute)
	if alive(t, m, s.Token()) || alive(t, m, anonymous.Token()) {
		t.Error("alive after its end")
	}
}

func TestTouch_OnceInATenthOfTheIdleTime(t *testing.T) {
	r := open(t)
	m, _ := clocked(t, r, options{IdleTimeout: 100 * time.Second, AbsoluteTimeout: time.Hour})
	s := stored(t, m, "x")
	key, _, _ := m.KeysOf(s.Token())
	for _, tc := range []struct{ left, want time.Duration }{
		{95 * time.Second, 95 * time.Second},
		{91 * time.Second, 91 * time.Second},
		{89 * time.Second, 100 * time.Second},
		{time.Second, 100 * time.Second},
		// The clock was put back: it does not live longer for that.
		{time.Hour, 100 * time.Second},
		{111 * time.Second, 100 * time.Second},
	} {
		for name, use := range map[string]func(){
			"read":   func() { alive(t, m, s.Token()) },
			"commit": func() { must(t, m.Open(s.Token()).Update(t.Context(), add("y"))) },
		} {
			pexpire(t, r, key, tc.left)
			use()
			if left := pttl(t, r, key); left > tc.want || left < tc.want-500*time.Millisecond {
				t.Errorf("%s with %v left: %v, want %v", name, tc.left, left, tc.want)
			}
		}
	}
	// Somebody took its life away.
	err := r.Do(t.Context(), r.B().Persist().Key(key).Build()).Err()
	must(t, err)
	if alive(t, m, s.Token()); pttl(t, r, key) < 0 {
		t.Error("it lives for ever")
	}
}

func TestClock_PutBackOrForward(t *testing.T) {
	r := open(t)
	m, now := clocked(t, r, options{IdleTimeout: 10 * time.Minute, AbsoluteTimeout: time.Hour})
	start := *now
	s := login(t, m, "alice")
	*now = start.Add(-48 * time.Hour) // a failover to a server whose clock is behind
	must(t, s.Update(t.Context(), add("x")))
	key, _, _ := m.KeysOf(s.Token())
	if left := pttl(t, r, key); left > 10*time.Minute {
		t.Errorf("it may rest for %v", left)
	}
	other := login(t, m, "alice") // ends earlier than the first by that clock
	if list, err := m.List(t.Context(), "alice"); err != nil || len(list) != 2 {
		t.Errorf("%v %v", list, err)
	}
	*now = start.Add(30 * time.Minute)
	if !alive(t, m, s.Token()) || alive(t, m, other.Token()) {
		t.Errorf("%v %v", alive(t, m, s.Token()), alive(t, m, other.Token()))
	}
	if n, err := m.RevokeAll(t.Context(), "alice"); n != 1 || err != nil || alive(t, m, s.Token()) {
		t.Errorf("%d %v", n, err)
	}
	*now = start.Add(-48 * time.Hour)
	if alive(t, m, s.Token()) || alive(t, m, other.Token()) {
		t.Error("an earlier time brought it back")
	}
}

func TestList_TimesAreByTheClockOfRedis(t *testing.T) {
	r := open(t)
	m, now := clocked(t, r, options{IdleTimeout: 100 * time.Second, AbsoluteTimeout: time.Hour})
	*now = now.Add(-1000 * time.Hour) // this process's clock is far ahead
	start := *now
	s := login(t, m, "alice")
	key, _, _ := m.KeysOf(s.Token())
	pexpire(t, r, key, 60*time.Second)
	*now = now.Add(40 * time.Second)
	list, err := m.List(t.Context(), "alice")
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	i := list[0]
	if d := i.Created.Sub(start).Abs(); d > time.Millisecond {
		t.Errorf("created %v off", d)
	}
	if d := i.LastUsed.Sub(start).Abs(); d > time.Second {
		t.Errorf("last used %v off", d)
	}
	if d := i.Ends.Sub(start.Add(time.Hour)).Abs(); d > time.Millisecond {
		t.Errorf("ends %v off", d)
	}
}

// Epoch and index outlive every session that they vouch for, whatever the order
// of lifetimes.
func TestEpochAndIndex_OutliveTheirSessions(t *testing.T) {
	r := open(t)
	m := newManager(t, r, options{})
	check := func(after string, s *session.Session[cart], want time.Duration) {
		t.Helper()
		_, epoch, index := m.KeysOf(s.Token())
		for name, key := range map[string]string{"epoch": epoch, "index": index} {
			if left := pttl(t, r, key); left < want || left > want+2*time.Second {
				t.Errorf("%s: the %s lives for %v, want %v", after, name, left, want)
			}
		}
	}
	long := login(t, m, "alice", session.Remember())
	check("a remembered one", long, 90*24*time.Hour)
	short := login(t, m, "alice", session.WithLifetimes(time.Second, time.Second))
	check("a short one after it", short, 90*24*time.Hour)
	must(t, long.Rotate(t.Context()))
	check("a rotation", long, 90*24*time.Hour)
	if n, err := short.RevokeOthers(t.Context()); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	check("the short one alone", short, time.Second)
	long = login(t, m, "alice", session.WithLifetimes(time.Hour, 2*time.Hour))
	check("a longer one after it", long, 2*time.Hour)
	if n, err := long.RevokeOthers(t.Context()); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	check("the longer one alone", long, 2*time.Hour)
}

func TestIdle_EndsWhatIsNotUsed(t *testing.T) {
	r := open(t)
	m := newManager(t, r, options{IdleTimeout: time.Second, MaxPerUser: 2})
	idle, used := login(t, m, "alice"), login(t, m, "alice")
	late := loaded(t, m, idle.Token())
	for end := time.Now().Add(1200 * time.Millisecond); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if !alive(t, m, used.Token()) {
			t.Fatal("it was used, and ended")
		}
	}
	if err := late.Update(t.Context(), add("x")); !errors.Is(err, session.ErrEnded) || alive(t, m, idle.Token()) {
		t.Errorf("not used for longer than the idle time: %v, alive %v", err, alive(t, m, idle.Token()))
	}
	// It counts no more, neither in the list nor for MaxPerUser.
	if list, err := m.List(t.Context(), "alice"); err != nil || len(list) != 1 {
		t.Errorf("%v %v", list, err)
	}
	third := login(t, m, "alice")
	if !alive(t, m, used.Token()) || !alive(t, m, third.Token()) {
		t.Errorf("%v %v", alive(t, m, used.Token()), alive(t, m, third.Token()))
	}
}

// What was evicted or deleted in Redis never makes a session valid.
func TestEpochAndIndex_MissingOnesFailClosed(t *testing.T) {
	r := open(t)
	m := newManager(t, r, options{MaxPerUser: 3})
	for _, which := range []string{"epoch", "index", "both"} {
		user := "alice " + which
		s := login(t, m, user)
		late := loaded(t, m, s.Token())
		other := login(t, m, user)
		_, epoch, index := m.KeysOf(s.Token())
		keys := map[string][]string{"epoch": {epoch}, "index": {index}, "both": {epoch, index}}[which]
		err := r.Do(t.Context(), r.B().Del().Key(keys...).Build()).Err()
		must(t, err)
		if list, err := m.List(t.Context(), user); err != nil || len(list) != 0 {
			t.Errorf("%s: %v %v", which, list, err)
		}
		fresh := login(t, m, user) // makes both again, and no old session valid
		if err := late.Update(t.Context(), add("x")); !errors.Is(err, session.ErrEnded) {
			t.Errorf("%s: a write: %v", which, err)
		}
		if alive(t, m, s.Token()) || alive(t, m, other.Token()) || !alive(t, m, fresh.Token()) {
			t.Errorf("%s: %v %v %v", which, alive(t, m, s.Token()), alive(t, m, other.Token()), alive(t, m, fresh.Token()))
		}
		if list, err := m.List(t.Context(), user); err != nil || len(list) != 1 {
			t.Errorf("%s: %v %v", which, list, err)
		}
	}
}

// Either alone ends a session, should the other come back: with a restored
// backup, or with the writes of a master that was cut off.
func TestEpochAndIndex_EachAloneEndsASession(t *testing.T) {
	r := open(t)
	m := newManager(t, r, options{})
	s := login(t, m, "alice")
	_, epoch, index := m.KeysOf(s.Token())
	old := getKey(t, r, epoch)
	n, err := m.RevokeAll(t.Context(), "alice")
	if n != 1 || err != nil {
		t.Fatal(n, err)
	}
	for _, key := range []string{epoch, index} {
		if pttl(t, r, key) != -2*time.Millisecond {
			t.Errorf("%s is left over", key)
		}
	}
	login(t, m, "alice")
	restore := func(key string) {
		t.Helper()
		cmd := r.B().Set().Key(epoch).Value(old).Build()
		if key == index {
			cmd = r.B().Zadd().Key(index).ScoreMember().ScoreMember(9e15, s.Handle()).Build()
		}
		must(t, r.Do(t.Context(), cmd).Err())
	}
	restore(index)
	if list, err := m.List(t.Context(), "alice"); err != nil || len(list) != 1 {
		t.Errorf("%d are listed, %v", len(list), err)
	}
	copied, _, _ := m.KeysOf(s.Token())
	msg, err := r.Do(t.Context(), r.B().Dump().Key(copied).Build()).Message()
	must(t, err)
	dump, _ := msg.ToString()
	if alive(t, m, s.Token()) {
		t.Error("the index alone made it valid")
	}
	_, err = m.RevokeAll(t.Context(), "alice")
	must(t, err)
	err = r.Do(t.Context(), r.B().Restore().Key(copied).Ttl(60000).SerializedValue(dump).Build()).Err()
	must(t, err)
	restore(epoch)
	if alive(t, m, s.Token()) {
		t.Error("the epoch alone made it valid")
	}
}
