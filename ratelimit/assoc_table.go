package ratelimit

import (
	"crypto/sha256"
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
)

// ways is how many subjects share one lock, and compete for its slots.
const ways = 8

// assocTable is a set-associative table: a value for each of many subjects, in
// bounded memory. In a full set a new subject replaces the one of the lowest
// priority. It allocates each set at its first use and the text of a new
// subject, and nothing else. Callers pass subjects through tableKey.
type assocTable[V any] struct {
	seed maphash.Seed
	sets []atomic.Pointer[set[V]]
}

type set[V any] struct {
	sync.Mutex
	slots [ways]slot[V]
}

type slot[V any] struct {
	subject string
	used    bool
	// priority orders the slots of a set: the lowest is replaced first.
	priority int64
	value    V
}

func newAssocTable[V any](keys int) *assocTable[V] {
	n := 1
	for n*ways < keys {
		n *= 2
	}
	return &assocTable[V]{seed: maphash.MakeSeed(), sets: make([]atomic.Pointer[set[V]], n)}
}

// longestKept is the length of the longest subject that a table keeps as it is.
const longestKept = 96

// tableKey is a subject as tables hold it: a long one as a digest, which is
// longer than every subject that is kept as it is, so that the two never meet.
func tableKey(subject string) string {
	if len(subject) <= longestKept {
		return subject
	}
	sum := sha256.Sum256([]byte(subject))
	var key [longestKept + 1]byte
	copy(key[:], sum[:])
	return string(key[:])
}

// setOf returns the set of a subject, unlocked; nil if it does not exist and
// create is false.
func (t *assocTable[V]) setOf(subject string, create bool) *set[V] {
	at := &t.sets[maphash.String(t.seed, subject)&uint64(len(t.sets)-1)]
	s := at.Load()
	if s == nil && create {
		at.CompareAndSwap(nil, &set[V]{})
		s = at.Load()
	}
	return s
}

// lookup returns the slot of a subject, or nil. The set is locked.
func (s *set[V]) lookup(subject string) *slot[V] {
	for i := range s.slots {
		if sl := &s.slots[i]; sl.used && sl.subject == subject {
			return sl
		}
	}
	return nil
}

// remove empties the slot of a subject, if it has one.
func (t *assocTable[V]) remove(subject string) {
	s := t.setOf(subject, false)
	if s == nil {
		return
	}
	s.Lock()
	defer s.Unlock()
	if sl := s.lookup(subject); sl != nil {
		*sl = slot[V]{}
	}
}

// slotFor returns the slot of a subject, emptied for it when it had none. The
// set is locked.
func (s *set[V]) slotFor(subject string) (sl *slot[V], had bool) {
	if sl = s.lookup(subject); sl != nil {
		return sl, true
	}
	sl = &s.slots[0]
	for i := range s.slots {
		c := &s.slots[i]
		if !c.used {
			sl = c
			break
		}
		if c.priority < sl.priority {
			sl = c
		}
	}
	// A copy: the subject may be part of a larger string.
	*sl = slot[V]{subject: strings.Clone(subject), used: true}
	return sl, false
}
