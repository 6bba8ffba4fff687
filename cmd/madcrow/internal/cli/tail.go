package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/pubsub"
)

type tailOptions struct {
	oneshot
	pattern bool
	count   int
	history int
}

func newTail() *cobra.Command {
	o := &tailOptions{}
	cmd := &cobra.Command{
		Use:   "tail CHANNEL...",
		Short: "Show the messages of channels and topics as they come",
		Long: `Show the messages of channels, under REDIS_KEY_PREFIX, as they come, until
Ctrl-C. Topics with a history are heard too; --history shows their last messages
first. It goes on after Redis was away. Standard error says what it cannot show:
that it does not hear at the moment, from when to when it did not, and how many
messages were missed, where their publishers number them.

Each message is one line, with the channel and a tab before it where there can
be several channels. Control characters are shown as \n, \x1b and so on; -o json
has the messages as they are.

Reserved channels, such as __keyspace@0__:*, are shown too, since listening
changes nothing; 'madcrow publish' refuses them. Messages of a program's topic
(pubsub.Topic) are shown without what stands before them. With --pattern those
topics with a history are heard that there are at the beginning.` + exits("0 ended by Ctrl-C or --count"),
		Example: `  madcrow tail news
  madcrow tail news orders
  madcrow tail news --history 10
  madcrow tail --pattern 'order.*' -o json
  madcrow tail news --count 1`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{fmt.Errorf("wrong number of arguments: %s", c.UseLine())}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.check(c); err != nil {
				return err
			}
			if o.count < 0 {
				return usageError{errors.New("--count must not be negative")}
			}
			if o.history < 0 {
				return usageError{errors.New("--history must not be negative")}
			}
			return o.follow(c, args)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.pattern, "pattern", false, "the arguments are patterns: h?llo, h*llo, h[ae]llo")
	f.IntVarP(&o.count, "count", "n", 0, "end after this `number` of messages (default never)")
	f.IntVar(&o.history, "history", 0, "begin with the last `number` of messages that a topic has kept (default none)")
	o.addFlags(cmd)
	f.Lookup("timeout").Usage = "give up when it cannot connect within this time"
	return cmd
}

// follow connects, and shows what comes until a signal.
func (o *tailOptions) follow(c *cobra.Command, names []string) error {
	ctx, restore := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
	defer restore()
	// The second signal ends it at once: its output may be blocked.
	defer context.AfterFunc(ctx, restore)()
	connect, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	r, err := openReal(connect, o.timeout)
	if err != nil {
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		return err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = r.Close(end)
	}()
	return asUsage(o.show(ctx, c, r, names))
}

func (o *tailOptions) show(ctx context.Context, c *cobra.Command, r *madcrow.Redis, names []string) error {
	bus, err := pubsub.New(r, pubsub.Options{})
	if err != nil {
		return err
	}
	defer func() { _ = bus.Close(context.Background()) }()
	listenTo := pubsub.NewTopics[string]
	if o.pattern {
		listenTo = pubsub.NewPatterns[string]
	}
	topics, err := listenTo(bus, names, pubsub.TopicOptions[string]{Reserved: true}) // it only reads
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	l := &listener{r: r, bus: bus, events: make(chan heard)}
	defer l.all.Wait()
	defer stop()
	if o.pattern {
		err = l.joinMatching(ctx, c.ErrOrStderr(), names, o.history)
	} else {
		err = l.joinNamed(ctx, c.ErrOrStderr(), names, o.history)
	}
	if err != nil {
		return err
	}
	l.join(ctx, topics.Subscribe(ctx, pubsub.WithQueue(100_000)))
	shown := 0
	for {
		var h heard
		select {
		case h = <-l.events:
		case <-ctx.Done():
			return nil
		}
		if h.err != nil {
			return h.err
		}
		if h.event.Kind != pubsub.EventMessage {
			tellTail(c.ErrOrStderr(), h.event, names)
			continue
		}
		if err := o.write(c.OutOrStdout(), h.event, len(names) > 1 || o.pattern); err != nil {
			return err
		}
		if shown++; shown == o.count {
			return nil
		}
	}
}

// tailed is a message as JSON.
type tailed struct {
	Channel string `json:"channel"`
	payload
	Received  time.Time  `json:"received"`
	Publisher string     `json:"publisher,omitempty"`
	Number    uint64     `json:"number,omitempty"`
	Sent      *time.Time `json:"sent,omitempty"`
	// Position is that in the history, where there is one.
	Position string `json:"position,omitempty"`
}

func (o *tailOptions) write(w io.Writer, e pubsub.Event[string], several bool) error {
	if o.output == "json" {
		line := tailed{Channel: e.Channel, payload: payloadOf(e.Message), Received: time.Now().UTC(), Publisher: e.Publisher, Number: e.Number, Position: e.Position.String()}
		if !e.Sent.IsZero() {
			sent := e.Sent.UTC()
			line.Sent = &sent
		}
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		return enc.Encode(line)
	}
	text := oneLine(e.Message)
	if several {
		text = oneLine(e.Channel) + "\t" + text
	}
	_, err := fmt.Fprintln(w, text)
	return err
}

// tellTail says what is no message.
func tellTail(w io.Writer, e pubsub.Event[string], names []string) {
	var text string
	switch e.Kind {
	case pubsub.EventSubscribed:
		text = "listening to " + oneLine(strings.Join(names, ", "))
	case pubsub.EventInterrupted:
		text = "interrupted: messages do not come at the moment"
	case pubsub.EventGap:
		text = fmt.Sprintf("listening again: no message came from %s to %s (%v)",
			e.Since.Format(time.TimeOnly), e.Until.Format(time.TimeOnly), e.Until.Sub(e.Since).Round(time.Millisecond))
	case pubsub.EventMissed:
		text = fmt.Sprintf("messages missed: %d", e.N)
	case pubsub.EventDropped:
		text = fmt.Sprintf("messages dropped, since the output is too slow: %d", e.N)
	case pubsub.EventHistoryLost:
		text = oneLine(e.Channel) + ": messages are lost: they are not in the history any more"
	default:
		return
	}
	_, _ = fmt.Fprintln(w, "madcrow: "+text)
}
