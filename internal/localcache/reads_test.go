package localcache

import (
	"testing"
)

func TestReads_KeepOnlyWhatDidNotChangeMeanwhile(t *testing.T) {
	r := newReads()
	kept := func(version uint64) (yes bool) {
		r.end("k", version, func() { yes = true })
		return yes
	}
	change := func(key string) {
		dropped := false
		if r.change(key, func() { dropped = true }); !dropped {
			t.Error("the copy was not dropped")
		}
	}
	if !kept(r.begin("k")) {
		t.Error("nothing happened, and it is not kept")
	}
	change("k")
	if !kept(r.begin("k")) {
		t.Error("a change before the read counts")
	}
	early := r.begin("k")
	change("other")
	change("k")
	late := r.begin("k")
	if kept(early) {
		t.Error("kept what was changed meanwhile")
	}
	if !kept(late) {
		t.Error("a read that began after the change does not count")
	}
	failed := r.begin("k")
	r.end("k", failed, nil)
	for i := range r.shards {
		if n := len(r.shards[i].running); n != 0 {
			t.Errorf("%d keys are remembered", n)
		}
	}
}
