package session

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/madcrow-go/madcrow"
)

// Device is what is noted of a session's client when it is made.
type Device struct {
	// Address is the client's, by Options.Client; empty without it.
	Address string `json:"a,omitempty"`
	// UserAgent is the header's, at most 256 bytes of it.
	UserAgent string `json:"u,omitempty"`
}

const maxUserAgent = 256

func (d Device) encode() string {
	text, _ := json.Marshal(d) // two strings: it cannot fail
	return string(text)
}

// Info is one session of a user.
type Info struct {
	// Handle names the session for [Manager.Revoke]. It is a hash: nobody can
	// use it in the place of the identifier.
	Handle string
	Device Device
	// Created and LastUsed are by Redis' clock; LastUsed is true to a tenth of
	// the idle time. Ends is the latest end.
	Created, LastUsed, Ends time.Time
}

// List returns the live sessions of a user, the latest made first. It takes two
// round trips.
func (m *Manager[T]) List(ctx context.Context, user string) ([]Info, error) {
	if m.opt.FastAPILayout {
		return nil, &Error{Op: "list", Err: ErrFastAPILayout}
	}
	if err := checkUser(user); err != nil {
		return nil, err
	}
	members, found, now, err := m.scan(ctx, m.handles.of(user), user)
	if err != nil {
		return nil, &Error{Op: "list", Err: err}
	}
	var out []Info
	for i, member := range members {
		if found[i] == nil {
			continue
		}
		info, err := readInfo(member, found[i], now)
		if err != nil {
			return nil, &Error{Op: "list", Err: err}
		}
		out = append(out, info)
	}
	slices.SortFunc(out, func(a, b Info) int { return b.Created.Compare(a.Created) })
	return out, nil
}

// readInfo reads what the script says of one session: created, ends, idle,
// left, device.
func readInfo(member string, f []madcrow.Message, now time.Time) (info Info, err error) {
	var n [4]int64
	for i := range n {
		var bad error
		n[i], bad = f[i].AsInt64()
		err = errors.Join(err, bad)
	}
	device, bad := f[4].ToString()
	if err = errors.Join(err, bad); err != nil {
		return info, errors.Join(errReply, err)
	}
	_ = json.Unmarshal([]byte(device), &info.Device) // what cannot be read is empty
	info.Handle, info.Created, info.Ends = member, time.UnixMicro(n[0]), time.UnixMicro(n[1])
	full := min(time.Duration(n[2])*time.Millisecond, info.Ends.Sub(now))
	info.LastUsed = now.Add(min(time.Duration(n[3])*time.Millisecond-full, 0))
	if info.LastUsed.Before(info.Created) {
		info.LastUsed = info.Created
	}
	return info, nil
}

// scan reads the index of a user and every session in it: nil for one that is
// none. now is Redis' clock.
func (m *Manager[T]) scan(ctx context.Context, handle [handleSize]byte, user string) (members []string, found [][]madcrow.Message, now time.Time, err error) {
	at := keysOf(m.prefix, handle, "")
	msg, err := m.r.Do(ctx, func(b madcrow.Builder) madcrow.Command {
		return b.Zrange().Key(at.index).Min("0").Max("-1").Build()
	})
	if err != nil {
		return nil, nil, now, err
	}
	members, err = msg.AsStrSlice()
	if err != nil || len(members) == 0 {
		return nil, nil, now, err
	}
	keys := make([]string, 0, len(members)+2)
	keys = append(keys, at.epoch, at.index)
	for _, member := range members {
		keys = append(keys, at.session+member)
	}
	list, err := m.read(ctx, scriptList, keys, []string{user})
	if err == nil && len(list) != len(members)+1 {
		err = errReply
	}
	if err != nil {
		return nil, nil, now, err
	}
	clock, err := list[0].AsInt64()
	found = make([][]madcrow.Message, len(members))
	for i, f := range list[1:] {
		if fields, bad := f.ToArray(); bad == nil && len(fields) == 5 {
			found[i] = fields
		}
	}
	return members, found, time.UnixMicro(clock), err
}

// deadOf returns the members of the index whose sessions are gone.
func (m *Manager[T]) deadOf(ctx context.Context, handle [handleSize]byte, user string) (dead []string, err error) {
	members, found, _, err := m.scan(ctx, handle, user)
	for i, member := range members {
		if err == nil && found[i] == nil {
			dead = append(dead, member)
		}
	}
	return dead, err
}

// Revoke ends one session of a user, by its handle, and what it became by a
// rotation since, for Options.Grace. It says whether there was one. The handle
// may come from a stranger: a session of somebody else is none.
func (m *Manager[T]) Revoke(ctx context.Context, user, handle string) (bool, error) {
	if m.opt.FastAPILayout {
		return false, &Error{Op: "revoke", Err: ErrFastAPILayout}
	}
	if err := checkUser(user); err != nil || !validMember(handle) {
		return false, err
	}
	defer m.copies.drop(ident{member: handle})
	at := keysOf(m.prefix, m.handles.of(user), handle)
	list, err := m.eval(ctx, scriptDestroy, at.list(), []string{handle, user, "", "0"})
	m.dropSuccessor(list)
	if !made(err) {
		return false, &Error{Op: "revoke", Err: err}
	}
	_, what, _, bad := readRecord(list)
	if what == replyDone {
		m.event("revoked")
	}
	return what == replyDone, wrap("revoke", errors.Join(bad, err))
}

// RevokeAll ends every session of a user, wherever it is, and says how many
// were listed: those that were not used for too long may be counted. It takes
// one round trip, whatever their number.
func (m *Manager[T]) RevokeAll(ctx context.Context, user string) (int, error) {
	if m.opt.FastAPILayout {
		return 0, &Error{Op: "revoke all", Err: ErrFastAPILayout}
	}
	if err := checkUser(user); err != nil {
		return 0, err
	}
	n, _, err := m.revoke(ctx, keysOf(m.prefix, m.handles.of(user), "none"), "")
	return n, wrap("revoke all", err)
}

// RevokeOthers ends every session of the user but this one, and counts like
// RevokeAll. When this one has ended or was rotated, it is [ErrEnded] or
// [ErrRotated], and ends none.
func (s *Session[T]) RevokeOthers(ctx context.Context) (int, error) {
	const op = "revoke others"
	if s.m.opt.FastAPILayout {
		return 0, &Error{Op: op, Err: ErrFastAPILayout}
	}
	if err := s.enter(ctx, op); err != nil {
		return 0, err
	}
	defer s.leave()
	if err := s.writable(ctx, op); err != nil {
		return 0, err
	}
	if !s.exists || s.rec.user == "" {
		return 0, &Error{Op: op, Err: ErrNoUser}
	}
	n, why, err := s.m.revoke(ctx, s.m.keysOf(s.id), s.id.member)
	if why != "" {
		return 0, s.refused(op, why)
	}
	return n, wrap(op, err)
}

func (m *Manager[T]) revoke(ctx context.Context, at sessionKeys, keep string) (n int, why string, err error) {
	defer m.copies.clear()
	list, err := m.eval(ctx, scriptRevoke, at.list(), []string{keep, rand.Text()})
	if !made(err) {
		return 0, "", err
	}
	_, what, why, bad := readRecord(list)
	if bad != nil || what != replyDone || len(list) != 2 {
		return 0, why, errors.Join(bad, err)
	}
	count, bad := list[1].AsInt64()
	if count > 0 {
		m.event("revoked")
	}
	return int(count), "", errors.Join(bad, err)
}
