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

// Handle names this session for [Manager.Revoke] and in [Manager.List]; ""
// where there is none.
func (s *Session[T]) Handle() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.has {
		return ""
	}
	return s.id.member
}

// List returns the live sessions of a user, the latest made first. It takes two
// round trips.
func (m *Manager[T]) List(ctx context.Context, user string) ([]Info, error) {
	if m.opt.Original {
		return nil, &Error{Op: "list", Err: ErrOriginal}
	}
	handle := handleOf(m.opt.Secret, user)
	members, records, err := m.look(ctx, handle)
	if err != nil {
		return nil, &Error{Op: "list", Err: err}
	}
	var out []Info
	for i, member := range members {
		if info, ok := records[i].info(member, user); ok {
			out = append(out, info)
		}
	}
	slices.SortFunc(out, func(a, b Info) int { return b.Created.Compare(a.Created) })
	return out, nil
}

// seenRecord is one session of the index, as it was seen.
type seenRecord struct {
	fields []madcrow.Message // c, a, i, u, m
	left   int64
	now    time.Time
}

func (r seenRecord) info(member, user string) (info Info, ok bool) {
	if r.left < 0 || len(r.fields) != 5 {
		return info, false
	}
	if u, err := r.fields[3].ToString(); err != nil || u != user {
		return info, false
	}
	created, err1 := r.fields[0].AsInt64()
	ends, err2 := r.fields[1].AsInt64()
	idle, err3 := r.fields[2].AsInt64()
	device, err4 := r.fields[4].ToString()
	if errors.Join(err1, err2, err3, err4) != nil {
		return info, false
	}
	_ = json.Unmarshal([]byte(device), &info.Device) // what cannot be read is empty
	info.Handle, info.Created, info.Ends = member, time.UnixMicro(created), time.UnixMicro(ends)
	full := min(time.Duration(idle)*time.Millisecond, info.Ends.Sub(r.now))
	info.LastUsed = r.now.Add(time.Duration(r.left)*time.Millisecond - full)
	if info.LastUsed.Before(info.Created) {
		info.LastUsed = info.Created
	}
	return info, true
}

// look reads the index of a user and every session in it.
func (m *Manager[T]) look(ctx context.Context, handle [handleSize]byte) ([]string, []seenRecord, error) {
	index := placesOf(m.prefix, handle, "").index
	msg, err := m.r.Do(ctx, func(b madcrow.Builder) madcrow.Command {
		return b.Zrange().Key(index).Min("0").Max("-1").Build()
	})
	if err != nil {
		return nil, nil, err
	}
	members, err := msg.AsStrSlice()
	if err != nil || len(members) == 0 {
		return nil, nil, err
	}
	res, err := m.r.DoMulti(ctx, func(b madcrow.Builder) []madcrow.Command {
		cmds := make([]madcrow.Command, 0, 2*len(members)+1)
		for _, member := range members {
			key := placesOf(m.prefix, handle, member).session
			cmds = append(cmds, b.Hmget().Key(key).Field("c", "a", "i", "u", "m").Build(), b.Pttl().Key(key).Build())
		}
		return cmds
	})
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	records := make([]seenRecord, len(members))
	for i := range members {
		records[i].now = now
		if records[i].fields, err = res[2*i].Message.ToArray(); err != nil {
			return nil, nil, err
		}
		if records[i].left, err = res[2*i+1].Message.AsInt64(); err != nil {
			return nil, nil, err
		}
	}
	return members, records, nil
}

// deadOf returns the members of the index whose sessions are gone.
func (m *Manager[T]) deadOf(ctx context.Context, handle [handleSize]byte) (dead []string, err error) {
	members, records, err := m.look(ctx, handle)
	for i, r := range records {
		if r.left == -2 {
			dead = append(dead, members[i])
		}
	}
	return dead, err
}

// Revoke ends one session of a user, by its handle, and says whether there was
// one.
func (m *Manager[T]) Revoke(ctx context.Context, user, handle string) (bool, error) {
	if m.opt.Original {
		return false, &Error{Op: "revoke", Err: ErrOriginal}
	}
	m.copies.drop(handle)
	at := placesOf(m.prefix, handleOf(m.opt.Secret, user), handle)
	list, err := m.eval(ctx, scriptDestroy, []string{at.session, at.epoch, at.index}, []string{handle})
	if err != nil {
		return false, &Error{Op: "revoke", Err: err}
	}
	n, err := list[0].AsInt64()
	if n > 0 {
		m.event("revoked")
	}
	return n > 0, wrap("revoke", err)
}

// RevokeAll ends every session of a user, wherever it is, and says how many
// there were. It takes one round trip, whatever their number.
func (m *Manager[T]) RevokeAll(ctx context.Context, user string) (int, error) {
	if m.opt.Original {
		return 0, &Error{Op: "revoke all", Err: ErrOriginal}
	}
	m.copies.clear()
	at := placesOf(m.prefix, handleOf(m.opt.Secret, user), "none")
	n, err := m.revoke(ctx, at, "")
	return n, wrap("revoke all", err)
}

// RevokeOthers ends every session of the user but this one.
func (s *Session[T]) RevokeOthers(ctx context.Context) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m.opt.Original {
		return 0, &Error{Op: "revoke others", Err: ErrOriginal}
	}
	if err := s.load(ctx); err != nil {
		return 0, err
	}
	if !s.exists || s.rec.user == "" {
		return 0, &Error{Op: "revoke others", Err: ErrNoUser}
	}
	s.m.copies.clear()
	n, err := s.m.revoke(ctx, placesOf(s.m.prefix, s.id.handle, s.id.member), s.id.member)
	if err == nil && n < 0 {
		s.gone()
		err = ErrEnded
	}
	return max(n, 0), wrap("revoke others", err)
}

func (m *Manager[T]) revoke(ctx context.Context, at places, keep string) (int, error) {
	list, err := m.eval(ctx, scriptRevoke, []string{at.session, at.epoch, at.index}, []string{keep, rand.Text()})
	if err != nil {
		return 0, err
	}
	n, err := list[0].AsInt64()
	if n > 0 {
		m.event("revoked")
	}
	return int(n), err
}
