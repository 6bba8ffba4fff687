package httpwriter

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// noting sets a field before the header and notes the statuses that it is given.
type noting struct {
	Writer
	got []int
}

func (n *noting) BeforeHeader(status int) {
	n.got = append(n.got, status)
	n.Header().Set("X-Late", "yes")
}

func wrap(w http.ResponseWriter) *noting {
	n := &noting{}
	n.Init(w, n)
	return n
}

// bare is a writer that cannot flush.
type bare struct{ http.ResponseWriter }

// stolen gives its connection away.
type stolen struct{ http.ResponseWriter }

func (stolen) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, nil }

func TestWriter_CallsTheHookOnceBeforeTheHeader(t *testing.T) {
	for name, write := range map[string]func(w *noting){
		"WriteHeader": func(w *noting) { w.WriteHeader(http.StatusCreated); w.WriteHeader(http.StatusAccepted) },
		"Write":       func(w *noting) { _, _ = w.Write([]byte("a")); _, _ = w.Write([]byte("b")) },
		"WriteString": func(w *noting) { _, _ = io.WriteString(w, "a") },
		"ReadFrom":    func(w *noting) { _, _ = io.Copy(w, strings.NewReader("a")) },
		"Flush":       func(w *noting) { _ = http.NewResponseController(w).Flush(); w.Flush() },
	} {
		t.Run(name, func(t *testing.T) {
			rec := httptest.NewRecorder()
			w := wrap(rec)
			write(w)
			want := http.StatusOK
			if name == "WriteHeader" {
				want = http.StatusCreated
			}
			if !slices.Equal(w.got, []int{want}) || w.Status() != want {
				t.Errorf("the hook saw %v, the status is %d", w.got, w.Status())
			}
			if rec.Result().Header.Get("X-Late") != "yes" {
				t.Error("the hook came after the header")
			}
		})
	}
}

func TestWriter_InformationalAnswersAreNotTheHeader(t *testing.T) {
	w := wrap(httptest.NewRecorder())
	w.WriteHeader(http.StatusEarlyHints)
	if w.Status() != 0 || len(w.got) != 0 {
		t.Errorf("after 103: %d, %v", w.Status(), w.got)
	}
	w.WriteHeader(http.StatusSwitchingProtocols)
	if w.Status() != http.StatusSwitchingProtocols {
		t.Errorf("after 101: %d", w.Status())
	}
}

func TestWriter_AnUnsupportedFlushSendsNothing(t *testing.T) {
	w := wrap(bare{httptest.NewRecorder()})
	if err := w.FlushError(); err == nil || w.Status() != 0 {
		t.Fatalf("%v, status %d", err, w.Status())
	}
	w.WriteHeader(http.StatusTeapot)
	if !slices.Equal(w.got, []int{http.StatusOK, http.StatusTeapot}) || w.Status() != http.StatusTeapot {
		t.Errorf("%v, status %d", w.got, w.Status())
	}
}

// A copy counted as sent before its first byte: an error of the source could not be
// answered any more.
func TestWriter_AnEmptySourceSendsNothing(t *testing.T) {
	for name, src := range map[string]io.Reader{"empty": strings.NewReader(""), "failing": iotest.ErrReader(io.ErrUnexpectedEOF)} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
				w := wrap(rw)
				if n, _ := io.Copy(w, src); n != 0 || w.Status() != 0 {
					t.Errorf("%d bytes, status %d", n, w.Status())
				}
				w.WriteHeader(http.StatusTeapot)
			}))
			defer srv.Close()
			res, err := http.Get(srv.URL)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if res.StatusCode != http.StatusTeapot || res.Header.Get("X-Late") != "yes" {
				t.Errorf("%d, %v", res.StatusCode, res.Header)
			}
		})
	}
}

func TestWriter_AHijackedConnectionHasNoHeader(t *testing.T) {
	w := wrap(stolen{httptest.NewRecorder()})
	if _, _, err := w.Hijack(); err != nil || w.Status() != http.StatusSwitchingProtocols || len(w.got) != 0 {
		t.Errorf("%v, %d, %v", err, w.Status(), w.got)
	}
	w = wrap(httptest.NewRecorder())
	if _, _, err := w.Hijack(); err == nil || w.Status() != 0 {
		t.Errorf("%v, %d", err, w.Status())
	}
}
