package assoc

import (
	"runtime"
	"strconv"
	"strings"
	"testing"
)

func (t *Table[V]) has(subject string) bool {
	s, subject := t.Lock(subject, false)
	if s == nil {
		return false
	}
	defer s.Unlock()
	return s.Lookup(subject) != nil
}

func (t *Table[V]) add(subject string, priority int64) {
	s, subject := t.Lock(subject, true)
	defer s.Unlock()
	slot, _ := s.SlotFor(subject)
	slot.Priority = priority
}

// heap is the memory in use.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestTable_MemoryIsBoundedWhateverTheSubjectsAre(t *testing.T) {
	before := heap()
	table := New[[4]int64](1000)
	for i := range 20_000 {
		large := strings.Repeat("x", 10_000) + strconv.Itoa(i)
		table.add(large, int64(i))
		if i%100 == 0 && !table.has(large) {
			t.Fatal("the newest subject has no slot")
		}
		table.add(large[9_980:], int64(i)) // a part of a larger string
	}
	held := 0
	for i := range table.sets {
		if s := table.sets[i].Load(); s != nil {
			for _, slot := range s.slots {
				if slot.used {
					held++
				}
			}
		}
	}
	if used := int64(heap()) - int64(before); held > 1024 || used > 1<<20 {
		t.Errorf("%d subjects, %d bytes", held, used)
	}
	runtime.KeepAlive(table)
}

// No subject, however made, has the slot of another one's digest.
func TestTable_ALongSubjectSharesNoSlot(t *testing.T) {
	long := strings.Repeat("x", 1000)
	table := New[int](64)
	table.add(stored(long)[:32], 1)
	table.add(stored(long), 1)
	if table.has(long) {
		t.Error("another subject has its slot")
	}
}

func TestTable_TheLowestPriorityIsReplaced(t *testing.T) {
	table := New[int](1)
	for i := range ways {
		table.add(strconv.Itoa(i), int64((i+3)%ways))
	}
	table.add("new", ways)
	for i := range ways {
		if want := (i+3)%ways != 0; table.has(strconv.Itoa(i)) != want {
			t.Errorf("subject %d: want %v", i, want)
		}
	}
	table.Remove("new")
	if table.has("new") {
		t.Error("it was not removed")
	}
}

func FuzzTable_TwoSubjectsNeverShareASlot(f *testing.F) {
	for _, s := range []string{"", "a", "\x00", strings.Repeat("x", 97)} {
		f.Add(s, "a")
		f.Add(s, stored(s))
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		if (stored(a) == stored(b)) != (a == b) {
			t.Errorf("%q and %q meet", a, b)
		}
	})
}
