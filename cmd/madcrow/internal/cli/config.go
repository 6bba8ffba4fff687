package cli

import (
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/joho/godotenv"
	"github.com/spf13/cobra"

	"github.com/madcrow-go/madcrow"
)

const defaultEnvFile = ".env"

func addEnvFileFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "env-file", defaultEnvFile, "read settings from this `file`; the real environment wins")
}

// loadEnvFile adds a file's settings to the environment, where they are not
// set. That the default file is missing is normal.
func loadEnvFile(file string, asked bool) error {
	if file == "" {
		return nil
	}
	err := godotenv.Load(file)
	switch {
	case err == nil, !asked && os.IsNotExist(err):
		return nil
	case os.IsNotExist(err):
		return usageError{fmt.Errorf("--env-file: there is no file %q", file)}
	}
	// The parser's text can quote the line, and with it a secret.
	return usageError{fmt.Errorf("%s is not a valid .env file: expected lines of NAME=value", file)}
}

// printConfig shows what is in force. Secrets are only said to be set.
func printConfig(w io.Writer, cfg madcrow.Config) error {
	secret := func(s string) string {
		if s == "" {
			return "(none)"
		}
		return "(set)"
	}
	where := net.JoinHostPort(cfg.Host, strconv.Itoa(cfg.Port))
	switch {
	case !(madcrow.Env{}).NamesRedis() && !cfg.Require:
		where = "embedded, in memory (set REDIS_HOST to use a real Redis)"
	case cfg.Sentinel.Enabled:
		where = "sentinel " + cfg.Sentinel.ServiceName + " at " + strings.Join(cfg.Sentinel.Addresses, ", ")
	case cfg.Cluster.Enabled:
		where = "cluster at " + strings.Join(cfg.Cluster.Addresses, ", ")
	case cfg.Socket != "":
		where = cfg.Socket
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range [][2]string{
		{"redis", where},
		{"user", cfg.Username},
		{"password", secret(cfg.Password)},
		{"database", strconv.Itoa(cfg.DB)},
		{"tls", strconv.FormatBool(cfg.TLS.Enabled)},
		{"tls verified", strconv.FormatBool(cfg.TLS.Enabled && !cfg.TLS.InsecureSkipVerify)},
		{"key prefix", cfg.KeyPrefix},
		{"connections", strconv.Itoa(cfg.MaxConnections)},
		{"command timeout", cfg.CommandTimeout.String()},
		{"connect timeout", cfg.ConnectTimeout.String()},
		{"redis required at start", strconv.FormatBool(cfg.Require)},
		{"api token", secret(os.Getenv(envToken) + os.Getenv(envToken+"_FILE"))},
	} {
		_, _ = fmt.Fprintf(tw, "%s\t%s\n", row[0], row[1])
	}
	for _, warning := range cfg.Warnings {
		_, _ = fmt.Fprintf(tw, "warning\t%s\n", warning)
	}
	return tw.Flush()
}
