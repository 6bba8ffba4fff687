package madcrowtest

import (
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"testing"
)

// OlderThan says whether the server program that the tests run on is older
// than a version of Redis, such as "7.0": for a test of what that version
// brought. Other programs count as the version of Redis that they stand in
// for: Valkey as 7.2. t is nil in TestMain, for examples, which cannot skip
// themselves.
func OlderThan(t testing.TB, version string) bool {
	if t == nil {
		t = &mainTB{}
	}
	t.Helper()
	return programVersion(findBinary(t)).less(parseVersion(version))
}

type redisVersion struct{ major, minor int }

func (v redisVersion) less(w redisVersion) bool {
	return v.major < w.major || v.major == w.major && v.minor < w.minor
}

var (
	programVersions sync.Map // of redisVersion, by the path of the program
	versionText     = regexp.MustCompile(`^Redis server v=(\d+\.\d+)`)
)

// programVersion asks a program for its version.
func programVersion(path string) redisVersion {
	if v, ok := programVersions.Load(path); ok {
		return v.(redisVersion)
	}
	v := redisVersion{7, 2}
	if out, err := exec.Command(path, "--version").Output(); err == nil {
		if m := versionText.FindSubmatch(out); m != nil {
			v = parseVersion(string(m[1]))
		}
	}
	programVersions.Store(path, v)
	return v
}

func parseVersion(text string) (v redisVersion) {
	if _, err := fmt.Sscanf(text, "%d.%d", &v.major, &v.minor); err != nil {
		panic("madcrowtest: " + strconv.Quote(text) + " is no version: write it as 7.0")
	}
	return v
}
