// Command madcrow serves the HTTP API of Madcrow; see madcrow --help.
package main

import (
	"context"
	"os"

	"github.com/madcrow-go/madcrow/cmd/madcrow/internal/cli"
)

func main() {
	os.Exit(cli.Main(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}
