package madcrowtest

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Slot returns the slot of a key, 0 to 16383, as the Redis Cluster
// specification says: the CRC16 of what stands between the first { and the
// next }, unless that is nothing, and else of the whole key.
func (c *Cluster) Slot(key string) int {
	if _, rest, ok := strings.Cut(key, "{"); ok {
		if tag, _, closed := strings.Cut(rest, "}"); closed && tag != "" {
			key = tag
		}
	}
	return int(crc16(key)) % clusterSlots
}

// crc16 is CRC-16/XMODEM: polynomial 0x1021, initial value 0.
func crc16(s string) uint16 {
	var crc uint16
	for i := range len(s) {
		crc ^= uint16(s[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}

// MoveSlot moves a slot with all its keys to another master and returns once
// every node that runs knows it. It does nothing when the slot is there
// already.
func (c *Cluster) MoveSlot(t testing.TB, slot int, to *Server) {
	t.Helper()
	c.BeginMove(t, slot, to)
	c.FinishMove(t, slot, to)
}

// BeginMove begins to move a slot to another master, and moves no key: keys
// that exist are served by the old master, for all others it answers ASK, and
// so it does for a key that [Cluster.MoveKeys] has moved. A command with
// several keys of which some were moved is answered with TRYAGAIN.
func (c *Cluster) BeginMove(t testing.TB, slot int, to *Server) {
	t.Helper()
	from, fromID, err := c.owner(slot)
	if err == nil && from != to {
		var toID string
		if toID, err = to.clusterID(); err == nil {
			err = to.askAll([]string{"CLUSTER", "SETSLOT", strconv.Itoa(slot), "IMPORTING", fromID})
		}
		if err == nil {
			err = from.askAll([]string{"CLUSTER", "SETSLOT", strconv.Itoa(slot), "MIGRATING", toID})
		}
	}
	if err != nil {
		t.Fatalf("madcrowtest: BeginMove: %v", err)
	}
}

// MoveKeys moves some keys of a slot that [Cluster.BeginMove] began to move.
func (c *Cluster) MoveKeys(t testing.TB, to *Server, keys ...string) {
	t.Helper()
	if len(keys) == 0 {
		return
	}
	from, _, err := c.owner(c.Slot(keys[0]))
	if err == nil {
		err = migrate(from, to, keys)
	}
	if err != nil {
		t.Fatalf("madcrowtest: MoveKeys: %v", err)
	}
}

// FinishMove moves the keys that are left in a slot that [Cluster.BeginMove]
// began to move, and hands the slot over. It returns once every node that runs
// knows it.
func (c *Cluster) FinishMove(t testing.TB, slot int, to *Server) {
	t.Helper()
	if err := c.finishMove(slot, to); err != nil {
		t.Fatalf("madcrowtest: FinishMove: %v", err)
	}
}

func (c *Cluster) finishMove(slot int, to *Server) error {
	from, _, err := c.owner(slot)
	if err != nil || from == to {
		return err
	}
	number := strconv.Itoa(slot)
	for {
		reply, err := from.ask("CLUSTER", "GETKEYSINSLOT", number, "100")
		if err != nil {
			return err
		}
		list, _ := reply.([]any)
		if len(list) == 0 {
			break
		}
		keys := make([]string, len(list))
		for i, key := range list {
			keys[i], _ = key.(string)
		}
		if err := migrate(from, to, keys); err != nil {
			return err
		}
	}
	return c.handOver(slot, from, to)
}

// handOver tells the new owner first, as the specification wants it: the old
// one would lead clients to one that does not know.
func (c *Cluster) handOver(slot int, from, to *Server) error {
	id, err := to.clusterID()
	if err != nil {
		return err
	}
	rest := slices.DeleteFunc(serving(c.nodes), func(n *Server) bool {
		self, err := n.self()
		return n == from || n == to || err != nil || !self.flag("master")
	})
	for _, n := range append([]*Server{to, from}, rest...) {
		if err := n.askAll([]string{"CLUSTER", "SETSLOT", strconv.Itoa(slot), "NODE", id}); err != nil {
			return err
		}
	}
	return await(settleWithin, func() error {
		for _, n := range serving(c.nodes) {
			view, err := n.view()
			if err != nil {
				return err
			}
			for _, v := range view {
				if v.has(slot) != (v.id == id) {
					return fmt.Errorf("%s does not see slot %d at %s", n.Addr(), slot, to.Addr())
				}
			}
		}
		return nil
	})
}

func migrate(from, to *Server, keys []string) error {
	args := []string{"MIGRATE", "127.0.0.1", strconv.Itoa(to.port), "", "0", "5000"}
	if to.set.password != "" {
		args = append(args, "AUTH", to.set.password)
	}
	replies, err := from.exchange(2*doTimeout, append(append(args, "KEYS"), keys...))
	if err != nil {
		return err
	}
	if refused, ok := replies[0].(error); ok {
		return fmt.Errorf("MIGRATE: %w", refused)
	}
	if replies[0] != "OK" && replies[0] != "NOKEY" {
		return errors.New("MIGRATE was answered with " + fmt.Sprint(replies[0]))
	}
	return nil
}
