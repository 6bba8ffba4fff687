package cache

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// A key is made of everything that a handler may make its response of: the URL
// with scheme and host, what proxies say was asked for, HTTPOptions.KeyHeaders,
// and whether the request has credentials. All else must be named by Vary.

// askedHeaders are those by which proxies, and attackers, say what was asked
// for. Frameworks make links and redirects of them.
var askedHeaders = map[string]bool{
	"Front-End-Https": true, "X-Forwarded-Host": true, "X-Forwarded-Port": true, "X-Forwarded-Prefix": true,
	"X-Forwarded-Proto": true, "X-Forwarded-Protocol": true, "X-Forwarded-Scheme": true, "X-Forwarded-Server": true,
	"X-Forwarded-Ssl": true, "X-Host": true, "X-Http-Host-Override": true, "X-Original-Host": true,
	"X-Original-Uri": true, "X-Original-Url": true, "X-Rewrite-Url": true, "X-Url-Scheme": true,
}

// bypassed says whether the cache has nothing to do with a GET or HEAD.
func (h *HTTP) bypassed(r *http.Request) bool {
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

// conditions are the headers of a request that do not reach the handler in a
// load: its response is for everybody.
var conditions = []string{"If-None-Match", "If-Modified-Since", "If-Range"}

// cleaned is the request without the parameters and cookies that do not matter.
func (h *HTTP) cleaned(r *http.Request) *http.Request {
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
	if query == r.URL.RawQuery && slices.Equal(cookies, sent) {
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
	delete(r.Header, "Cookie")
	if cookies != nil {
		r.Header["Cookie"] = cookies
	}
	return r
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
func (h *HTTP) credentials(r *http.Request) (authorization, cookie bool) {
	authorization = r.Header["Authorization"] != nil || r.TLS != nil && len(r.TLS.PeerCertificates) > 0
	cookie = r.Header["Cookie"] != nil
	for _, name := range h.opt.Credentials {
		cookie = cookie || r.Header[name] != nil
	}
	return authorization, cookie
}

// Entries for requests with credentials are apart from the others: what was
// made for somebody who is known is never served to somebody who is not, nor
// the other way round.
const (
	keyAnonymous = "a|"
	keyKnown     = "k|"
)

// keyOf is the rest of the key of a cleaned request.
func (h *HTTP) keyOf(r *http.Request) string {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	var b strings.Builder
	for _, s := range []string{scheme, "://", strings.ToLower(r.Host), r.URL.EscapedPath()} {
		b.WriteString(s)
	}
	if r.URL.RawQuery != "" {
		b.WriteByte('?')
		b.WriteString(sortedQuery(r.URL.RawQuery))
	}
	if path := askedPath(r); path != "" {
		line(&b, "asked", path)
	}
	if u := r.URL; u.Scheme != "" || u.Host != "" || u.User != nil { // handlers may see that it is so
		line(&b, u.Scheme, u.User.String()+"@"+u.Host)
	}
	h.keyHeaders(&b, r.Header)
	return b.String()
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

func (h *HTTP) keyHeaders(b *strings.Builder, header http.Header) {
	var asked []string
	for name := range header {
		if askedHeaders[name] {
			asked = append(asked, name)
		}
	}
	slices.Sort(asked)
	for _, name := range asked {
		for _, v := range header[name] {
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
func variantKey(key, gen string, vary []string, header http.Header) string {
	b := make([]byte, 0, 512)
	b = appendText(appendText(b, key), gen)
	for _, name := range vary {
		b = appendText(b, name)
		name = http.CanonicalHeaderKey(name)
		values := header[name]
		if len(values) == 0 || slices.Contains(conditions, name) { // of these the handler sees none
			b = append(b, 0)
			continue
		}
		b = appendText(append(b, 1), normalized(name, values)) // an empty one is not an absent one
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
	case "Accept-Charset", "Accept-Encoding", "Accept-Language":
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
	if name == "Accept-Encoding" { // their order means nothing
		slices.Sort(parts)
	}
	return strings.Join(parts, ",")
}
