package settings

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/madcrow-go/madcrow/internal/envvalue"
)

const (
	maxKeyPrefix  = 128
	maxClientName = 128
	maxSocketPath = 107 // what the kernel takes
)

// validator gathers what is wrong with Values.
type validator struct {
	in         Values // as given, for names and values
	c          Values // with defaults
	problems   Problems
	tlsUnknown bool // what would turn TLS on could not be read
}

// Validate returns v with its defaults filled in, or one error, [Problems],
// that lists every problem. It changes nothing that v points to. Validating
// the result again gives the same.
func (v Values) Validate() (Values, error) {
	x := validator{in: v, c: v}
	x.run()
	if err := x.problems.orNil(); err != nil {
		return Values{}, err
	}
	return x.c, nil
}

func (v *validator) run() {
	v.c.Warnings = slices.Clone(v.in.Warnings)
	v.c.Sentinel.Addresses = slices.Clone(v.in.Sentinel.Addresses)
	v.c.Cluster.Addresses = slices.Clone(v.in.Cluster.Addresses)
	v.c.fillDefaults()
	if v.c.ClientName == "" {
		v.c.ClientName = programName()
	}
	if v.c.Sentinel.Enabled && v.c.Sentinel.UseTLS == nil {
		follow := v.c.TLS.Enabled
		v.c.Sentinel.UseTLS = &follow
	}
	if v.c.Cluster.Enabled && v.c.Cluster.Password == "" {
		v.c.Cluster.Password = v.c.Password
	}
	v.ranges()
	v.host()
	v.texts()
	v.topology()
	v.credentials()
	v.tls()
}

// add records a problem with a field.
func (v *validator) add(field, reason, fix string) { v.addCause(field, reason, fix, nil) }

func (v *validator) addCause(field, reason, fix string, err error) {
	name, value := v.in.Origin.describe(&v.in, field)
	v.problems = append(v.problems, Problem{Setting: name, Value: value, Reason: reason, Fix: fix, Err: err})
}

// name is what the author of the configuration calls a field.
func (v *validator) name(field string) string {
	name, _ := v.in.Origin.describe(&v.in, field)
	return name
}

// warn records a finding once.
func (v *validator) warn(text string) {
	if !slices.Contains(v.c.Warnings, text) {
		v.c.Warnings = append(v.c.Warnings, text)
	}
}

// fillDefaults gives empty fields the defaults of the table.
func (v *Values) fillDefaults() {
	if v.BulkThreshold == 0 && v.MaxValueSize > 0 {
		v.BulkThreshold = min(DefaultBulkThreshold, v.MaxValueSize)
	}
	for _, s := range table {
		if s.path == "" || (s.path == "Host" || s.path == "Port") && !v.usesHost() {
			continue
		}
		s.fill(v)
	}
}

// ranges checks numbers, sizes and durations.
func (v *validator) ranges() {
	for _, s := range table {
		if s.path == "" || s.path == "Port" && v.c.Port == 0 && !v.c.usesHost() {
			continue
		}
		if !s.inRange(&v.c) {
			v.add(s.path, envvalue.ErrRange.Error(), s.fix)
		}
	}
	if v.c.BulkThreshold > v.c.MaxValueSize && v.c.MaxValueSize > 0 {
		v.add("BulkThreshold", fmt.Sprintf("it is more than %s, %d", v.name("MaxValueSize"), v.c.MaxValueSize),
			"lower the one or raise the other")
	}
}

// host checks what a standalone Redis is reached by.
func (v *validator) host() {
	if host, ok := strings.CutPrefix(v.c.Host, "["); ok {
		if host, ok = strings.CutSuffix(host, "]"); ok {
			v.c.Host = host
		}
	}
	if reason := badHost(v.c.Host); v.c.Host != "" && reason != "" {
		if ip, err := netip.ParseAddr(v.c.Host); err != nil || !ip.Is6() {
			fix := "give a name or an address only; the port goes into " + v.name("Port")
			if strings.Contains(v.c.Host, "://") {
				fix = "a whole URL goes into REDIS_URL or ParseURL"
			}
			v.add("Host", "no name or address of a host: "+reason, fix)
		}
	}
	if len(v.c.Socket) > maxSocketPath {
		v.add("Socket", fmt.Sprintf("the path is longer than %d bytes", maxSocketPath), "use a shorter path")
	}
	if strings.ContainsFunc(v.c.Socket, unicode.IsControl) {
		v.add("Socket", "the path holds a control character", "remove it")
	}
}

// texts checks what is sent to Redis or becomes part of keys.
func (v *validator) texts() {
	prefix := v.c.KeyPrefix
	switch {
	case len(prefix) > maxKeyPrefix:
		v.add("KeyPrefix", fmt.Sprintf("it is longer than %d bytes", maxKeyPrefix), "use a shorter one")
	case strings.ContainsAny(prefix, "{}"):
		v.add("KeyPrefix", "a brace would put every key into one slot of a cluster", "remove { and }")
	case strings.ContainsFunc(prefix, unicode.IsControl) || !utf8.ValidString(prefix):
		v.add("KeyPrefix", "it holds a control character or is no UTF-8", "remove what cannot be printed")
	}
	switch name := v.c.ClientName; {
	case len(name) > maxClientName:
		v.add("ClientName", fmt.Sprintf("it is longer than %d bytes", maxClientName), "use a shorter one")
	case strings.ContainsFunc(name, notInClientName):
		v.add("ClientName", "Redis takes only printable ASCII without blanks", "use letters, digits, - and _")
	}
	for _, t := range []struct{ field, text string }{
		{"Username", v.c.Username}, {"Sentinel.Username", v.c.Sentinel.Username},
	} {
		if strings.ContainsFunc(t.text, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
			v.add(t.field, "the name of a user holds no blank and no control character", "remove it")
		}
	}
	if v.c.TLS.ServerName != "" && badHost(v.c.TLS.ServerName) != "" {
		if _, err := netip.ParseAddr(v.c.TLS.ServerName); err != nil {
			v.add("TLS.ServerName", "no name of a host", "give the name in the certificate, without a port")
		}
	}
	if v.c.DeployEnv != Development && v.c.DeployEnv != Production {
		v.add("DeployEnv", "it is neither "+Development+" nor "+Production, byField["DeployEnv"].fix)
	}
	if v.c.Embedded && v.c.DeployEnv == Production {
		v.add("DeployEnv", "an embedded Redis keeps its data in this process and is for development only", "name a Redis, or set "+Development)
	}
}

func notInClientName(r rune) bool { return r <= ' ' || r > '~' }

// topology checks that one Redis is meant, and completely named.
func (v *validator) topology() {
	s, c := &v.c.Sentinel, &v.c.Cluster
	if s.Enabled && c.Enabled {
		v.add("Sentinel.Enabled", "Sentinel and Cluster exclude each other, and both are on",
			"turn off "+v.name("Sentinel.Enabled")+" or "+v.name("Cluster.Enabled"))
	}
	if s.Enabled {
		s.Addresses = v.addresses("Sentinel.Addresses", s.Addresses, DefaultSentinelPort)
		switch {
		case s.ServiceName == "":
			v.add("Sentinel.ServiceName", "Sentinel is on and the master has no name",
				"set the name that the Sentinels know the master by; in a URL ?master=name")
		case strings.ContainsFunc(s.ServiceName, notInServiceName):
			v.add("Sentinel.ServiceName", "it holds a character that no name of a master has", "use letters, digits and . - _ :")
		}
	} else if len(s.Addresses) > 0 {
		v.warn(v.name("Sentinel.Addresses") + " is not used, for " + v.name("Sentinel.Enabled") + " is off")
	}
	if c.Enabled {
		c.Addresses = v.addresses("Cluster.Addresses", c.Addresses, DefaultPort)
		if v.c.DB > 0 {
			v.add("DB", "a cluster has only database 0", "remove it, or turn "+v.name("Cluster.Enabled")+" off")
		}
	} else if len(c.Addresses) > 0 {
		v.warn(v.name("Cluster.Addresses") + " is not used, for " + v.name("Cluster.Enabled") + " is off")
	}
	if v.c.Socket == "" {
		return
	}
	for _, x := range []struct {
		field string
		on    bool
	}{{"Sentinel.Enabled", s.Enabled}, {"Cluster.Enabled", c.Enabled}, {"TLS.Enabled", v.c.TLS.Enabled}} {
		if x.on {
			v.add(x.field, "it does not go together with a Unix socket", "turn it off, or use a host in the place of "+v.name("Socket"))
		}
	}
}

func notInServiceName(r rune) bool {
	return r <= ' ' || r == 0x7f || strings.ContainsRune(`;&=/@?#,"'\`, r)
}

// addresses returns the list with ports.
func (v *validator) addresses(field string, list []string, defaultPort int) []string {
	if len(list) == 0 {
		v.add(field, "it is needed and not set", "list at least one host:port, separated by commas")
		return nil
	}
	out, bad, reason := normalAddresses(list, defaultPort)
	if reason != "" {
		v.add(field, reason+fmt.Sprintf(", in %q", shown(bad)), "list host:port, a port from 1 to 65535, an IPv6 address in brackets")
	}
	return out
}

// credentials checks that they have one source.
func (v *validator) credentials() {
	if !v.c.HasCredentials {
		return
	}
	for _, t := range []struct{ field, text string }{
		{"Username", v.in.Username},
		{"Password", v.in.Password},
		{"Sentinel.Username", v.in.Sentinel.Username},
		{"Sentinel.Password", v.in.Sentinel.Password},
		{"Cluster.Password", v.in.Cluster.Password},
	} {
		if t.text != "" {
			v.add(t.field, "Config.Credentials is set too, and stands in its place", "keep one of the two")
		}
	}
}

// tls checks the options and opens the files.
func (v *validator) tls() {
	t := v.c.TLS
	on := t.Enabled || v.c.Sentinel.Enabled && v.c.EncryptsSentinels()
	if !on && !v.tlsUnknown {
		for _, field := range tlsOptions(t) {
			// An error and no warning: who names an authority believes that
			// no one can read the password on its way.
			v.add(field, "TLS is off, so everything, passwords too, would travel unencrypted",
				"turn TLS on ("+v.name("TLS.Enabled")+", in a URL rediss://), or remove it")
		}
		return
	}
	if t.Config != nil {
		for _, field := range tlsOptions(t) {
			if field != "TLS.Config" {
				v.add(field, "Config.TLS.Config is set too, and stands in its place", "keep one of the two")
			}
		}
		return
	}
	if t.CertFile != "" && t.KeyFile == "" {
		v.add("TLS.CertFile", "the certificate has no key", "set "+v.name("TLS.KeyFile"))
	}
	if t.KeyFile != "" && t.CertFile == "" {
		v.add("TLS.KeyFile", "the key has no certificate", "set "+v.name("TLS.CertFile"))
	}
	v.loadTLS()
	if t.InsecureSkipVerify {
		v.warn("INSECURE: " + v.name("TLS.InsecureSkipVerify") + " is on, so no certificate is verified and anybody on the way to Redis can read and change everything; name the authority in " + v.name("TLS.CAFile") + " instead")
	}
}

// tlsOptions are the fields that are set, Enabled aside.
func tlsOptions(t TLS) []string {
	var set []string
	for _, o := range []struct {
		field string
		set   bool
	}{
		{"TLS.CAFile", t.CAFile != ""},
		{"TLS.CertFile", t.CertFile != ""},
		{"TLS.KeyFile", t.KeyFile != ""},
		{"TLS.ServerName", t.ServerName != ""},
		{"TLS.InsecureSkipVerify", t.InsecureSkipVerify},
		{"TLS.Config", t.Config != nil},
	} {
		if o.set {
			set = append(set, o.field)
		}
	}
	return set
}

// programName is the name of this program as Redis takes it.
func programName() string {
	name := strings.Map(func(r rune) rune {
		if notInClientName(r) {
			return -1
		}
		return r
	}, filepath.Base(os.Args[0]))
	if name = name[:min(len(name), maxClientName)]; name == "" || name == "." {
		return "madcrow"
	}
	return name
}
