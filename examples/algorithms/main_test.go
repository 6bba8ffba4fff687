package main

import (
	"bytes"
	"os"
	"testing"
)

// run fails where an algorithm breaks its promise.
func TestPicture_IsThatOfTheDocumentation(t *testing.T) {
	picture, err := run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	kept, err := os.ReadFile("../../docs/img/ratelimit-algorithms.svg")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(picture, kept) {
		t.Error("docs/img/ratelimit-algorithms.svg is not what the program draws: run go generate here, and look at it")
	}
}
