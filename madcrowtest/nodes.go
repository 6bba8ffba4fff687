package madcrowtest

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	// settleWithin bounds how long servers that belong together take until
	// all agree, after their start and after a change.
	settleWithin = 30 * time.Second
	// askTimeout bounds one look into one of them.
	askTimeout = time.Second
	pollEvery  = 15 * time.Millisecond
)

// role is what a server is started for.
type role int

const (
	aloneRole    role = iota
	dataRole          // of a set
	sentinelRole      // of a set
)

// newNodes makes n servers that belong together, none of which runs yet.
func newNodes(t testing.TB, n int, role role, set settings, tls *tlsFiles) []*Server {
	t.Helper()
	binary := findBinary(t)
	nodes := make([]*Server, n)
	for i := range nodes {
		nodes[i] = &Server{t: t, set: set, binary: binary, dir: t.TempDir(), tls: tls, role: role}
	}
	// Killed, and all at once: there is no data to be saved, and an orderly
	// end would wait for replicas that end as well.
	t.Cleanup(func() {
		var wg sync.WaitGroup
		for _, s := range nodes {
			wg.Go(s.Kill)
		}
		wg.Wait()
	})
	return nodes
}

// writeFile writes the configuration file, unless it is that of a server
// which itself keeps there what it has learned.
func (s *Server) writeFile() error {
	if s.role != aloneRole {
		if _, err := os.Stat(s.confFile()); err == nil {
			return nil
		}
	}
	return os.WriteFile(s.confFile(), []byte(s.file()), 0o600)
}

func (s *Server) arguments() []string {
	if s.role == sentinelRole {
		return []string{s.confFile(), "--sentinel"}
	}
	return append([]string{s.confFile()}, s.set.args...)
}

// startSomewhere starts the server on a free port, such that port+above is
// free as well.
func (s *Server) startSomewhere(above int) error {
	var err error
	for range startTries {
		if s.port, err = freePort(above); err != nil {
			return err
		}
		_ = os.Remove(s.confFile()) // of an earlier try
		if err = s.start(); !errors.Is(err, errPortTaken) {
			return err
		}
	}
	return err
}

// startAll is startSomewhere for all of them at once.
func startAll(above int, nodes ...*Server) error {
	return eachNode(nodes, func(s *Server) error { return s.startSomewhere(above) })
}

// eachNode does it for all nodes at once.
func eachNode(nodes []*Server, do func(*Server) error) error {
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, s := range nodes {
		wg.Go(func() { errs[i] = do(s) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// serving says whether the server runs and is not frozen.
func (s *Server) serving() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil || s.paused {
		return false
	}
	select {
	case <-s.proc.done:
		return false
	default:
		return true
	}
}

func serving(nodes []*Server) []*Server {
	return slices.DeleteFunc(slices.Clone(nodes), func(s *Server) bool { return !s.serving() })
}

// ask is Do that may fail, and from any goroutine. An error that Redis
// returned is an error.
func (s *Server) ask(args ...string) (any, error) {
	replies, err := s.exchange(askTimeout, args)
	if err == nil {
		if refused, ok := replies[0].(error); ok {
			err = refused
		} else {
			return replies[0], nil
		}
	}
	return nil, fmt.Errorf("%s: %s: %w", s.Addr(), strings.Join(args[:min(len(args), 2)], " "), err)
}

// replication returns what INFO replication says.
func (s *Server) replication() (map[string]string, error) {
	reply, err := s.ask("INFO", "replication")
	if err != nil {
		return nil, err
	}
	text, _ := reply.(string)
	out := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":"); ok {
			out[name] = value
		}
	}
	return out, nil
}

// hasReplicas fails unless the server is a master with n replicas that are
// up to date.
func (s *Server) hasReplicas(n int) error {
	info, err := s.replication()
	if err != nil {
		return err
	}
	online := 0
	for name, value := range info {
		if strings.HasPrefix(name, "slave") && strings.Contains(value, "state=online") {
			online++
		}
	}
	if info["role"] != "master" || online != n {
		return fmt.Errorf("%s is a %s with %d replicas online, not a master with %d", s.Addr(), info["role"], online, n)
	}
	return nil
}

// follows fails unless the server is a replica of master whose link is up.
func (s *Server) follows(master *Server) error {
	info, err := s.replication()
	if err != nil {
		return err
	}
	if info["role"] != "slave" || info["master_port"] != fmt.Sprint(master.port) || info["master_link_status"] != "up" {
		return fmt.Errorf("%s is a %s of port %q, link %q, not a replica of %s", s.Addr(),
			info["role"], info["master_port"], info["master_link_status"], master.Addr())
	}
	return nil
}

// await polls until done returns nil, and fails with its last error after d.
func await(d time.Duration, done func() error) error {
	start := time.Now()
	for {
		err := done()
		if err == nil || time.Since(start) > d {
			if err != nil {
				err = fmt.Errorf("not within %v: %w", d, err)
			}
			return err
		}
		time.Sleep(pollEvery)
	}
}

// fields returns a flat list of names and values as a map.
func fields(reply any) map[string]string {
	list, _ := reply.([]any)
	out := make(map[string]string, len(list)/2)
	for i := 0; i+1 < len(list); i += 2 {
		name, _ := list[i].(string)
		out[name], _ = list[i+1].(string)
	}
	return out
}

func (s *Server) tlsLines() [][]string {
	if s.tls == nil {
		return nil
	}
	lines := [][]string{{"tls-replication", "yes"}}
	if programVersion(s.binary).less(redisVersion{6, 2}) {
		return lines // it shows the server's certificate
	}
	return append(lines, [][]string{
		{"tls-client-cert-file", s.tls.clientCertFile},
		{"tls-client-key-file", s.tls.clientKeyFile},
	}...)
}
