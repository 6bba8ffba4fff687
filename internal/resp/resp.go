// Package resp is a small client of the Redis protocol, version 2, for the few
// exchanges that are made beside the real client: with Sentinels, and in tests.
package resp

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Error is an error reply.
type Error string

func (e Error) Error() string { return string(e) }

// ErrProtocol says that the other side speaks something else.
var ErrProtocol = errors.New("the server does not speak the Redis protocol")

// Bounds of one reply, so that a broken server cannot exhaust the memory.
const (
	maxBulk  = 64 << 20
	maxList  = 1 << 20
	maxDepth = 8
)

// Write sends commands in one pipeline.
func Write(w io.Writer, commands ...[]string) error {
	var b strings.Builder
	for _, args := range commands {
		fmt.Fprintf(&b, "*%d\r\n", len(args))
		for _, a := range args {
			fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Read reads one reply: string, int64, nil, []any or [Error].
func Read(r *bufio.Reader) (any, error) { return read(r, 0) }

func read(r *bufio.Reader, depth int) (any, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	line, ok := strings.CutSuffix(line, "\r\n")
	if !ok || line == "" {
		return nil, ErrProtocol
	}
	rest := line[1:]
	switch line[0] {
	case '+':
		return rest, nil
	case '-':
		return Error(rest), nil
	}
	n, err := strconv.ParseInt(rest, 10, 64)
	if err != nil {
		return nil, ErrProtocol
	}
	switch line[0] {
	case ':':
		return n, nil
	case '$':
		return readBulk(r, n)
	case '*':
		return readList(r, n, depth)
	}
	return nil, ErrProtocol
}

func readBulk(r *bufio.Reader, n int64) (any, error) {
	if n < 0 {
		return nil, nil
	}
	if n > maxBulk {
		return nil, ErrProtocol
	}
	data := make([]byte, n+2)
	_, err := io.ReadFull(r, data)
	return string(data[:n]), err
}

func readList(r *bufio.Reader, n int64, depth int) (any, error) {
	if n < 0 {
		return nil, nil
	}
	if n > maxList || depth >= maxDepth {
		return nil, ErrProtocol
	}
	list := make([]any, n)
	for i := range list {
		var err error
		if list[i], err = read(r, depth+1); err != nil {
			return nil, err
		}
	}
	return list, nil
}
