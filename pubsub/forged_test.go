package pubsub_test

import (
	"context"
	"fmt"
	"iter"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/pubsub"
)

const diaryLive = "m1:topic:{d}:live"

// overhear returns the raw messages of the diary's channel, as a stranger may
// read them.
func (d *diary) overhear(t *testing.T) *ear[pubsub.Event[string]] {
	t.Helper()
	topic, err := pubsub.NewTopic(newBus(t, d.r, pubsub.Options{}), diaryLive, pubsub.TopicOptions[string]{Plain: true, Reserved: true})
	if err != nil {
		t.Fatal(err)
	}
	e := hearing(t, func(ctx context.Context) iter.Seq2[pubsub.Event[string], error] { return topic.Subscribe(ctx) })
	e.next(t, "subscribed", func(e pubsub.Event[string]) bool { return e.Kind == pubsub.EventSubscribed })
	return e
}

// Whoever could do nothing but PUBLISH, and read what is published, sent a
// message that looked like the next one: subscribers were given it as genuine,
// and the genuine ones were dropped until the loss was reported.
func TestRecoverable_ForgedMessagesAreNotBelieved(t *testing.T) {
	for name, from := range map[string]int{"after a message": 1, "before the first": 0} {
		t.Run(name, func(t *testing.T) {
			d := keepDiary(t, pubsub.RecoverableOptions[int]{}, nil)
			stranger := d.overhear(t)
			subscriber := d.follow(t, pubsub.Position{})
			last := expectEvents(t, subscriber, "subscribed")
			seal := strings.Repeat("0", 40)
			if from == 1 {
				d.write(t, 1, 1)
				last = expectEvents(t, subscriber, "1")
				line, _, _ := strings.Cut(stranger.next(t, "1", func(e pubsub.Event[string]) bool { return e.Kind == pubsub.EventMessage }).Message, "\n")
				seal = line[strings.LastIndex(line, " ")+1:]
			}
			next := fmt.Sprintf("r1 %s %d FORGED %s", last.Epoch, last.Offset+1, last.Nonce)
			for _, text := range []string{
				next + "\n666", next + " \n666", next + " " + seal + "\n666", next + " " + seal + " " + seal + "\n666",
				fmt.Sprintf("r1 %s %d FORGED x %s\n666", last.Epoch, last.Offset+7, seal),
				fmt.Sprintf("r1 ANOTHER 1 FORGED  %s\n666", seal), fmt.Sprintf("r1 ANOTHER 2 FORGED x %s\n666", seal), "666",
			} {
				d.srv.Do(t, "PUBLISH", diaryLive, text)
			}
			d.write(t, 2, 20)
			expectEvents(t, subscriber, numbersFrom(2, 20))
		})
	}
}

// What cannot be distinguished from a message of a history that has just begun makes the
// subscriber look at the history. A flood of it must not be a flood of reads.
func TestRecoverable_AFloodOfForgeriesIsAFewReads(t *testing.T) {
	d := keepDiary(t, pubsub.RecoverableOptions[int]{}, nil)
	subscriber := d.follow(t, pubsub.Position{})
	expectEvents(t, subscriber, "subscribed")
	reads := func() int {
		m := regexp.MustCompile(`cmdstat_xrange:calls=(\d+)`).FindStringSubmatch(d.srv.Do(t, "INFO", "commandstats").(string))
		n, _ := strconv.Atoi(m[1])
		return n
	}
	before, begin := reads(), time.Now()
	for i := range 500 {
		d.srv.Do(t, "PUBLISH", diaryLive, fmt.Sprintf("r1 E%d 1 N  %040d\n666", i, i))
		if i%100 == 0 {
			d.write(t, i, i)
			expectEvents(t, subscriber, fmt.Sprint(i))
		}
	}
	// At the most one for each that was written, and those of the doubt: after 0,
	// 25, 50, 100 … ms, in the end one a second.
	if n := reads() - before; n > 20+2*int(time.Since(begin)/time.Second) {
		t.Errorf("%d reads within %v", n, time.Since(begin))
	}
	d.write(t, 1000, 1010)
	expectEvents(t, subscriber, numbersFrom(1000, 1010))
}

// Where SHA-1 is forbidden no seal can be checked: then all is read from the
// history, and nothing is lost.
func TestRecoverable_WithoutSealsTheHistoryIsRead(t *testing.T) {
	t.Cleanup(pubsub.SetHashing(false))
	d := keepDiary(t, pubsub.RecoverableOptions[int]{}, nil)
	subscriber := d.follow(t, pubsub.Position{})
	last := expectEvents(t, subscriber, "subscribed")
	d.srv.Do(t, "PUBLISH", diaryLive, fmt.Sprintf("r1 %s 1 FORGED  x\n666", last.Epoch))
	for i := range 5 {
		d.write(t, 10*i, 10*i+9)
		expectEvents(t, subscriber, numbersFrom(10*i, 10*i+9))
	}
}

// Sixteen forgeries that looked like the first message of another history, and no
// genuine one was noted until the history was read again, up to a second later: the
// first messages of a history that began meanwhile were reported as lost.
func TestRecoverable_ForgeriesDoNotHideTheBeginningOfAHistory(t *testing.T) {
	for name, most := range map[string]int{"a few": 20, "more than are noted": 300} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := keepDiary(t, pubsub.RecoverableOptions[int]{}, nil)
			subscriber := d.follow(t, pubsub.Position{})
			expectEvents(t, subscriber, "subscribed")
			n := 0
			forge := func() {
				n++
				d.srv.Do(t, "PUBLISH", diaryLive, fmt.Sprintf("r1 E%d 1 N  %040d\n666", n, n))
			}
			// Until the history is read only once a second.
			for end := time.Now().Add(900 * time.Millisecond); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
				forge()
			}
			for range most {
				forge()
			}
			time.Sleep(150 * time.Millisecond) // as rarely as a full list is looked at
			d.srv.Do(t, "DEL", d.meta, d.history)
			d.write(t, 1, 10)
			expectEvents(t, subscriber, numbersFrom(1, 10))
		})
	}
}
