package ratelimit

import (
	"crypto/sha256"
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
)

// ways is how many subjects share one lock, and compete for its places.
const ways = 8

// table holds a value for each of many subjects, in bounded memory: where all
// places of a set are taken, the one that matters least is given away. It
// allocates a set when it is first used and the text of a subject that is new,
// and nothing else. Subjects come through inTable.
type table[V any] struct {
	seed maphash.Seed
	sets []atomic.Pointer[set[V]]
}

type set[V any] struct {
	sync.Mutex
	slots [ways]slot[V]
}

type slot[V any] struct {
	subject string
	taken   bool
	// worth orders those that compete: the least goes first.
	worth int64
	value V
}

func newTable[V any](keys int) *table[V] {
	n := 1
	for n*ways < keys {
		n *= 2
	}
	return &table[V]{seed: maphash.MakeSeed(), sets: make([]atomic.Pointer[set[V]], n)}
}

// inTable is a subject as tables hold it. What is long is a digest instead,
// longer than any that stands as it is, so that the two never meet.
func inTable(subject string) string {
	if len(subject) <= maxPlain {
		return subject
	}
	sum := sha256.Sum256([]byte(subject))
	var key [maxPlain + 1]byte
	copy(key[:], sum[:])
	return string(key[:])
}

// set returns the set of a subject, unlocked; nil where there is none and none
// is to be made.
func (t *table[V]) set(subject string, create bool) *set[V] {
	at := &t.sets[maphash.String(t.seed, subject)&uint64(len(t.sets)-1)]
	s := at.Load()
	if s == nil && create {
		at.CompareAndSwap(nil, &set[V]{})
		s = at.Load()
	}
	return s
}

// find returns the slot of a subject, or nil. The set is locked.
func (s *set[V]) find(subject string) *slot[V] {
	for i := range s.slots {
		if sl := &s.slots[i]; sl.taken && sl.subject == subject {
			return sl
		}
	}
	return nil
}

// remove empties the slot of a subject, if it has one.
func (t *table[V]) remove(subject string) {
	s := t.set(subject, false)
	if s == nil {
		return
	}
	s.Lock()
	defer s.Unlock()
	if sl := s.find(subject); sl != nil {
		*sl = slot[V]{}
	}
}

// claim returns the slot of a subject, emptied for it when it had none. The set
// is locked.
func (s *set[V]) claim(subject string) (sl *slot[V], had bool) {
	if sl = s.find(subject); sl != nil {
		return sl, true
	}
	sl = &s.slots[0]
	for i := range s.slots {
		c := &s.slots[i]
		if !c.taken {
			sl = c
			break
		}
		if c.worth < sl.worth {
			sl = c
		}
	}
	// A copy: the subject may be a part of something larger.
	*sl = slot[V]{subject: strings.Clone(subject), taken: true}
	return sl, false
}
