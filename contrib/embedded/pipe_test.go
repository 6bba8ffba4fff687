package embedded

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var _ net.Conn = (*end)(nil)

func TestPipe_CarriesBytesBothWays(t *testing.T) {
	client, server := newPipe()
	want := bytes.Repeat([]byte("0123456789abcdef!"), 100_000) // beyond all window
	var wg sync.WaitGroup
	wg.Go(func() { // echo
		_, _ = io.Copy(server, server)
		_ = server.Close()
	})
	wg.Go(func() {
		for rest := want; len(rest) > 0; {
			n, err := client.Write(rest[:min(len(rest), 70_001)])
			if err != nil {
				t.Error(err)
				return
			}
			rest = rest[n:]
		}
		client.out.closeWrite()
	})
	got, err := io.ReadAll(client)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d of %d bytes came back, %v", len(got), len(want), err)
	}
	wg.Wait()
}

func TestPipe_DeadlinesEndAWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := newPipe()
		begin := time.Now()
		_ = client.SetDeadline(begin.Add(3 * time.Second))
		_, err := client.Read(make([]byte, 1))
		var timeout net.Error
		if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("read: %v", err)
		}
		if waited := time.Since(begin); waited != 3*time.Second {
			t.Errorf("read waited %v", waited)
		}
		_ = client.SetDeadline(time.Now().Add(2 * time.Second))
		n, err := client.Write(make([]byte, requestWindow+1))
		if n != requestWindow || !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) != 5*time.Second {
			t.Errorf("write: %d bytes, %v, after %v", n, err, time.Since(begin))
		}
		_ = client.SetDeadline(time.Time{})
		if _, err := io.ReadFull(server, make([]byte, requestWindow)); err != nil {
			t.Error(err)
		}
		if _, err := client.Write([]byte("x")); err != nil {
			t.Errorf("write after the deadline was lifted: %v", err)
		}
	})
}

func TestPipe_ANewDeadlineReachesWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := newPipe()
		defer func() { _ = server.Close() }()
		_ = client.SetReadDeadline(time.Now().Add(time.Hour))
		begin := time.Now()
		go func() {
			time.Sleep(time.Second)
			_ = client.SetReadDeadline(time.Now())
		}()
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
		if waited := time.Since(begin); waited != time.Second {
			t.Errorf("waited %v", waited)
		}
	})
}

func TestPipe_CloseEndsBothSides(t *testing.T) {
	client, server := newPipe()
	if _, err := server.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	waiting := make(chan error)
	go func() {
		_, err := server.Write(nil)
		if err == nil {
			_, err = server.Read(make([]byte, 1))
		}
		waiting <- err
	}()
	_ = server.Close()
	if err := <-waiting; !errors.Is(err, net.ErrClosed) {
		t.Errorf("the own end: %v", err)
	}
	if got, err := io.ReadAll(client); string(got) != "last words" || err != nil {
		t.Errorf("the other end read %q, %v", got, err)
	}
	if _, err := client.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the other end wrote: %v", err)
	}
	_ = client.Close()
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after Close: %v", err)
	}
	if err := client.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
}

func TestPipe_HangsUpOnWhoNeverReads(t *testing.T) {
	client, server := newPipe()
	piece := make([]byte, 8<<20)
	var err error
	total := 0
	for range 20 {
		var n int
		if n, err = server.Write(piece); err != nil {
			break
		}
		total += n
	}
	if err == nil || total < replyLimit || total > replyLimit+len(piece) {
		t.Fatalf("%d bytes were taken, %v; the limit is %d", total, err, replyLimit)
	}
	if got, err := io.Copy(io.Discard, client); got != int64(total) || err != nil {
		t.Errorf("%d of %d bytes could be read, %v", got, total, err)
	}
}
