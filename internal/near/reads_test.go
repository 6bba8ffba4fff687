package near

import "testing"

func TestReads_KeepOnlyWhatDidNotChangeMeanwhile(t *testing.T) {
	r := NewReads()
	kept := func(version uint64) (yes bool) {
		r.End("k", version, func() { yes = true })
		return yes
	}
	change := func(key string) {
		dropped := false
		if r.Change(key, func() { dropped = true }); !dropped {
			t.Error("the copy was not dropped")
		}
	}
	if !kept(r.Begin("k")) {
		t.Error("nothing happened, and it is not kept")
	}
	change("k")
	if !kept(r.Begin("k")) {
		t.Error("a change before the read counts")
	}
	early := r.Begin("k")
	change("other")
	change("k")
	late := r.Begin("k")
	if kept(early) {
		t.Error("kept what was changed meanwhile")
	}
	if !kept(late) {
		t.Error("a read that began after the change does not count")
	}
	failed := r.Begin("k")
	r.End("k", failed, nil)
	for i := range r.shards {
		if n := len(r.shards[i].running); n != 0 {
			t.Errorf("%d keys are remembered", n)
		}
	}
}
