package settings

import (
	"net"
	"net/url"
	"strconv"
	"strings"
)

// urlTopology is what stands behind a URL.
type urlTopology uint8

const (
	standalone urlTopology = iota
	unixSocket
	sentinels
	clustered
)

// urlSchemes are all schemes that a URL may have.
var urlSchemes = []struct {
	name string
	topo urlTopology
	tls  bool
}{
	{"redis", standalone, false},
	{"rediss", standalone, true},
	{"valkey", standalone, false},
	{"valkeys", standalone, true},
	{"unix", unixSocket, false},
	{"redis+unix", unixSocket, false},
	{"redis-sentinel", sentinels, false},
	{"rediss-sentinel", sentinels, true},
	{"redis+sentinel", sentinels, false},
	{"rediss+sentinel", sentinels, true},
	{"redis-cluster", clustered, false},
	{"rediss-cluster", clustered, true},
}

// ParseURL reads one URL, and nothing that is beyond it. The error is
// [Problems] and repeats no credentials, however broken the URL is.
func ParseURL(raw string) (Values, error) {
	p := parseURL("URL", raw)
	if err := p.problems.orNil(); err != nil {
		return Values{}, err
	}
	p.cfg.Origin = &Origin{urlSetting: p.setting, url: p.shown, fromURL: p.set}
	p.cfg.Origin.remember(&p.cfg)
	return p.cfg, nil
}

// urlParser is one URL being read. It splits by hand, since net/url refuses
// lists with IPv6 addresses and repeats credentials in its errors.
type urlParser struct {
	setting  string // how errors call the URL
	shown    string // the URL without secrets
	cfg      Values
	set      map[string]bool // the fields that the URL contains
	ignored  []string        // parameters of other libraries
	problems Problems
}

func parseURL(setting, raw string) *urlParser {
	raw = strings.TrimSpace(raw)
	p := &urlParser{setting: setting, shown: shownURL(raw), set: map[string]bool{}}
	p.parse(raw)
	if len(p.ignored) > 0 {
		p.cfg.Warnings = append(p.cfg.Warnings, setting+": these parameters of other libraries have no use here and are ignored: "+strings.Join(p.ignored, ", "))
	}
	return p
}

// bad records a problem; neither text may repeat a part of the URL that could
// be a secret.
func (p *urlParser) bad(reason, fix string) {
	p.problems = append(p.problems, Problem{Setting: p.setting, Value: p.shown, Reason: reason, Fix: fix})
}

func (p *urlParser) parse(raw string) {
	name, rest, found := strings.Cut(raw, "://")
	if !found {
		p.bad("it has no scheme", "begin with one of "+knownSchemes())
		return
	}
	topo, tls, known := lookupScheme(name)
	if !known {
		p.bad("unknown scheme", "use one of "+knownSchemes())
		return
	}
	authority, path, query, ok := p.split(rest)
	if !ok {
		return
	}
	hosts := p.credentials(authority)
	params := p.params(query, topo, tls)
	p.cfg.TLS.Enabled = tls
	p.mark("TLS.Enabled", "Host", "Port", "Socket", "Sentinel.Enabled", "Sentinel.Addresses", "Cluster.Enabled", "Cluster.Addresses")
	switch topo {
	case standalone:
		p.hostAndPort(hosts)
		p.dbPath(path)
	case unixSocket:
		p.socket(hosts, path)
	case sentinels:
		p.cfg.Sentinel.Enabled = true
		p.cfg.Sentinel.Addresses = p.hostList(hosts, DefaultSentinelPort)
		p.sentinelPath(path, params)
	case clustered:
		p.cfg.Cluster.Enabled = true
		p.cfg.Cluster.Addresses = p.hostList(hosts, DefaultPort)
		p.dbPath(path)
	}
	if db, ok := params["db"]; ok {
		p.database(db)
	}
}

// split cuts what follows the scheme, and refuses what would make it unclear
// where the credentials end.
func (p *urlParser) split(rest string) (authority, path, query string, ok bool) {
	for i := range len(rest) {
		if c := rest[i]; c <= ' ' || c == 0x7f {
			p.bad("it holds a blank or a control character", "write it percent-encoded, a blank as %20")
			return "", "", "", false
		}
	}
	if strings.Contains(rest, "#") {
		p.bad("it holds a #, which ends a URL", "write it as %23")
		return "", "", "", false
	}
	rest, query, _ = strings.Cut(rest, "?")
	authority = rest
	if slash := strings.IndexByte(rest, '/'); slash >= 0 {
		authority, path = rest[:slash], rest[slash:]
	}
	if strings.Contains(path, "@") || strings.Contains(query, "@") {
		// Most likely a password with a raw "/" or "?" in it.
		p.bad("an @ follows the first / or ?", "write / as %2F, ? as %3F and @ as %40 inside names and passwords")
		return "", "", "", false
	}
	return authority, path, query, true
}

func (p *urlParser) mark(fields ...string) {
	for _, f := range fields {
		p.set[f] = true
	}
}

// credentials reads what stands before the last @ and returns the rest.
func (p *urlParser) credentials(authority string) (hosts string) {
	at := strings.LastIndexByte(authority, '@')
	if at < 0 {
		return authority
	}
	user, password, both := strings.Cut(authority[:at], ":")
	if !both {
		user, password = "", user
	}
	p.secret(user, "Username", &p.cfg.Username)
	p.secret(password, "Password", &p.cfg.Password)
	return authority[at+1:]
}

// secret decodes a name or password into *to; an empty one says nothing.
func (p *urlParser) secret(encoded, field string, to *string) {
	v, err := url.PathUnescape(encoded)
	if err != nil {
		p.bad("the percent-encoding of the user or the password is broken", "write % itself as %25")
		return
	}
	if v != "" {
		*to = v
		p.mark(field)
	}
}

// address reads one host of the URL.
func (p *urlParser) address(item string, defaultPort int) (host string, port int) {
	if strings.HasPrefix(item, "[") {
		item = strings.Replace(item, "%25", "%", 1) // the zone of a link-local address
	}
	host, port, reason := splitAddress(item, defaultPort)
	if reason != "" {
		p.bad(reason, "write host:port, a port from 1 to 65535, an IPv6 address in brackets")
	}
	return host, port
}

func (p *urlParser) hostAndPort(hosts string) {
	if strings.Contains(hosts, ",") {
		p.bad("several hosts", "name one, or use redis-sentinel:// or redis-cluster://")
		return
	}
	switch {
	case hosts == "":
		hosts = DefaultHost
	case hosts[0] == ':':
		hosts = DefaultHost + hosts
	}
	p.cfg.Host, p.cfg.Port = p.address(hosts, DefaultPort)
}

func (p *urlParser) hostList(hosts string, defaultPort int) []string {
	var out []string
	for item := range strings.SplitSeq(hosts, ",") {
		host, port := p.address(item, defaultPort)
		out = append(out, net.JoinHostPort(host, strconv.Itoa(port)))
	}
	return out
}

func (p *urlParser) socket(hosts, path string) {
	file, err := url.PathUnescape(path)
	if hosts != "" || err != nil || len(file) < 2 {
		p.bad("no absolute path of a socket", "write unix:///run/redis.sock, with three slashes")
		return
	}
	p.cfg.Socket = file
}

// dbPath reads "", "/", "/number" or "/number/".
func (p *urlParser) dbPath(path string) {
	if path = strings.TrimSuffix(strings.TrimPrefix(path, "/"), "/"); path != "" {
		p.database(path)
	}
}

// sentinelPath reads "/name", "/name/db", "/db" (a number) and the parameters.
func (p *urlParser) sentinelPath(path string, params map[string]string) {
	s := &p.cfg.Sentinel
	first, db, two := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if db == "" {
		two = false // a slash at the end
	}
	db = strings.TrimSuffix(db, "/")
	name, err := url.PathUnescape(first)
	if err != nil {
		p.bad("the percent-encoding of the path is broken", "write % itself as %25")
		return
	}
	master := params["master"]
	if !two && (master != "" || isNumber(first)) {
		name, db = "", first
	}
	if name != "" && master != "" && name != master {
		p.bad("the path and the query name different masters", "keep one")
	}
	if s.ServiceName = master; master == "" {
		s.ServiceName = name
	}
	if s.ServiceName != "" {
		p.mark("Sentinel.ServiceName")
	}
	if db != "" {
		p.database(db)
	}
	for name, to := range map[string]*string{"username": &s.Username, "password": &s.Password} {
		if v := params["sentinel_"+name]; v != "" {
			*to = v
			p.mark("Sentinel." + strings.ToUpper(name[:1]) + name[1:])
		}
	}
}

// database sets the number of the database, which may be said twice alike.
func (p *urlParser) database(s string) {
	db, err := strconv.Atoi(s)
	if err != nil || !isNumber(s) || int64(db) > maxDB {
		p.bad("the database is not a number from 0 on", "write it after the host, as in redis://host:6379/0")
		return
	}
	if p.set["DB"] && p.cfg.DB != db {
		p.bad("the path and the query name different databases", "keep one")
		return
	}
	p.cfg.DB = db
	p.mark("DB")
}

func isNumber(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

func lookupScheme(name string) (topo urlTopology, tls, known bool) {
	for _, s := range urlSchemes {
		if strings.EqualFold(s.name, name) {
			return s.topo, s.tls, true
		}
	}
	return 0, false, false
}

func knownSchemes() string {
	var b strings.Builder
	for i, s := range urlSchemes {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(s.name + "://")
	}
	return b.String()
}
