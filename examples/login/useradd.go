package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
)

// useradd makes an account. There is no password that everybody knows: it is
// made here and shown once, or comes from standard input, and so stands in no
// list of processes.
func useradd(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	f := flag.NewFlagSet("login useradd", flag.ContinueOnError)
	db := f.String("db", "users.db", "SQLite `file` of the accounts")
	role := f.String("role", "user", "the `role` that the profile shows")
	given := f.Bool("password-stdin", false, "read the password from the first line of standard input")
	f.Usage = func() {
		_, _ = fmt.Fprintln(f.Output(), "Usage: login useradd [flags] NAME")
		f.PrintDefaults()
	}
	if err := f.Parse(args); err != nil {
		return err
	}
	name := cleanName(f.Arg(0))
	switch {
	case f.NArg() != 1:
		return errors.New("useradd needs one NAME, after the flags")
	case !validName(name):
		return errors.New("a NAME has 1 to 64 letters a to z, digits, '.', '_' and '-'")
	}
	password := rand.Text() // 26 characters, 128 bits
	if *given {
		line, err := bufio.NewReader(stdin).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		password = strings.TrimRight(line, "\r\n")
		if text := weakness(password, name); text != "" {
			return errors.New(text)
		}
	}
	accounts, err := openUsers(ctx, *db)
	if err != nil {
		return err
	}
	defer accounts.close()
	if err := accounts.add(ctx, name, *role, encodeHash(password)); err != nil {
		return err
	}
	if !*given {
		_, err = fmt.Fprintf(stdout, "The password of %s, shown this once: %s\n", name, password)
	}
	return err
}
