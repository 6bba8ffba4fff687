package httpcache

import (
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/madcrow-go/madcrow/internal/binfmt"
	"github.com/madcrow-go/madcrow/internal/cachelimit"
)

// A key is made of everything that a handler may make its response of: the URL
// with scheme and host, what proxies say was asked for, Options.KeyHeaders,
// and whether the request has credentials. All else must be named by Vary.
//
// No one vouches for what a header says, so all of it only separates entries.
// What a change removes is found by the URL alone, see [Cache.urlTags], and the
// entries of one URL are bounded, see [exchange.admit].

// askedHeaders are those by which proxies, and attackers, say what was asked
// for, beside those of askedPrefixes. Frameworks make links and redirects of
// them.
var askedHeaders = map[string]bool{
	"Base-Url": true, "Cf-Visitor": true, "Cloudfront-Forwarded-Proto": true, "Front-End-Https": true, "Host-Override": true,
	"Http-Host": true, "Proxy-Host": true, "Proxy-Url": true, "Request-Uri": true, "Script-Name": true,
	"X-Arr-Ssl": true, "X-Backend-Host": true, "X-Base-Url": true, "X-Host": true, "X-Host-Override": true, "X-Hostname": true,
	"X-Http-Host-Override": true, "X-Ms-Original-Url": true, "X-Path": true, "X-Proto": true, "X-Proxy-Host": true, "X-Proxy-Url": true,
	"X-Real-Host": true, "X-Real-Proto": true, "X-Real-Scheme": true, "X-Real-Uri": true, "X-Real-Url": true,
	"X-Request-Uri": true, "X-Request-Url": true, "X-Scheme": true, "X-Script-Name": true, "X-Server-Name": true, "X-Ssl": true,
	"X-Uri": true, "X-Url": true, "X-Url-Scheme": true, "X-Waws-Unencoded-Url": true,
}

// askedPrefixes begin the names of more of them. Proxies make up new ones, so
// what is not known to be about the way is taken for one.
var askedPrefixes = []string{"X-Forwarded-", "X-Original-", "X-Rewrite-", "X-Replaced-", "X-Envoy-Original-"}

// aboutTheWay end the names of headers that say by where, or from whom, a
// request came.
var aboutTheWay = []string{"-For", "-By", "-Server", "-Ip", "-Addr", "-Address", "-Request-Id"}

// asked says whether a header says what was asked for.
func asked(name string) bool {
	if len(name) < 2 || name[0] != 'X' || name[1] != '-' {
		return askedHeaders[name]
	}
	for _, prefix := range askedPrefixes {
		if strings.HasPrefix(name, prefix) {
			return !slices.ContainsFunc(aboutTheWay, func(end string) bool { return strings.HasSuffix(name, end) })
		}
	}
	return askedHeaders[name]
}

// identityHeaders are those by which a proxy says who the client is, or he
// himself does, beside those of identityPrefixes.
var identityHeaders = map[string]bool{
	"Api-Key": true, "Apikey": true, "Ocp-Apim-Subscription-Key": true, "Remote-Email": true, "Remote-Groups": true,
	"Remote-Name": true, "Remote-User": true, "X-Access-Token": true, "X-Api-Key": true, "X-Apigateway-Api-Userinfo": true,
	"X-Auth-Token": true, "X-Credential-Identifier": true, "X-Endpoint-Api-Userinfo": true,
	"X-Forwarded-Access-Token": true, "X-Forwarded-Email": true, "X-Forwarded-Groups": true, "X-Forwarded-Preferred-Username": true,
	"X-Forwarded-User": true, "X-Goog-Api-Key": true, "X-Goog-Iap-Jwt-Assertion": true, "X-Remote-Email": true,
	"X-Remote-Groups": true, "X-Remote-Name": true, "X-Remote-User": true, "X-Serverless-Authorization": true, "X-Userinfo": true,
}

// identityPrefixes begin the names of more of them, by their first letter.
var identityPrefixes = map[byte][]string{
	'C': {"Cf-Access-", "Client-Cert"},
	'S': {"Ssl-Client-"},
	'T': {"Tailscale-User-"},
	'X': {
		"X-Amzn-Mtls-", "X-Amzn-Oidc-", "X-Auth-Request-", "X-Authenticated-", "X-Authentik-", "X-Client-Cert-", "X-Consumer-",
		"X-Goog-Authenticated-User-", "X-Ms-Client-Principal", "X-Ms-Token-", "X-Pomerium-", "X-Ssl-Client-", "X-Vouch-", "X-Webauth-",
	},
}

// identifies says whether a header says who the client is.
func identifies(name string) bool {
	if name == "" || identityHeaders[name] {
		return name != ""
	}
	for _, prefix := range identityPrefixes[name[0]] {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// bypassed says whether the cache has nothing to do with a GET or HEAD.
func (h *Cache) bypassed(r *http.Request) bool {
	if r.ContentLength != 0 { // a handler may make its response of the body
		return true
	}
	for _, name := range []string{
		"Range", "Upgrade", "If-Match", "If-Unmodified-Since",
		"X-Http-Method-Override", "X-Http-Method", "X-Method-Override",
	} {
		if r.Header[name] != nil {
			return true
		}
	}
	return h.opt.Bypass != nil && h.opt.Bypass(r)
}

// unseen are the headers of a request that do not reach the handler in a load:
// its response is for everybody. The last two name a proxy on the way.
var unseen = []string{"If-None-Match", "If-Modified-Since", "If-Range", "X-Forwarded-Server", "X-Forwarded-By"}

// cleaned is the request without the parameters and cookies that do not matter.
func (h *Cache) cleaned(r *http.Request) *http.Request {
	query := r.URL.RawQuery
	if h.opt.Query != nil && query != "" {
		query = joinKept(query, "&", func(part string) bool { return h.opt.Query(queryName(part)) })
	}
	var cookies []string
	sent := r.Header["Cookie"]
	if h.opt.Cookie != nil && sent != nil {
		kept := joinKept(strings.Join(sent, ";"), ";", func(part string) bool {
			name, _, _ := strings.Cut(part, "=")
			return h.opt.Cookie(strings.TrimSpace(name))
		})
		if kept != "" {
			cookies = []string{kept}
		}
	} else {
		cookies = sent
	}
	claims := h.cleanedClaims(r.Header)
	if query == r.URL.RawQuery && claims == nil && slices.Equal(cookies, sent) {
		return r
	}
	r = r.WithContext(r.Context())
	u := *r.URL
	u.RawQuery = query
	path := askedPath(r)
	if r.URL, r.RequestURI = &u, u.RequestURI(); path != "" {
		r.RequestURI = path + strings.TrimPrefix(r.RequestURI, u.EscapedPath())
	}
	r.Header = r.Header.Clone()
	maps.Copy(r.Header, claims)
	delete(r.Header, "Cookie")
	if cookies != nil {
		r.Header["Cookie"] = cookies
	}
	return r
}

// cleanedClaims are those headers that name a URL with parameters that do not
// matter, without these.
func (h *Cache) cleanedClaims(header http.Header) (claims http.Header) {
	if h.opt.Query == nil {
		return nil
	}
	for name, values := range header {
		if !asked(name) || !slices.ContainsFunc(values, func(v string) bool { return strings.Contains(v, "?") }) {
			continue
		}
		kept := make([]string, len(values))
		for i, v := range values {
			path, query, _ := strings.Cut(v, "?")
			if kept[i] = path; query != "" {
				query = joinKept(query, "&", func(part string) bool { return h.opt.Query(queryName(part)) })
			}
			if query != "" {
				kept[i] += "?" + query
			}
		}
		if claims == nil {
			claims = http.Header{}
		}
		claims[name] = kept
	}
	return claims
}

func joinKept(s, sep string, keep func(string) bool) string {
	var kept []string
	for part := range strings.SplitSeq(s, sep) {
		if part = strings.TrimSpace(part); part != "" && keep(part) {
			kept = append(kept, part)
		}
	}
	if sep == ";" {
		sep = "; "
	}
	return strings.Join(kept, sep)
}

// queryName is the name of a parameter as a handler sees it.
func queryName(part string) string {
	name, _, _ := strings.Cut(part, "=")
	if plain, err := url.QueryUnescape(name); err == nil {
		return plain
	}
	return name
}

// credentials says by what the client may be known.
func (h *Cache) credentials(r *http.Request) (authorization, cookie bool) {
	authorization = r.Header["Authorization"] != nil || r.TLS != nil && len(r.TLS.PeerCertificates) > 0
	cookie = r.Header["Cookie"] != nil
	for _, name := range h.opt.Credentials {
		cookie = cookie || r.Header[name] != nil
	}
	for name := range r.Header {
		cookie = cookie || identifies(name)
	}
	return authorization, cookie
}

// Requests with credentials have entries of their own: what was
// made for somebody who is known is never served to somebody who is not, nor
// the other way round.
const (
	keyAnonymous = "a|"
	keyKnown     = "k|"
)

// address is where the responses to a request are.
type address struct {
	url  string // part of the key: without what headers say
	key  string
	tags []string // of all that is stored of the URL
}

// addressOf is the address of a cleaned request, of one of the two kinds.
func (h *Cache) addressOf(r *http.Request, kind string) (a address) {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	u := r.URL
	escaped, query, path := u.EscapedPath(), sortedQuery(u.RawQuery), askedPath(r)
	var b strings.Builder
	b.Grow(len(kind) + len(r.Host) + len(h.engine.Name()) + 2*(len(escaped)+len(query)+len(path)) + 64)
	for _, s := range []string{kind, scheme, "://", strings.ToLower(r.Host), "\n"} {
		b.WriteString(s)
	}
	start := b.Len()
	plain := path == "" && isPlainURL(escaped, query)
	if plain { // the tag is a piece of the key
		h.writeTag(&b, escaped, query)
	} else {
		b.WriteString(escaped)
		b.WriteString("?")
		b.WriteString(query)
	}
	end := b.Len()
	if path != "" {
		line(&b, "asked", path)
	}
	if u.Scheme != "" || u.Host != "" || u.User != nil { // handlers may see that it is so
		line(&b, u.Scheme, u.User.String()+"@"+u.Host)
	}
	urlEnd := b.Len()
	h.keyHeaders(&b, r.Header)
	a.key = b.String()
	a.url = a.key[:urlEnd]
	if tag := a.key[start:end]; plain && len(tag) <= cachelimit.MaxTagSize {
		a.tags = []string{tag}
	} else {
		a.tags = h.urlTags(r)
	}
	return a
}

// urlTag begins the tags of URLs.
const urlTag = "url|"

func (h *Cache) writeTag(b *strings.Builder, path, query string) {
	for _, s := range []string{urlTag, h.engine.Name(), "|", path} {
		b.WriteString(s)
	}
	if query != "" {
		b.WriteString("?")
		b.WriteString(query)
	}
}

// urlTags are the tags of all that is stored of the URL of a request: of the
// path that was asked for, and of that which the handler sees. A change removes
// the first one.
func (h *Cache) urlTags(r *http.Request) []string {
	query := normalQuery(r.URL.RawQuery)
	own := h.tagOf(r.URL.Path, query)
	path := askedPath(r)
	if path == "" {
		return []string{own}
	}
	if plain, err := url.PathUnescape(path); err == nil {
		path = plain
	}
	if outer := h.tagOf(path, query); outer != own {
		return []string{outer, own}
	}
	return []string{own}
}

// tagOf is the tag of a path, without its escapes, and a query in normal form.
// It says nothing of the scheme and the host: behind proxies no one knows which
// names one page has, and to remove too much costs a run of the handler.
func (h *Cache) tagOf(plain, query string) string {
	var b strings.Builder
	h.writeTag(&b, normalPath(plain), query)
	if b.Len() <= cachelimit.MaxTagSize {
		return b.String()
	}
	sum := sha256.Sum256([]byte(b.String()))
	return urlTag + h.engine.Name() + "|" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// normalPath is the same for all paths that some router takes for the same.
func normalPath(plain string) string { return path.Clean("/" + plain) }

// normalQuery is the same for all queries that a handler may take for the same.
func normalQuery(query string) string {
	parts := strings.Split(query, "&")
	for i, part := range parts {
		if plain, err := url.QueryUnescape(part); err == nil {
			part = plain
		}
		parts[i] = strings.TrimSuffix(part, "=")
	}
	parts = slices.DeleteFunc(parts, func(s string) bool { return s == "" })
	slices.Sort(parts)
	return strings.Join(parts, "&")
}

// isPlainURL says that an escaped path and a query are as normalPath and
// normalQuery make them.
func isPlainURL(escaped, query string) bool {
	return strings.IndexByte(escaped, '%') < 0 && !strings.ContainsAny(query, "%+&") &&
		!strings.HasSuffix(query, "=") && path.Clean(escaped) == escaped && escaped[0] == '/'
}

// askedPath is the path that the client asked for, where the handler sees
// another one, as behind http.StripPrefix; otherwise "".
func askedPath(r *http.Request) string {
	path, _, _ := strings.Cut(r.RequestURI, "?")
	if !strings.HasPrefix(path, "/") || path == r.URL.EscapedPath() {
		return ""
	}
	if u, err := url.ParseRequestURI(path); err != nil || u.EscapedPath() == r.URL.EscapedPath() {
		return ""
	}
	return path
}

// line adds a part; no part holds a newline.
func line(b *strings.Builder, name, value string) {
	for _, s := range []string{"\n", name, ":", value} {
		b.WriteString(s)
	}
}

func (h *Cache) keyHeaders(b *strings.Builder, header http.Header) {
	var claims []string
	for name := range header {
		if asked(name) {
			claims = append(claims, name)
		}
	}
	slices.Sort(claims)
	for _, name := range claims {
		for _, v := range header[name] {
			if path, query, ok := strings.Cut(v, "?"); ok {
				v = path + "?" + sortedQuery(query)
			}
			line(b, name, v)
		}
	}
	for _, name := range h.opt.KeyHeaders {
		for _, v := range header[name] {
			line(b, name, v)
		}
	}
	for _, v := range header["Forwarded"] { // by and for are the client's
		for part := range splitOutsideQuotes(v, ",;") {
			name, value, _ := strings.Cut(part, "=")
			if name = strings.ToLower(strings.TrimSpace(name)); name != "for" && name != "by" {
				line(b, name, value)
			}
		}
	}
}

// sortedQuery sorts the parameters by name; what has one name keeps its order,
// for that is what handlers see.
func sortedQuery(query string) string {
	if strings.IndexByte(query, '&') < 0 {
		return query
	}
	parts := slices.DeleteFunc(strings.Split(query, "&"), func(s string) bool { return s == "" })
	slices.SortStableFunc(parts, func(a, b string) int { return strings.Compare(queryName(a), queryName(b)) })
	return strings.Join(parts, "&")
}

// variantKey is the key of one of the variants of a URL, and what makes it
// differ from the others.
func (h *Cache) variantKey(key, gen string, vary []string, header http.Header) string {
	b := make([]byte, 0, 512)
	b = binfmt.AppendText(binfmt.AppendText(b, key), gen)
	for _, name := range vary {
		b = binfmt.AppendText(b, name)
		name = http.CanonicalHeaderKey(name)
		values := header[name]
		if len(values) == 0 && name != "Accept-Encoding" || slices.Contains(unseen, name) { // of these the handler sees none
			b = append(b, 0)
			continue
		}
		if name == "Accept-Encoding" {
			b = binfmt.AppendText(append(b, 1), h.codings.of(values))
			continue
		}
		b = binfmt.AppendText(append(b, 1), normalized(name, values)) // an empty one is not an absent one
	}
	sum := sha256.Sum256(b)
	return "v|" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// normalized is the value of a header, without differences that mean nothing.
func normalized(name string, values []string) string {
	all := values[0]
	if len(values) > 1 {
		sep := ", "
		if name == "Cookie" {
			sep = "; "
		}
		all = strings.Join(values, sep)
	}
	switch name {
	case "Accept-Charset", "Accept-Language":
		all = strings.ReplaceAll(strings.ToLower(all), " ", "")
	case "Accept": // its parameters may have case, and spaces
	default:
		return all
	}
	parts := make([]string, 0, 8)
	for part := range splitOutsideQuotes(all, ",") {
		if part = strings.TrimSpace(part); part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, ",")
}
