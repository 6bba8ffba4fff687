package cli

import (
	"fmt"
	"io"
	"os"
	"regexp"
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
	err := loadDotenv(file)
	switch {
	case err == nil, !asked && os.IsNotExist(err):
		return nil
	case os.IsNotExist(err):
		return usageError{fmt.Errorf("--env-file: there is no file %q", file)}
	}
	// The parser's text can quote the line, and with it a secret.
	return usageError{fmt.Errorf("%s is not a valid .env file: expected lines of NAME=value", file)}
}

// loadDotenv reads a file as the Python service does: there ${NAME} stands for
// another setting, and $NAME for itself.
func loadDotenv(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	lines := strings.SplitAfter(string(data), "\n")
	for i, line := range lines {
		if name, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(strings.TrimLeft(value, " \t"), "'") {
			lines[i] = name + "=" + bareDollar.ReplaceAllString(value, `$1\$$$2`)
		}
	}
	settings, err := godotenv.Unmarshal(strings.Join(lines, ""))
	if err != nil {
		return err
	}
	for name, value := range settings {
		if _, set := os.LookupEnv(name); !set {
			if err := os.Setenv(name, value); err != nil {
				return err
			}
		}
	}
	return nil
}

// bareDollar is one that begins no ${NAME} and is not escaped.
var bareDollar = regexp.MustCompile(`(^|[^\\$])\$([^{$]|$)`)

// printConfig shows what is in force. Secrets are only said to be set.
func printConfig(w io.Writer, cfg madcrow.Config) error {
	secret := func(set bool) string {
		if set {
			return "(set)"
		}
		return "(none)"
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, text string) { _, _ = fmt.Fprintf(tw, "%s\t%s\n", name, text) }
	switch {
	case !(madcrow.Env{}).NamesRedis() && cfg.Require:
		row("mode", "none: "+noRedis)
	case !(madcrow.Env{}).NamesRedis():
		row("mode", "embedded, in memory (set REDIS_HOST to use a real Redis)")
	default:
		row("mode", modeOf(cfg))
		for _, r := range whereIs(cfg) {
			row(r[0], r[1])
		}
	}
	password := cfg.Password
	if cfg.Cluster.Enabled {
		password = cfg.Cluster.Password
	}
	row("user", cfg.Username)
	row("password", secret(password != ""))
	if s := cfg.Sentinel; s.Enabled {
		row("sentinel user", s.Username)
		row("sentinel password", secret(s.Password != ""))
		tls := cfg.TLS.Enabled
		if s.UseTLS != nil {
			tls = *s.UseTLS
		}
		row("sentinel tls", strconv.FormatBool(tls))
		row("sentinel timeout", s.SocketTimeout.String())
	}
	for _, r := range [][2]string{
		{"database", strconv.Itoa(cfg.DB)},
		{"tls", strconv.FormatBool(cfg.TLS.Enabled)},
		{"tls verified", strconv.FormatBool(cfg.TLS.Enabled && !cfg.TLS.InsecureSkipVerify)},
		{"key prefix", cfg.KeyPrefix},
		{"connections", strconv.Itoa(cfg.MaxConnections)},
		{"command timeout", cfg.CommandTimeout.String()},
		{"connect timeout", cfg.ConnectTimeout.String()},
		{"redis required at start", strconv.FormatBool(cfg.Require)},
		{"api token", secret(os.Getenv(envToken)+os.Getenv(envToken+"_FILE") != "")},
	} {
		row(r[0], r[1])
	}
	for _, warning := range cfg.Warnings {
		row("warning", warning)
	}
	return tw.Flush()
}

func modeOf(cfg madcrow.Config) string {
	switch {
	case cfg.Sentinel.Enabled:
		return "sentinel"
	case cfg.Cluster.Enabled:
		return "cluster"
	}
	return "standalone"
}
