package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/redis/rueidis"
)

// httpRace compares GET /api/v1/redis-example/cache/{key} of `madcrow serve`
// with a bare net/http handler on rueidis that does the same work: one
// pipelined GET and PTTL, one JSON body. Both are processes of their own; the
// load comes from here over kept connections and shares the cores with them.
func httpRace(e *environment) (race, error) {
	bareAddr, err := e.serveBare()
	if err != nil {
		return race{}, err
	}
	logging, err := e.serveMadcrow("logging")
	if err != nil {
		return race{}, err
	}
	quiet, err := e.serveMadcrow("quiet", "--access-log=false")
	if err != nil {
		return race{}, err
	}
	return race{name: "http", what: "GET /api/v1/redis-example/cache/{key}", contestants: []contestant{
		{"net/http and rueidis, bare", 0, httpGet(bareAddr, e.keys)},
		{"madcrow serve", 0.85, httpGet(logging, e.keys)},
		{"madcrow serve --access-log=false", 0, httpGet(quiet, e.keys)},
	}}, nil
}

// serveBare starts this program again as the bare server.
func (e *environment) serveBare() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	return e.serve("bare", func(addr string) *exec.Cmd {
		return exec.Command(self, "-bare", addr, "-redis", net.JoinHostPort(e.host, strconv.Itoa(e.port)))
	})
}

func (e *environment) serveMadcrow(name string, flags ...string) (string, error) {
	binary := filepath.Join(e.dir, "madcrow")
	if _, err := os.Stat(binary); err != nil {
		build := exec.Command("go", "build", "-o", binary, "../cmd/madcrow")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return "", fmt.Errorf("build the server (run in bench/): %w", err)
		}
	}
	return e.serve(name, func(addr string) *exec.Cmd {
		cmd := exec.Command(binary, append([]string{"serve", "--addr", addr}, flags...)...)
		cmd.Env = append(os.Environ(), "REDIS_HOST="+e.host, "REDIS_PORT="+strconv.Itoa(e.port))
		return cmd
	})
}

// serve starts a server on a free port and waits until it answers.
func (e *environment) serve(name string, command func(addr string) *exec.Cmd) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	addr := l.Addr().String()
	_ = l.Close()
	cmd := command(addr)
	log, err := os.Create(filepath.Join(e.dir, name+".log"))
	if err != nil {
		return "", err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return "", err
	}
	e.children = append(e.children, cmd)
	for range 200 {
		if res, err := http.Get("http://" + addr + "/api/v1/redis-example/cache/" + e.keys[0]); err == nil {
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return addr, nil
			}
		}
		time.Sleep(25 * time.Millisecond)
	}
	return "", fmt.Errorf("%s did not answer; its log is %s", name, log.Name())
}

// bareServer is the handler that somebody would write by hand.
func bareServer(addr, redis string) error {
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{redis}, ForceSingleClient: true, DisableCache: true})
	if err != nil {
		return err
	}
	type answer struct {
		Key    string  `json:"key"`
		Value  *string `json:"value"`
		Exists bool    `json:"exists"`
		TTL    *int64  `json:"ttl"`
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/redis-example/cache/{key}", func(w http.ResponseWriter, r *http.Request) {
		key := r.PathValue("key")
		res := client.DoMulti(r.Context(), client.B().Get().Key(key).Build(), client.B().Pttl().Key(key).Build())
		out := answer{Key: key}
		if value, err := res[0].ToString(); err == nil {
			out.Value, out.Exists = &value, true
		} else if !rueidis.IsRedisNil(err) {
			http.Error(w, "redis", http.StatusServiceUnavailable)
			return
		}
		if ms, err := res[1].AsInt64(); err == nil && ms >= 0 {
			s := (ms + 999) / 1000
			out.TTL = &s
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out)
	})
	srv := &http.Server{Addr: addr, Handler: mux, ReadHeaderTimeout: time.Second, BaseContext: func(net.Listener) context.Context { return context.Background() }}
	return srv.ListenAndServe()
}

// httpGet keeps one connection for each goroutine and reads no more of the
// answer than it must.
func httpGet(addr string, keys []string) func(int) func() error {
	return func(g int) func() error {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return func() error { return err }
		}
		r := bufio.NewReader(conn)
		i := g * 37
		var request []byte
		return func() error {
			i++
			request = append(request[:0], "GET /api/v1/redis-example/cache/"...)
			request = append(request, keys[i%len(keys)]...)
			request = append(request, " HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"...)
			if _, err := conn.Write(request); err != nil {
				return err
			}
			return readAnswer(r)
		}
	}
}

func readAnswer(r *bufio.Reader) error {
	const length = "Content-Length: "
	size := -1
	for n := 0; ; n++ {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if n == 0 && string(line[9:12]) != "200" {
			return fmt.Errorf("answer %q", line)
		}
		if len(line) == 2 {
			break
		}
		if len(line) > len(length) && string(line[:len(length)]) == length {
			if size, err = strconv.Atoi(string(line[len(length) : len(line)-2])); err != nil {
				return err
			}
		}
	}
	if size < 0 {
		return fmt.Errorf("an answer without Content-Length")
	}
	_, err := r.Discard(size)
	return err
}
