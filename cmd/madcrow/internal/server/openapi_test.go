package server

import (
	"encoding/json"
	"flag"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/madcrow-go/madcrow/madcrowtest"
)

var update = flag.Bool("update", false, "write the golden files")

func newDiscardLog() *slog.Logger { return slog.New(slog.NewJSONHandler(io.Discard, nil)) }

func TestOpenAPI_IsAsAgreed(t *testing.T) {
	w := startWeb(t, madcrowtest.StartRedis(t).Config())
	a := w.do("GET", "/openapi.json", "")
	golden := filepath.Join("testdata", "openapi.json")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, []byte(a.body+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if a.body+"\n" != string(want) {
		t.Errorf("/openapi.json differs from %s; look at the difference, and write it with: go test -run OpenAPI ./internal/server -update", golden)
	}
	var doc struct {
		OpenAPI string
		Paths   map[string]any
	}
	if err := json.Unmarshal([]byte(a.body), &doc); err != nil || doc.OpenAPI != "3.1.0" || len(doc.Paths) != 12 {
		t.Errorf("%v: version %s, %d paths", err, doc.OpenAPI, len(doc.Paths))
	}
}
