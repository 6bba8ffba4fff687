package main

import (
	"bytes"
	"os"
	"testing"
)

// run fails where the library does otherwise than is drawn.
func TestPicture_IsThatOfTheDocumentation(t *testing.T) {
	picture, err := run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	kept, err := os.ReadFile("../../docs/img/cache-timeline.svg")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(picture, kept) {
		t.Error("the picture in docs/img is another one; look at the difference, and write it with: go generate ./timeline")
	}
}
