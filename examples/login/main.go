// Command login is a login with pages: accounts in a SQLite file, sessions and
// the count of failed logins in Redis.
//
//	go run ./login useradd ada             # prints a password, once
//	REDIS_HOST=localhost go run ./login -dev
//	open http://127.0.0.1:8080/
//
// -dev is for this machine only: its cookie travels without TLS. Elsewhere it
// speaks TLS itself, or stands behind proxies that do and pass Host on:
//
//	head -c 32 /dev/urandom | base64 > secret
//	login -addr :443 -cert cert.pem -key key.pem -secret-file secret
//	login -addr 10.0.0.5:8080 -proxies 1 -secret-file secret
//
// Any number of processes may share the Redis, the secret and the accounts.
// Redis is named by REDIS_HOST, REDIS_URL and so on, and how many failed
// logins are too many by RATE_LIMIT_LOGIN_MAX_ATTEMPTS and its like.
//
// # What it does
//
//   - Passwords are hashed with argon2id. An unknown name takes as long as a
//     wrong password, gets the same answer, and is limited alike.
//   - Failed logins are counted by name and address before the password is
//     looked at, and all logins of one address, for those who try one password
//     on many names. Without Redis no login succeeds: 503.
//   - A login makes a new session, whatever identifier the browser came with. A
//     new password gives this session a new identifier and ends all others,
//     also that of a login under way with the old one.
//   - /profile can be read without Redis, for a minute, from what this process
//     saw last. Nothing else can.
//   - /sessions shows where the user is logged in, and ends one, the others, or
//     all.
//   - Forms of other sites are refused by [http.CrossOriginProtection]: no
//     tokens. Scripts are refused altogether: there are none.
//
// Errors are pages. Who asks for JSON gets JSON, and errors as problem documents
// (RFC 9457):
//
//	curl -b jar -c jar -H 'Accept: application/json' -d name=ada --data-urlencode password@file https://…/login
//	curl -b jar -H 'Accept: application/json' https://…/profile
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/madcrow-go/madcrow"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "login:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	if len(args) > 0 && args[0] == "useradd" {
		return useradd(ctx, args[1:], stdin, stdout)
	}
	cfg, err := parseFlags(args)
	if err != nil {
		return err
	}
	return serve(ctx, cfg)
}

// config is the command line.
type config struct {
	addr, cert, key string
	proxies         int
	dev             bool
	db, secretFile  string
}

func parseFlags(args []string) (c config, err error) {
	f := flag.NewFlagSet("login", flag.ContinueOnError)
	f.StringVar(&c.addr, "addr", "127.0.0.1:8080", "listen on this `address`")
	f.StringVar(&c.cert, "cert", "", "PEM `file` of the certificate")
	f.StringVar(&c.key, "key", "", "PEM `file` of its key")
	f.IntVar(&c.proxies, "proxies", 0, "`number` of proxies in front, which speak TLS and append to X-Forwarded-For")
	f.BoolVar(&c.dev, "dev", false, "no TLS, on this machine only")
	f.StringVar(&c.db, "db", "users.db", "SQLite `file` of the accounts")
	f.StringVar(&c.secretFile, "secret-file", "", "`file` with 32 bytes or more, the same for all processes")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	if f.NArg() > 0 {
		return c, fmt.Errorf("unknown argument %q", f.Arg(0))
	}
	return c, c.check()
}

// check refuses what would be unsafe, or cannot be meant.
func (c config) check() error {
	ways := 0
	for _, chosen := range []bool{c.dev, c.cert != "" || c.key != "", c.proxies != 0} {
		if chosen {
			ways++
		}
	}
	switch {
	case ways != 1:
		return errors.New("give one of -cert and -key, -proxies, or -dev")
	case (c.cert == "") != (c.key == ""):
		return errors.New("-cert and -key go together")
	case c.dev && !isLoopback(c.addr):
		return errors.New("-dev listens on this machine only: -addr must be localhost, 127.0.0.1 or [::1]")
	case !c.dev && c.secretFile == "":
		return errors.New("-secret-file is missing")
	}
	return nil
}

func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (c config) secret() ([]byte, error) {
	if c.secretFile == "" {
		return nil, nil
	}
	text, err := os.ReadFile(c.secretFile)
	if err != nil {
		return nil, err
	}
	secret := strings.TrimRight(string(text), "\r\n")
	if len(secret) < 32 {
		return nil, fmt.Errorf("%s: 32 bytes or more are needed", c.secretFile)
	}
	return []byte(secret), nil
}

func serve(ctx context.Context, cfg config) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	rc, err := madcrow.ConfigFromEnv()
	if err != nil {
		return err
	}
	rc.Logger = log
	r, err := madcrow.Open(ctx, rc) // returns at once, with or without a Redis
	if err != nil {
		return err
	}
	defer r.Close(context.WithoutCancel(ctx))
	accounts, err := openUsers(ctx, cfg.db)
	if err != nil {
		return err
	}
	defer accounts.close()
	a, err := newApp(cfg, r, accounts, log)
	if err != nil {
		return err
	}

	ln, err := net.Listen("tcp", cfg.addr)
	if err != nil {
		return err
	}
	srv := &http.Server{
		Handler: a.handler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelInfo),
	}
	failed := make(chan error, 1)
	go func() {
		if cfg.cert != "" {
			failed <- srv.ServeTLS(ln, cfg.cert, cfg.key)
		} else {
			failed <- srv.Serve(ln)
		}
	}()
	log.Info("listening on " + ln.Addr().String())
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return srv.Shutdown(end) // requests in flight are finished
}
