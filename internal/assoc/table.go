// Package assoc has a set-associative table: values by text, in bounded memory,
// for the hot path of a decision. It differs from a cache such as otter where a
// limit needs it: the newest subject always gets a slot, a lookup allocates
// nothing, and a value is changed in place under its lock.
package assoc

import (
	"crypto/sha256"
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
)

// ways is how many subjects share one lock, and compete for its slots.
const ways = 8

// Table holds a value for each of many subjects. In a full set a new subject
// replaces the one of the lowest priority. It allocates each set at its first use
// and the text of a new subject, and nothing else. Make it with [New].
//
// For denied keys it was measured beside otter v2.4 (2 cores): 35 ns a lookup
// instead of 61, so 130 ns for a whole denied Allow instead of 156; 0.25 µs for
// a new subject instead of 1.2. Where it counts requests, otter would be wrong:
// its admission policy may drop the newest subject, which would then pass
// uncounted.
type Table[V any] struct {
	seed maphash.Seed
	sets []atomic.Pointer[Set[V]]
}

// Set is a part of a Table with a lock of its own.
type Set[V any] struct {
	sync.Mutex
	slots [ways]Slot[V]
}

// Slot holds the value of one subject.
type Slot[V any] struct {
	subject string
	used    bool
	// Priority orders the slots of a set: the lowest is replaced first.
	Priority int64
	Value    V
}

// New returns a table for about so many subjects: rounded up to a power of two.
func New[V any](subjects int) *Table[V] {
	n := 1
	for n*ways < subjects {
		n *= 2
	}
	return &Table[V]{seed: maphash.MakeSeed(), sets: make([]atomic.Pointer[Set[V]], n)}
}

// longestKept is the length of the longest subject that a table keeps as it is.
const longestKept = 96

// stored is a subject as the table holds it: a long one as a digest, which is
// longer than every subject that is kept as it is, so that the two never meet.
func stored(subject string) string {
	if len(subject) <= longestKept {
		return subject
	}
	sum := sha256.Sum256([]byte(subject))
	var key [longestKept + 1]byte
	copy(key[:], sum[:])
	return string(key[:])
}

// Lock returns the locked set of a subject and the subject as the set knows it.
// It returns nil if the set does not exist and create is false. The caller
// unlocks it.
func (t *Table[V]) Lock(subject string, create bool) (*Set[V], string) {
	subject = stored(subject)
	at := &t.sets[maphash.String(t.seed, subject)&uint64(len(t.sets)-1)]
	s := at.Load()
	if s == nil && create {
		at.CompareAndSwap(nil, &Set[V]{})
		s = at.Load()
	}
	if s != nil {
		s.Lock()
	}
	return s, subject
}

// Remove empties the slot of a subject, if it has one.
func (t *Table[V]) Remove(subject string) {
	s, subject := t.Lock(subject, false)
	if s == nil {
		return
	}
	defer s.Unlock()
	if slot := s.Lookup(subject); slot != nil {
		*slot = Slot[V]{}
	}
}

// Lookup returns the slot of a subject, or nil.
func (s *Set[V]) Lookup(subject string) *Slot[V] {
	for i := range s.slots {
		if slot := &s.slots[i]; slot.used && slot.subject == subject {
			return slot
		}
	}
	return nil
}

// SlotFor returns the slot of a subject. existed is false for one that was
// emptied for it.
func (s *Set[V]) SlotFor(subject string) (slot *Slot[V], existed bool) {
	if slot = s.Lookup(subject); slot != nil {
		return slot, true
	}
	slot = &s.slots[0]
	for i := range s.slots {
		c := &s.slots[i]
		if !c.used {
			slot = c
			break
		}
		if c.Priority < slot.Priority {
			slot = c
		}
	}
	// A copy: the subject may be part of a larger string.
	*slot = Slot[V]{subject: strings.Clone(subject), used: true}
	return slot, false
}
