package settings

import (
	"crypto/tls"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestValidate_FillsDefaultsAndIsStable(t *testing.T) {
	for name, tc := range map[string]struct{ in, want Values }{
		"zero":                         {Values{}, Values{Host: "localhost", Port: 6379}},
		"socket":                       {Values{Socket: "/s"}, Values{Socket: "/s"}},
		"IPv6":                         {Values{Host: "[::1]", Port: 1}, Values{Host: "::1", Port: 1}},
		"small MaxValueSize":           {Values{MaxValueSize: 1000}, Values{Host: "localhost", Port: 6379, MaxValueSize: 1000, BulkThreshold: 1000}},
		"Sentinel follows TLS":         {Values{TLS: TLS{Enabled: true}, Sentinel: Sentinel{Enabled: true, Addresses: []string{"h", "[::1]"}, ServiceName: "m"}}, Values{TLS: TLS{Enabled: true}, Sentinel: Sentinel{Enabled: true, Addresses: []string{"h:26379", "[::1]:26379"}, ServiceName: "m", UseTLS: new(bool)}}},
		"the cluster has the password": {Values{Password: "p", Cluster: Cluster{Enabled: true, Addresses: []string{"h", " [::1]:1 "}}}, Values{Password: "p", Cluster: Cluster{Enabled: true, Addresses: []string{"h:6379", "[::1]:1"}, Password: "p"}}},
	} {
		w := tc.want
		if w.Sentinel.UseTLS != nil {
			*w.Sentinel.UseTLS = true
		}
		w.MaxConnections, w.CommandTimeout, w.ConnectTimeout, w.DeployEnv = 20, 500*time.Millisecond, 5*time.Second, Development
		w.Sentinel.SocketTimeout = 100 * time.Millisecond
		if w.MaxValueSize == 0 {
			w.MaxValueSize, w.BulkThreshold = 64<<20, 64<<10
		}
		w.ClientName = programName()
		given := append([]string(nil), tc.in.Sentinel.Addresses...)
		got, err := tc.in.Validate()
		if err != nil || !reflect.DeepEqual(got, w) {
			t.Errorf("%s: %v\ngot  %v\nwant %v", name, err, got, w)
		}
		if !reflect.DeepEqual(given, append([]string(nil), tc.in.Sentinel.Addresses...)) {
			t.Errorf("%s: the caller's list was changed to %q", name, tc.in.Sentinel.Addresses)
		}
		if again, err := got.Validate(); err != nil || !reflect.DeepEqual(again, got) {
			t.Errorf("%s, validated again: %v\ngot  %v\nwant %v", name, err, again, got)
		}
	}
}

func TestValidate_Contradictions(t *testing.T) {
	certFile, keyFile := certificate(t)
	_, otherKey := certificate(t)
	dir := t.TempDir()
	noPEM := filepath.Join(dir, "text")
	if err := os.WriteFile(noPEM, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	on := true
	sentinel := Sentinel{Enabled: true, Addresses: []string{"h"}, ServiceName: "m"}
	cluster := Cluster{Enabled: true, Addresses: []string{"h"}}
	with := func(s Sentinel, change func(*Sentinel)) Sentinel { change(&s); return s }
	for name, tc := range map[string]struct {
		c             Values
		setting, want string
	}{
		"Sentinel and Cluster":        {Values{Sentinel: sentinel, Cluster: cluster}, "Config.Sentinel.Enabled", "Config.Cluster.Enabled"},
		"Sentinel without list":       {Values{Sentinel: with(sentinel, func(s *Sentinel) { s.Addresses = nil })}, "Config.Sentinel.Addresses", "not set"},
		"Sentinel without name":       {Values{Sentinel: with(sentinel, func(s *Sentinel) { s.ServiceName = "" })}, "Config.Sentinel.ServiceName", "no name"},
		"Sentinel with an odd name":   {Values{Sentinel: with(sentinel, func(s *Sentinel) { s.ServiceName = "a b" })}, "Config.Sentinel.ServiceName", "character"},
		"Sentinel with a bad port":    {Values{Sentinel: with(sentinel, func(s *Sentinel) { s.Addresses = []string{"a:1", "b:x"} })}, "Config.Sentinel.Addresses", `b:x`},
		"Sentinel with bare IPv6":     {Values{Sentinel: with(sentinel, func(s *Sentinel) { s.Addresses = []string{"::1:26379"} })}, "Config.Sentinel.Addresses", "needs brackets"},
		"Sentinel with an empty host": {Values{Sentinel: with(sentinel, func(s *Sentinel) { s.Addresses = []string{""} })}, "Config.Sentinel.Addresses", "missing"},
		"Sentinel timeout":            {Values{Sentinel: Sentinel{SocketTimeout: -1}}, "Config.Sentinel.SocketTimeout", "out of range"},
		"Cluster without list":        {Values{Cluster: Cluster{Enabled: true}}, "Config.Cluster.Addresses", "not set"},
		"Cluster with a database":     {Values{Cluster: cluster, DB: 1}, "Config.DB", "database 0"},
		"Cluster with bad list":       {Values{Cluster: Cluster{Enabled: true, Addresses: []string{"h:70000"}}}, "Config.Cluster.Addresses", "h:70000"},
		"negative database":           {Values{DB: -1}, "Config.DB", "from 0"},
		"port":                        {Values{Port: 70000}, "Config.Port", "65535"},
		"negative port":               {Values{Port: -1}, "Config.Port", "65535"},
		"port beside Sentinel":        {Values{Port: 70000, Sentinel: sentinel}, "Config.Port", "65535"},
		"connections":                 {Values{MaxConnections: 2}, "Config.MaxConnections", "from 3"},
		"command timeout":             {Values{CommandTimeout: time.Microsecond}, "Config.CommandTimeout", "1µs"},
		"connect timeout":             {Values{ConnectTimeout: 2 * time.Hour}, "Config.ConnectTimeout", "1h"},
		"bulk above the largest":      {Values{MaxValueSize: 10, BulkThreshold: 11}, "Config.BulkThreshold", "Config.MaxValueSize"},
		"negative size":               {Values{MaxValueSize: -1}, "Config.MaxValueSize", "from 1"},
		"host with port":              {Values{Host: "h:6379"}, "Config.Host", "Config.Port"},
		"host is a URL":               {Values{Host: "redis://u:" + secretMark + "@h"}, "Config.Host", "ParseURL"},
		"long socket":                 {Values{Socket: "/" + strings.Repeat("s", 107)}, "Config.Socket", "107"},
		"socket with control":         {Values{Socket: "/a\x00b"}, "Config.Socket", "control"},
		"socket and Sentinel":         {Values{Socket: "/s", Sentinel: sentinel}, "Config.Sentinel.Enabled", "Unix socket"},
		"socket and Cluster":          {Values{Socket: "/s", Cluster: cluster}, "Config.Cluster.Enabled", "Unix socket"},
		"socket and TLS":              {Values{Socket: "/s", TLS: TLS{Enabled: true}}, "Config.TLS.Enabled", "Unix socket"},
		"key prefix with {":           {Values{KeyPrefix: "a{"}, "Config.KeyPrefix", "slot"},
		"key prefix with }":           {Values{KeyPrefix: "}"}, "Config.KeyPrefix", "slot"},
		"key prefix with newline":     {Values{KeyPrefix: "a\n"}, "Config.KeyPrefix", "control"},
		"key prefix not UTF-8":        {Values{KeyPrefix: "\xff"}, "Config.KeyPrefix", "UTF-8"},
		"long key prefix":             {Values{KeyPrefix: strings.Repeat("a", 129)}, "Config.KeyPrefix", "128"},
		"client name with blank":      {Values{ClientName: "a b"}, "Config.ClientName", "blanks"},
		"long client name":            {Values{ClientName: strings.Repeat("a", 129)}, "Config.ClientName", "128"},
		"user with blank":             {Values{Username: "a b"}, "Config.Username", "blank"},
		"Sentinel user with blank":    {Values{Sentinel: Sentinel{Username: "a\tb"}}, "Config.Sentinel.Username", "blank"},
		"deploy environment":          {Values{DeployEnv: "TEST"}, "Config.DeployEnv", "PRODUCTION"},
		"embedded in production":      {Values{Embedded: true, DeployEnv: Production}, "Config.DeployEnv", "embedded"},

		"callback and user":              {Values{HasCredentials: true, Username: "u"}, "Config.Username", "Config.Credentials"},
		"callback and password":          {Values{HasCredentials: true, Password: secretMark}, "Config.Password", "***"},
		"callback and Sentinel user":     {Values{HasCredentials: true, Sentinel: Sentinel{Username: "u"}}, "Config.Sentinel.Username", "Config.Credentials"},
		"callback and Sentinel password": {Values{HasCredentials: true, Sentinel: Sentinel{Password: secretMark}}, "Config.Sentinel.Password", "***"},
		"callback and Cluster password":  {Values{HasCredentials: true, Cluster: Cluster{Password: secretMark}}, "Config.Cluster.Password", "***"},

		"CA without TLS":          {Values{TLS: TLS{CAFile: certFile}}, "Config.TLS.CAFile", "unencrypted"},
		"server name without TLS": {Values{TLS: TLS{ServerName: "n"}}, "Config.TLS.ServerName", "unencrypted"},
		"insecure without TLS":    {Values{TLS: TLS{InsecureSkipVerify: true}}, "Config.TLS.InsecureSkipVerify", "unencrypted"},
		"certificate without TLS": {Values{TLS: TLS{CertFile: certFile, KeyFile: keyFile}}, "Config.TLS.KeyFile", "unencrypted"},
		"TLS.Config without TLS":  {Values{TLS: TLS{Config: &tls.Config{}}}, "Config.TLS.Config", "unencrypted"},
		"TLS.Config and a file":   {Values{TLS: TLS{Enabled: true, Config: &tls.Config{}, CAFile: certFile}}, "Config.TLS.CAFile", "Config.TLS.Config"},
		"TLS.Config and insecure": {Values{TLS: TLS{Enabled: true, Config: &tls.Config{}, InsecureSkipVerify: true}}, "Config.TLS.InsecureSkipVerify", "Config.TLS.Config"},
		"certificate without key": {Values{TLS: TLS{Enabled: true, CertFile: certFile}}, "Config.TLS.CertFile", "Config.TLS.KeyFile"},
		"key without certificate": {Values{TLS: TLS{Enabled: true, KeyFile: keyFile}}, "Config.TLS.KeyFile", "Config.TLS.CertFile"},
		"no CA file":              {Values{TLS: TLS{Enabled: true, CAFile: filepath.Join(dir, "none")}}, "Config.TLS.CAFile", "no such file"},
		"a folder as CA file":     {Values{TLS: TLS{Enabled: true, CAFile: dir}}, "Config.TLS.CAFile", "cannot be read"},
		"a CA file that is none":  {Values{TLS: TLS{Enabled: true, CAFile: noPEM}}, "Config.TLS.CAFile", "no certificate"},
		"no certificate file":     {Values{TLS: TLS{Enabled: true, CertFile: filepath.Join(dir, "none"), KeyFile: keyFile}}, "Config.TLS.CertFile", "no such file"},
		"another key":             {Values{TLS: TLS{Enabled: true, CertFile: certFile, KeyFile: otherKey}}, "Config.TLS.CertFile", "do not go together"},
		"server name with port":   {Values{TLS: TLS{Enabled: true, ServerName: "h:1"}}, "Config.TLS.ServerName", "without a port"},
		"CA for Sentinels, no file": {
			Values{TLS: TLS{CAFile: filepath.Join(dir, "none")}, Sentinel: with(sentinel, func(s *Sentinel) { s.UseTLS = &on })},
			"Config.TLS.CAFile", "no such file",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := tc.c.Validate()
			wantProblem(t, err, tc.setting, tc.want)
			if n := len(problemsOf(err)); n > 2 {
				t.Errorf("%d problems for one mistake: %v", n, err)
			}
			if !reflect.DeepEqual(c, Values{}) {
				t.Errorf("an error and a configuration: %v", c)
			}
		})
	}
	_, err := Values{TLS: TLS{Enabled: true, CAFile: filepath.Join(dir, "none")}}.Validate()
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the cause, fs.ErrNotExist, is not to be found in %v", err)
	}
}

func TestValidate_SharesNoListWithTheCaller(t *testing.T) {
	for _, on := range []bool{false, true} {
		in := Values{
			Sentinel: Sentinel{Enabled: on, Addresses: []string{"s:1"}, ServiceName: "m"},
			Cluster:  Cluster{Addresses: []string{"c:1"}}, Warnings: []string{"w"},
		}
		out, err := in.Validate()
		if err != nil {
			t.Fatal(err)
		}
		out.Sentinel.Addresses[0], out.Cluster.Addresses[0], out.Warnings[0] = "x", "x", "x"
		if in.Sentinel.Addresses[0] != "s:1" || in.Cluster.Addresses[0] != "c:1" || in.Warnings[0] != "w" {
			t.Errorf("changed: %v %q", in, in.Warnings)
		}
	}
}

func TestValidate_Accepts(t *testing.T) {
	certFile, keyFile := certificate(t)
	on, off := true, false
	sentinel := Sentinel{Enabled: true, Addresses: []string{"h"}, ServiceName: "m-1.x:y_z"}
	for name, c := range map[string]Values{
		"the largest":              {Port: 65535, DB: 1 << 20, MaxConnections: 10000, CommandTimeout: time.Hour, ConnectTimeout: time.Millisecond, MaxValueSize: 1 << 30, BulkThreshold: 1 << 30, KeyPrefix: strings.Repeat("ä", 64)},
		"the least":                {Port: 1, MaxConnections: 3, CommandTimeout: time.Millisecond, MaxValueSize: 1, BulkThreshold: 1},
		"IPv6 with a zone":         {Host: "fe80::1%eth0"},
		"TLS with all files":       {TLS: TLS{Enabled: true, CAFile: certFile, CertFile: certFile, KeyFile: keyFile, ServerName: "redis.test"}},
		"TLS to the Sentinels":     {TLS: TLS{CAFile: certFile}, Sentinel: Sentinel{Enabled: true, Addresses: []string{"h"}, ServiceName: "m", UseTLS: &on}},
		"TLS but to the Sentinels": {TLS: TLS{Enabled: true}, Sentinel: Sentinel{Enabled: true, Addresses: []string{"h"}, ServiceName: "m", UseTLS: &off}},
		"own TLS":                  {TLS: TLS{Enabled: true, Config: &tls.Config{}}},
		"callback":                 {HasCredentials: true, Sentinel: sentinel},
		"host beside Sentinel":     {Host: "localhost", Port: 6379, Sentinel: sentinel},
		"production":               {DeployEnv: Production},
		"embedded":                 {Embedded: true},
	} {
		c, err := c.Validate()
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if len(c.Warnings) > 0 {
			t.Errorf("%s: %q", name, c.Warnings)
		}
	}
}

func TestValidate_Warnings(t *testing.T) {
	c, err := Values{
		TLS:      TLS{Enabled: true, InsecureSkipVerify: true},
		Sentinel: Sentinel{Addresses: []string{"h"}}, Cluster: Cluster{Addresses: []string{"h"}},
		Warnings: []string{"an earlier one"},
	}.Validate()
	if err != nil {
		t.Fatal(err)
	}
	wantWarning(t, c, "an earlier one")
	wantWarning(t, c, "INSECURE", "Config.TLS.InsecureSkipVerify", "Config.TLS.CAFile")
	wantWarning(t, c, "Config.Sentinel.Addresses", "Config.Sentinel.Enabled is off")
	wantWarning(t, c, "Config.Cluster.Addresses", "Config.Cluster.Enabled is off")

	c = fromEnv(t, map[string]string{"REDIS_USE_SSL": "1", "REDIS_SSL_INSECURE_SKIP_VERIFY": "1", "REDIS_SENTINELS": "h"})
	wantWarning(t, c, "INSECURE", "REDIS_SSL_INSECURE_SKIP_VERIFY", "REDIS_SSL_CA_FILE")
	wantWarning(t, c, "REDIS_SENTINELS", "REDIS_USE_SENTINEL is off")
	again, err := c.Validate()
	if err != nil || !reflect.DeepEqual(again.Warnings, c.Warnings) {
		t.Errorf("warnings after a second validation: %q, %v", again.Warnings, err)
	}
}

// tlsOf is the TLS of a new connection to host; nil when it is not encrypted.
func tlsOf(c Values, host string, on bool) (*tls.Config, error) {
	if !on {
		return nil, nil
	}
	base, err := c.LoadTLS()
	if err != nil {
		return nil, err
	}
	return NamedTLS(base, host), nil
}

func TestTLSConfig(t *testing.T) {
	certFile, keyFile := certificate(t)
	off, on := false, true
	c := Values{TLS: TLS{Enabled: true, CAFile: certFile, CertFile: certFile, KeyFile: keyFile}}
	got, err := tlsOf(c, "h.test", c.TLS.Enabled)
	if err != nil || got.MinVersion != tls.VersionTLS12 || got.InsecureSkipVerify || got.ServerName != "h.test" || got.RootCAs == nil || len(got.Certificates) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	c.TLS.ServerName, c.TLS.InsecureSkipVerify = "other.test", true
	if got, err = tlsOf(c, "h.test", c.TLS.Enabled); err != nil || got.ServerName != "other.test" || !got.InsecureSkipVerify {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err = tlsOf(c, "s", c.EncryptsSentinels()); err != nil || got == nil {
		t.Errorf("Sentinels do not follow: %v", err)
	}
	c.Sentinel.UseTLS = &off
	if got, err = tlsOf(c, "s", c.EncryptsSentinels()); err != nil || got != nil {
		t.Errorf("Sentinels without TLS: %v, %v", got, err)
	}
	own := &tls.Config{MinVersion: tls.VersionTLS13}
	c = Values{TLS: TLS{Config: own}, Sentinel: Sentinel{UseTLS: &on}}
	if got, err = tlsOf(c, "h", c.TLS.Enabled); err != nil || got != nil {
		t.Errorf("TLS off: %v, %v", got, err)
	}
	if got, err = tlsOf(c, "s", c.EncryptsSentinels()); err != nil || got == own || got.MinVersion != tls.VersionTLS13 || got.ServerName != "s" || own.ServerName != "" {
		t.Errorf("own configuration: %+v, %v", got, err)
	}
	c = Values{TLS: TLS{Enabled: true, CAFile: "/nowhere/ca.pem"}}
	_, err = tlsOf(c, "h", c.TLS.Enabled)
	wantProblem(t, err, "Config.TLS.CAFile", "/nowhere/ca.pem")
}

// A TLS handshake with what tlsOf gives: the right name passes, a wrong
// name and an unknown authority do not.
func TestTLSConfig_Verifies(t *testing.T) {
	certFile, keyFile := certificate(t)
	otherFile, _ := certificate(t)
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.(*tls.Conn).Handshake()
			_ = conn.Close()
		}
	}()
	for name, tc := range map[string]struct {
		t    TLS
		host string
		ok   bool
	}{
		"right":             {TLS{CAFile: certFile}, "redis.test", true},
		"right by setting":  {TLS{CAFile: certFile, ServerName: "redis.test"}, "127.0.0.1", true},
		"wrong name":        {TLS{CAFile: certFile}, "other.test", false},
		"wrong authority":   {TLS{CAFile: otherFile}, "redis.test", false},
		"system's":          {TLS{}, "redis.test", false},
		"verification off":  {TLS{InsecureSkipVerify: true}, "other.test", true},
		"own configuration": {TLS{Config: &tls.Config{}}, "redis.test", false},
	} {
		tc.t.Enabled = true
		cfg, err := tlsOf(Values{TLS: tc.t}, tc.host, true)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := tls.Dial("tcp", l.Addr().String(), cfg)
		if err == nil {
			_ = conn.Close()
		}
		if (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
