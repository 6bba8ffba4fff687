package settings

import (
	"net/url"
	"strconv"
	"strings"

	"github.com/madcrow-go/madcrow/internal/envvalue"
)

// paramKind says what is done with a parameter that other libraries know.
type paramKind uint8

const (
	paramIgnored paramKind = iota // of no use here, and harmless: one warning names it
	paramSetting                  // it is a setting
	paramMillis                   // it is a setting, in milliseconds
	paramVerify                   // a word; all but the ones listed weaken TLS
	paramSkip                     // true weakens TLS
	paramCheck                    // false weakens TLS
	paramTLS                      // says whether there is TLS, as the scheme does
)

// urlParam is one parameter of the URLs of other libraries.
type urlParam struct {
	kind  paramKind
	field string   // of Values, of a setting
	words []string // in lower case, that verify in full
}

// urlParams are those of redis-py, Celery, go-redis, rueidis, ioredis and
// lettuce. What would change which data is used, such as a prefix or further
// addresses, is not among them, and stays an error.
var urlParams = func() map[string]urlParam {
	m := map[string]urlParam{
		"ssl_cert_reqs": {kind: paramVerify, words: []string{"required", "cert_required"}},
		"verifyPeer":    {kind: paramVerify, words: []string{"full", "true"}},
	}
	add := func(p urlParam, names ...string) {
		for _, name := range names {
			m[name] = p
		}
	}
	add(urlParam{kind: paramSetting, field: "ClientName"}, "client_name", "clientName", "connectionName")
	add(urlParam{kind: paramSetting, field: "ConnectTimeout"}, "socket_connect_timeout", "dial_timeout")
	add(urlParam{kind: paramMillis, field: "ConnectTimeout"}, "connectTimeout")
	add(urlParam{kind: paramSetting, field: "CommandTimeout"}, "socket_timeout", "read_timeout")
	add(urlParam{kind: paramMillis, field: "CommandTimeout"}, "commandTimeout")
	add(urlParam{kind: paramSetting, field: "MaxConnections"}, "max_connections", "pool_size")
	add(urlParam{kind: paramSetting, field: "TLS.CAFile"}, "ssl_ca_certs")
	add(urlParam{kind: paramSetting, field: "TLS.CertFile"}, "ssl_certfile")
	add(urlParam{kind: paramSetting, field: "TLS.KeyFile"}, "ssl_keyfile")
	add(urlParam{kind: paramSkip}, "skip_verify", "insecure", "insecure_skip_verify", "tls_insecure", "tls_skip_verify")
	add(urlParam{kind: paramCheck}, "ssl_check_hostname", "rejectUnauthorized")
	add(urlParam{kind: paramTLS}, "ssl", "tls")
	add(
		urlParam{kind: paramIgnored},
		// redis-py and Celery
		"timeout", "protocol", "health_check_interval", "socket_keepalive", "retry_on_timeout", "retry_on_error",
		"decode_responses", "encoding", "encoding_errors", "single_connection_client", "lib_name", "lib_version",
		"virtual_host", "visibility_timeout", "socket_read_size",
		// go-redis and rueidis
		"write_timeout", "max_retries", "min_retry_backoff", "max_retry_backoff", "pool_fifo", "pool_timeout", "min_idle_conns",
		"max_idle_conns", "max_active_conns", "conn_max_idle_time", "conn_max_lifetime", "idle_timeout", "idle_check_frequency",
		"max_conn_age", "max_redirects", "context_timeout_enabled", "client_cache", "disable_identity", "identity_suffix",
		// ioredis and lettuce
		"family", "keepAlive", "noDelay", "enableReadyCheck", "enableOfflineQueue", "maxRetriesPerRequest",
		"libraryName", "libraryVersion",
	)
	return m
}()

// foreign reads a parameter of another library; false: it is not known.
func (p *urlParser) foreign(name, value string, tls bool) bool {
	param, known := urlParams[name]
	if !known {
		return false
	}
	weak := false
	switch param.kind {
	case paramIgnored:
		p.ignored = append(p.ignored, name)
	case paramSetting, paramMillis:
		p.asSetting(name, value, param)
	case paramVerify:
		weak = true
		for _, word := range param.words {
			weak = weak && !strings.EqualFold(word, value)
		}
	case paramSkip, paramCheck:
		on, err := envvalue.Bool(value)
		weak = err != nil || on == (param.kind == paramSkip)
	case paramTLS:
		if on, err := envvalue.Bool(value); err != nil || on != tls {
			p.bad("the parameter "+name+" and the scheme do not say the same about TLS", "remove it, and write rediss:// for TLS, redis:// without")
		}
	}
	if weak {
		p.bad("the parameter "+name+" would leave the server's certificate unverified", "remove it, and name the authority in REDIS_SSL_CA_FILE; REDIS_SSL_INSECURE_SKIP_VERIFY=true does it on purpose")
	}
	return true
}

// asSetting sets the field that a parameter means.
func (p *urlParser) asSetting(name, value string, param urlParam) {
	s := byField[param.field]
	if param.kind == paramMillis {
		value += "ms"
	}
	var probe Values
	if value == "" {
		p.bad("the parameter "+name+" is empty", "remove it, or set "+s.name)
		return
	}
	if err := s.parse(&probe, value); err != nil {
		p.bad("the parameter "+name+" is no value of "+s.name+": "+err.Error(), "remove it, or set "+s.name)
		return
	}
	if p.set[param.field] && s.text(&probe) != s.text(&p.cfg) {
		p.bad("two parameters say something different of "+s.name, "keep one")
		return
	}
	_ = s.parse(&p.cfg, value)
	p.mark(param.field)
}

// isServiceLink says whether a value is what Kubernetes and Docker write for a
// service: tcp://10.0.0.1:6379.
func isServiceLink(value string) bool {
	for _, scheme := range []string{"tcp://", "udp://", "sctp://"} {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(value), scheme); ok {
			n, err := strconv.Atoi(rest[strings.LastIndexByte(rest, ':')+1:])
			return err == nil && n > 0
		}
	}
	return false
}

// params reads the query; which names are known depends on the topology.
func (p *urlParser) params(query string, topo urlTopology, tls bool) map[string]string {
	values := map[string]string{}
	for pair := range strings.SplitSeq(query, "&") {
		if pair == "" {
			continue
		}
		name, encoded, _ := strings.Cut(pair, "=")
		value, err := url.QueryUnescape(encoded)
		if !knownParam(name, topo) {
			if err == nil && p.foreign(name, value, tls) {
				continue
			}
			p.bad("unknown parameter "+strconv.Quote(clip(name)), "remove it; known are "+paramNames(topo))
			continue
		}
		if err != nil {
			p.bad("the percent-encoding of the parameter "+name+" is broken", "write % itself as %25")
			continue
		}
		if name == "sentinelMasterId" {
			name = "master"
		}
		if _, twice := values[name]; twice {
			p.bad("the parameter "+name+" is given twice", "keep one")
			continue
		}
		values[name] = value
	}
	return values
}

func knownParam(name string, topo urlTopology) bool {
	switch name {
	case "db":
		return true
	case "master", "sentinelMasterId", "sentinel_username", "sentinel_password":
		return topo == sentinels
	}
	return false
}

func paramNames(topo urlTopology) string {
	const common = "db, client_name, dial_timeout, read_timeout, pool_size, ssl_ca_certs, ssl_certfile, ssl_keyfile"
	if topo == sentinels {
		return common + ", master (or sentinelMasterId), sentinel_username, sentinel_password"
	}
	return common
}
