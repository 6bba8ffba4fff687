package session

import (
	"context"
	"crypto/rand"
	"strconv"
	"time"
)

// updateTries bounds how often something is tried while others are faster.
const updateTries = 32

// Update changes the data and stores it at once. Where there is no session it
// makes one, and its cookie. When somebody else was faster, the data is loaded
// again and change is called again: it must not have effects of its own, and it
// cannot use this session ([ErrInUse]). An error of change ends it, and is
// returned as it is. The other errors are an [*Error]: [ErrEnded] for a session
// that was ended meanwhile, [ErrRotated], [ErrConflict], [ErrHeadersSent],
// [ErrNotReplicated], or that of Redis, whose outcome says whether it may have
// been stored. What is read next is then asked of Redis anew.
//
// After ErrEnded and after Logout the next Update makes a new session, of
// nobody.
func (s *Session[T]) Update(ctx context.Context, change func(data *T) error) error {
	return s.update(ctx, func(c *content[T]) error { return change(&c.Data) })
}

func (s *Session[T]) update(ctx context.Context, change func(*content[T]) error) error {
	if err := s.enter(ctx, "commit"); err != nil {
		return err
	}
	defer s.leave()
	if err := s.writable(ctx, "commit"); err != nil {
		return err
	}
	for range updateTries {
		next, err := s.copyOf()
		if err != nil {
			return err
		}
		if err := change(&next); err != nil {
			return err
		}
		done, err := s.commit(ctx, next)
		if done || err != nil {
			return err
		}
		s.m.event("conflict")
	}
	return &Error{Op: "commit", Err: ErrConflict}
}

// copyOf decodes the data anew, so that a change that fails leaves nothing
// behind.
func (s *Session[T]) copyOf() (content[T], error) {
	if !s.exists {
		return content[T]{}, nil
	}
	return s.m.decode(s.rec, s.id)
}

// commit stores next; false is a conflict, after which it is loaded.
func (s *Session[T]) commit(ctx context.Context, next content[T]) (bool, error) {
	switch {
	case !s.exists && s.replaced:
		return false, &Error{Op: "commit", Err: ErrRotated}
	case !s.exists:
		return true, s.create(ctx, next)
	case s.m.opt.FastAPILayout:
		return true, s.storeLegacy(ctx, next)
	}
	since := s.m.copies.begin()
	rec, what, why, err := s.m.replace(ctx, s.id, s.rec, next)
	if !made(err) {
		if !invalid(err) {
			s.loaded = false // it may have been stored
		}
		return false, err
	}
	switch what {
	case replyNone:
		return false, s.refused("commit", why)
	case replyRecord:
		if s.take(ctx, rec); !s.exists {
			return false, &Error{Op: "commit", Err: ErrEnded}
		}
		return false, nil
	}
	s.rec, s.now = rec, next
	s.m.copies.put(s.id, rec, since)
	return true, err
}

// replace stores c in the place of what rec holds. It returns the record that
// is there now, or that of somebody who was faster.
func (m *Manager[T]) replace(ctx context.Context, id ident, rec record, c content[T]) (now record, what int64, why string, err error) {
	data, err := m.encode(c, rec.user, id)
	if err != nil {
		return rec, 0, "", err
	}
	list, err := m.eval(ctx, scriptCommit, m.keysOf(id).list(), []string{id.member, rec.version, data})
	if !made(err) {
		return rec, 0, "", &Error{Op: "commit", Err: err}
	}
	now, what, why, bad := readRecord(list)
	if bad != nil {
		return rec, 0, "", &Error{Op: "commit", Err: bad}
	}
	if what == replyDone {
		now = rec
		now.data = data
		now.version, _ = list[1].ToString()
	}
	return now, what, why, wrap("commit", err)
}

// create makes a session without user.
func (s *Session[T]) create(ctx context.Context, c content[T]) error {
	if s.carrier != nil {
		if err := s.carrier.ready(); err != nil { // before anything is stored
			return &Error{Op: "create", Err: err}
		}
	}
	if s.m.opt.FastAPILayout {
		return s.createLegacy(ctx, c)
	}
	id := newIdent(randomHandle())
	l := lifetimes{idle: s.m.opt.Idle, absolute: s.m.opt.Absolute}
	rec, err := s.store(ctx, id, "", c, l, "", nil)
	if !made(err) {
		return err
	}
	s.setLoaded(id, rec, c)
	s.endRivals(ctx)
	if bad := s.send(); bad != nil {
		return &Error{Op: "create", Err: bad}
	}
	return err
}

// store makes a new session in Redis. own is a member that ends soon and does
// not count, dead are those that ended.
func (s *Session[T]) store(ctx context.Context, id ident, user string, c content[T], l lifetimes, own string, dead []string) (record, error) {
	data, err := s.m.encode(c, user, id)
	if err != nil {
		return record{}, err
	}
	device, remember := s.device.encode(), ""
	if l.remember {
		remember = "1"
	}
	list, err := s.m.eval(ctx, scriptCreate, s.m.keysOf(id).list(), append([]string{
		id.member, millis(l.idle), micros(l.absolute), user, data, device, rand.Text(),
		strconv.Itoa(s.m.opt.MaxPerUser), own, remember, strconv.Itoa(len(dead)),
	}, dead...))
	if !made(err) {
		return record{}, &Error{Op: "create", Err: err}
	}
	if len(list) == 2 {
		evicted, _ := list[1].AsStrSlice()
		for _, member := range evicted {
			s.m.copies.drop(ident{member: member})
			s.m.event("evicted")
		}
	}
	s.m.event("created")
	return record{
		version: "1", user: user, data: data, remember: l.remember,
		ends: l.absolute, left: l.idle,
	}, wrap("create", err)
}

// send gives the client the identifier.
func (s *Session[T]) send() error {
	if s.carrier == nil {
		return nil
	}
	persist := time.Duration(0)
	if s.rec.remember {
		persist = s.rec.ends
	}
	return s.carrier.set(s.id.token, persist)
}
