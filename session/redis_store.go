package session

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/madcrow-go/madcrow"
)

// redisStore is the store of the package's own layout: see the package comment
// for its keys and lua/clock.lua for the fields of a session. A script decides
// and changes each session in one step.
type redisStore struct {
	r       *madcrow.Redis
	opt     storeOptions
	timeout time.Duration // Config.CommandTimeout
	prefix  string
	handles *handles
	scripts *scripts
	cluster bool
}

// storeOptions are the options of a redisStore: see [Options].
type storeOptions struct {
	maxPerUser   int
	grace        time.Duration
	waitReplicas int
	waitTimeout  time.Duration
}

func newRedisStore(r *madcrow.Redis, name string, secret []byte, opt storeOptions) *redisStore {
	cfg := r.Config()
	return &redisStore{
		r: r, opt: opt, timeout: cfg.CommandTimeout, prefix: keyPrefix(r, name), handles: newHandles(secret),
		scripts: serverScripts, cluster: cfg.Cluster.Enabled,
	}
}

// keyPrefix is the beginning of all keys of a manager.
func keyPrefix(r *madcrow.Redis, name string) string {
	return r.Config().KeyPrefix + "m1:session:" + name + ":"
}

func (s *redisStore) extended() error { return nil }

func (s *redisStore) parseID(token string) (ident, bool) { return parseIdent(token) }

func (s *redisStore) newID(user string) ident {
	if user == "" {
		return newIdent(randomHandle())
	}
	return newIdent(s.handles.of(user))
}

func (s *redisStore) nextID(id ident) ident { return newIdent(id.handle) }

func (s *redisStore) handle(id ident) string { return id.member }

func (s *redisStore) keysOf(id ident) sessionKeys { return keysOf(s.prefix, id.handle, id.member) }

// keysOfUser returns the keys of a user, and of the session of that member.
func (s *redisStore) keysOfUser(user, member string) sessionKeys {
	return keysOf(s.prefix, s.handles.of(user), member)
}

func (s *redisStore) load(ctx context.Context, id ident) (reply, error) {
	list, err := s.read(ctx, s.scripts.load, s.keysOf(id).list(), []string{id.member})
	if err != nil {
		return reply{}, err
	}
	rep, err := parseReply(list)
	if err == nil && rep.status == statusRecord && rep.rec.user != "" && s.handles.of(rep.rec.user) != id.handle {
		// No revocation would find it.
		return reply{status: statusNone, reason: reasonOtherSecret}, nil
	}
	return rep, err
}

// create makes one round trip, and two more with MaxPerUser.
func (s *redisStore) create(ctx context.Context, n newSession) (evicted []string, err error) {
	var dead []string
	if s.opt.maxPerUser > 0 && n.user != "" {
		if dead, err = s.deadMembers(ctx, n.user); err != nil {
			return nil, err
		}
	}
	remember := ""
	if n.life.remember {
		remember = "1"
	}
	list, err := s.change(ctx, s.scripts.create, s.keysOf(n.id).list(), append([]string{
		n.id.member, millis(n.life.idle), micros(n.life.absolute), n.user, n.data, n.device.encode(), rand.Text(),
		strconv.Itoa(s.opt.maxPerUser), n.replaces, remember, strconv.Itoa(len(dead)),
	}, dead...))
	if made(err) && len(list) == 2 {
		evicted, _ = list[1].AsStrSlice()
	}
	return evicted, err
}

func (s *redisStore) commit(ctx context.Context, id ident, version, data string) (reply, error) {
	rep, list, err := s.changeReply(ctx, s.scripts.commit, s.keysOf(id).list(), []string{id.member, version, data})
	if rep.status == statusDone && len(list) == 2 {
		rep.rec.version, rep.rec.data = textOf(list[1]), data
	}
	return rep, err
}

func (s *redisStore) rotate(ctx context.Context, from, to ident, version, data string) (reply, error) {
	keys := append(s.keysOf(from).list(), s.keysOf(to).session)
	rep, list, err := s.changeReply(ctx, s.scripts.rotate, keys, []string{from.member, to.member, millis(s.opt.grace), version, data})
	if rep.status == statusDone && len(list) == 2 {
		if n, bad := list[1].AsInt64(); bad == nil {
			rep.ends = time.Duration(n) * time.Microsecond
		}
	}
	return rep, err
}

func (s *redisStore) destroy(ctx context.Context, id ident) (reply, error) {
	return s.runDestroy(ctx, s.keysOf(id), id.member, "", "", 0)
}

func (s *redisStore) supersede(ctx context.Context, id ident, version string) (reply, error) {
	return s.runDestroy(ctx, s.keysOf(id), id.member, "", version, s.opt.grace)
}

func (s *redisStore) revoke(ctx context.Context, user, handle string) (reply, error) {
	if !validMember(handle) {
		return reply{status: statusNone, reason: reasonMissing}, nil
	}
	return s.runDestroy(ctx, s.keysOfUser(user, handle), handle, user, "", 0)
}

// runDestroy runs destroy.lua: user "" is any user; a note remains for the grace.
func (s *redisStore) runDestroy(ctx context.Context, keys sessionKeys, member, user, version string, grace time.Duration) (reply, error) {
	rep, list, err := s.changeReply(ctx, s.scripts.destroy, keys.list(), []string{member, user, version, millis(grace)})
	if rep.status == statusDone && len(list) == 2 {
		rep.successor = textOf(list[1])
	}
	return rep, err
}

func (s *redisStore) revokeAll(ctx context.Context, user string) (reply, error) {
	return s.revokeBut(ctx, s.keysOfUser(user, "none"), "")
}

func (s *redisStore) revokeOthers(ctx context.Context, id ident) (reply, error) {
	return s.revokeBut(ctx, s.keysOf(id), id.member)
}

func (s *redisStore) revokeBut(ctx context.Context, keys sessionKeys, keep string) (reply, error) {
	rep, list, err := s.changeReply(ctx, s.scripts.revoke, keys.list(), []string{keep, rand.Text()})
	if rep.status == statusDone && len(list) == 2 {
		n, bad := list[1].AsInt64()
		rep.count, err = int(n), errors.Join(err, applied(bad))
	}
	return rep, err
}

// changeReply is change with the parsed reply.
func (s *redisStore) changeReply(ctx context.Context, sc script, keys, args []string) (reply, []madcrow.Message, error) {
	list, err := s.change(ctx, sc, keys, args)
	if !made(err) {
		return reply{}, nil, err
	}
	rep, bad := parseReply(list)
	if bad != nil {
		return reply{}, nil, unknown(bad)
	}
	return rep, list, err
}

// classify reads all sessions in one pipeline. A load decides afterwards.
func (s *redisStore) classify(ctx context.Context, ids []ident) (valid, replaced []ident, err error) {
	const each = 3 // commands
	var cmds []madcrow.Command
	for _, id := range ids {
		at := s.keysOf(id)
		cmds = append(cmds, s.r.B().Hmget().Key(at.session).Field("v", "u", "e", "x").Build(),
			s.r.B().Get().Key(at.epoch).Build(), s.r.B().Zscore().Key(at.index).Member(id.member).Build())
	}
	res, err := s.r.DoMulti(ctx, cmds...)
	if err != nil {
		return nil, nil, err
	}
	for i, id := range ids {
		f, err := elementsOf(res[each*i])
		if err != nil || len(f) != 4 {
			return nil, nil, errors.Join(errReply, err)
		}
		epoch, _ := res[each*i+1].Message()
		place, user := res[each*i+2], textOf(f[1])
		switch {
		case !f[3].IsNil():
			replaced = append(replaced, id)
		case f[0].IsNil():
		case user == "", s.handles.of(user) == id.handle && !epoch.IsNil() && !place.IsNil() && textOf(epoch) == textOf(f[2]):
			valid = append(valid, id)
		}
	}
	return valid, replaced, nil
}

// list makes two round trips.
func (s *redisStore) list(ctx context.Context, user string) ([]Info, error) {
	members, found, now, err := s.scan(ctx, user)
	if err != nil {
		return nil, err
	}
	var out []Info
	for i, member := range members {
		if found[i] == nil {
			continue
		}
		info, err := parseInfo(member, found[i], now)
		if err != nil {
			return nil, err
		}
		out = append(out, info)
	}
	return out, nil
}

// scan reads the index of a user and the fields of each session in it; nil for a
// session that is not valid. now is the clock of Redis.
func (s *redisStore) scan(ctx context.Context, user string) (members []string, found [][]madcrow.Message, now time.Time, err error) {
	at := s.keysOfUser(user, "")
	msg, err := s.r.Do(ctx, s.r.B().Zrange().Key(at.index).Min("0").Max("-1").Build()).Message()
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
	list, err := s.read(ctx, s.scripts.list, keys, []string{user})
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

// deadMembers returns the members of the index whose sessions are not valid.
func (s *redisStore) deadMembers(ctx context.Context, user string) (dead []string, err error) {
	members, found, _, err := s.scan(ctx, user)
	for i, member := range members {
		if err == nil && found[i] == nil {
			dead = append(dead, member)
		}
	}
	return dead, err
}

// parseInfo reads the fields of list.lua: created, ends, idle, left, device.
func parseInfo(member string, f []madcrow.Message, now time.Time) (info Info, err error) {
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
	_ = json.Unmarshal([]byte(device), &info.Device) // an unreadable device is empty
	info.Handle, info.Created, info.Ends = member, time.UnixMicro(n[0]), time.UnixMicro(n[1])
	full := min(time.Duration(n[2])*time.Millisecond, info.Ends.Sub(now))
	info.LastUsed = now.Add(min(time.Duration(n[3])*time.Millisecond-full, 0))
	if info.LastUsed.Before(info.Created) {
		info.LastUsed = info.Created
	}
	return info, nil
}

// inspect makes three round trips.
func (s *redisStore) inspect(ctx context.Context, user, handle string) (d Details, data string, found bool, err error) {
	if !validMember(handle) {
		return d, "", false, nil
	}
	members, all, now, err := s.scan(ctx, user)
	if err != nil {
		return d, "", false, err
	}
	i := slices.Index(members, handle)
	if i < 0 || all[i] == nil {
		return d, "", false, nil
	}
	if d.Info, err = parseInfo(handle, all[i], now); err != nil {
		return d, "", false, err
	}
	key := s.keysOfUser(user, handle).session
	res, err := s.r.DoMulti(ctx, s.r.B().Hmget().Key(key).Field("v", "d", "r").Build(), s.r.B().Pttl().Key(key).Build())
	if err != nil {
		return d, "", false, err
	}
	fields, err1 := elementsOf(res[0])
	left, _, err2 := res[1].Int()
	if err := errors.Join(err1, err2); err != nil || len(fields) != 3 {
		return d, "", false, errors.Join(errReply, err)
	}
	if left < 0 || fields[0].IsNil() { // it has ended since the list
		return Details{}, "", false, nil
	}
	version, err1 := fields[0].ToString()
	data, err2 = fields[1].ToString()
	changes, err3 := strconv.ParseInt(version, 10, 64)
	if err := errors.Join(err1, err2, err3); err != nil {
		return d, "", false, errors.Join(errReply, err)
	}
	d.Left, d.Changes, d.Remember = time.Duration(left)*time.Millisecond, changes, !fields[2].IsNil()
	return d, data, true, nil
}

// elementsOf are the elements of a reply that is a list.
func elementsOf(r madcrow.Reply) ([]madcrow.Message, error) {
	msg, err := r.Message()
	if err != nil {
		return nil, err
	}
	return msg.ToArray()
}
