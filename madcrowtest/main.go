package madcrowtest

import (
	"fmt"
	"os"
	"slices"
	"testing"
)

// RunWithRedis is for TestMain: it starts one server for a whole package, for
// its examples above all, hands it to use, runs the tests and stops the
// server.
//
//	func TestMain(m *testing.M) {
//		madcrowtest.RunWithRedis(m, func(s *madcrowtest.Server) { config = s.Config() })
//	}
func RunWithRedis(m *testing.M, use func(*Server), opts ...Option) {
	t := &mainTB{}
	defer t.cleanUp()
	use(StartRedis(t, opts...))
	m.Run()
}

// mainTB is what StartRedis needs of a test where there is none.
type mainTB struct {
	testing.TB // nil: the methods that StartRedis does not call
	cleanups   []func()
}

func (t *mainTB) Helper() {}

func (t *mainTB) Cleanup(f func()) { t.cleanups = append(t.cleanups, f) }

func (t *mainTB) cleanUp() {
	for _, f := range slices.Backward(t.cleanups) {
		f()
	}
	t.cleanups = nil
}

func (t *mainTB) TempDir() string {
	dir, err := os.MkdirTemp("", "madcrowtest-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (t *mainTB) Error(args ...any) { fmt.Fprintln(os.Stderr, args...) }

func (t *mainTB) Errorf(format string, args ...any) { t.Error(fmt.Sprintf(format, args...)) }

func (t *mainTB) Fatal(args ...any) {
	t.Error(args...)
	t.cleanUp()
	os.Exit(1)
}

func (t *mainTB) Fatalf(format string, args ...any) { t.Fatal(fmt.Sprintf(format, args...)) }

// Skip ends the run: every test of the package needs the server.
func (t *mainTB) Skip(args ...any) {
	t.Error(args...)
	t.cleanUp()
	os.Exit(0)
}
