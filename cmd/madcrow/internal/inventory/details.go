package inventory

import (
	"context"
	"fmt"
	"math"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/keys"
	"github.com/madcrow-go/madcrow/stream"
)

// maxDetails bounds of how many streams, topics and caches more is asked.
const maxDetails = 1000

// codecHTTP is the codec of package httpcache, the second byte of an entry.
const codecHTTP = 4

// addDetails asks for what the keys do not say.
func addDetails(ctx context.Context, r *madcrow.Redis, inv *Inventory) error {
	for i := range first(inv.Streams) {
		if err := inv.Streams[i].details(ctx, r); err != nil {
			return err
		}
	}
	for i := range first(inv.Topics) {
		if err := inv.Topics[i].details(ctx, r); err != nil {
			return err
		}
	}
	for i := range first(inv.Caches) {
		c := &inv.Caches[i]
		if key := inv.samples[c.Name]; key != "" {
			m, err := r.Do(ctx, r.B().Getrange().Key(key).Start(1).End(1).Build()).Message()
			if err != nil {
				return err
			}
			codec, _ := m.ToString()
			c.HTTP = codec == string(rune(codecHTTP))
		}
	}
	return nil
}

func first[T any](list []T) []T { return list[:min(len(list), maxDetails)] }

func (s *Stream) details(ctx context.Context, r *madcrow.Redis) error {
	s.Groups = []Group{}
	if s.Hashed { // no call of package stream can name it
		key := fmt.Sprintf("%sm1:stream:{%s}:log", r.Config().KeyPrefix, s.Name)
		m, err := r.Do(ctx, r.B().Xlen().Key(key).Build()).Message()
		if err == nil {
			s.Length, err = m.AsInt64()
		}
		return err
	}
	found, _, err := FindStream(ctx, r, s.Name)
	if err == nil {
		*s = found
	}
	return err
}

// FindStream returns the stream of a name, with its groups. It says whether there is
// one: a stream of which everything was done is there as long as it has groups.
func FindStream(ctx context.Context, r *madcrow.Redis, name string) (Stream, bool, error) {
	s := Stream{Name: name, Groups: []Group{}}
	all, err := stream.New(r, name, stream.Options[string]{MaxLen: math.MaxInt})
	if err != nil {
		return s, false, err
	}
	key := StreamKey(r, name, "log")
	res, err := r.DoMulti(ctx, r.B().Exists().Key(key).Build(), r.B().Xlen().Key(key).Build(), r.B().Zcard().Key(StreamKey(r, name, "delayed")).Build())
	if err != nil {
		return s, false, err
	}
	there, _, _ := res[0].Int()
	s.Length, _, _ = res[1].Int()
	s.Delayed, _, _ = res[2].Int()
	if there == 0 {
		return s, s.Delayed > 0, nil
	}
	m, err := r.Do(ctx, r.B().XinfoGroups().Key(key).Build()).Message()
	if err != nil {
		return s, true, err
	}
	groups, _ := m.ToArray()
	for i := range groups {
		fields, err := groups[i].AsMap()
		if err != nil {
			return s, true, err
		}
		name := fields["name"]
		g, err := groupOf(ctx, all, &name)
		if err != nil {
			return s, true, err
		}
		s.Groups = append(s.Groups, g)
	}
	return s, true, nil
}

// StreamKey is a key of the stream of a name.
func StreamKey(r *madcrow.Redis, name, part string) string {
	return r.Config().KeyPrefix + keys.Typed + "stream:{" + keys.Encode(name) + "}:" + part
}

func groupOf(ctx context.Context, s *stream.Stream[string], name *madcrow.Message) (g Group, err error) {
	if g.Name, err = name.ToString(); err != nil {
		return g, err
	}
	lag, err := s.Lag(ctx, g.Name)
	if err != nil {
		return g, err
	}
	g.Pending, g.Workers, g.Dead, g.Lost = lag.Pending, lag.Workers, lag.Dead, lag.Lost
	if lag.Waiting >= 0 {
		g.Waiting = &lag.Waiting
	}
	return g, nil
}

func (t *Topic) details(ctx context.Context, r *madcrow.Redis) error {
	key := fmt.Sprintf("%sm1:topic:{%s}:history", r.Config().KeyPrefix, t.Name)
	res, err := r.DoMulti(ctx, r.B().Xlen().Key(key).Build(), r.B().Pttl().Key(key).Build())
	if err != nil {
		return err
	}
	t.History, _, _ = res[0].Int()
	left, _, _ := res[1].Int()
	t.KeptFor = math.Max(float64(left), 0) / 1000
	return nil
}
