package httpcache

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/madcrow-go/madcrow/internal/httpwriter"
)

// change lets a method pass that changes something.
func (h *Cache) change(w http.ResponseWriter, r *http.Request, next http.Handler) {
	cleaned := h.cleaned(r)
	tags := h.urlTags(cleaned)[:1] // the handler may change the URL
	cw := &changeWriter{}
	cw.Init(w, cw)
	cw.changed = func() {
		for _, name := range []string{"Location", "Content-Location"} {
			tags = union(tags, h.tagsOfReference(cleaned, w.Header().Get(name)))
		}
		// The handler's client may be gone; the change stays.
		_ = h.engine.RemoveTags(context.WithoutCancel(r.Context()), tags) // it is queued, or cannot be
	}
	h.forward(cw, r, next, "fwd=method")
	cw.BeforeHeader(http.StatusOK)
}

// tagsOfReference are the tags of a URL that the response to r names, if it is
// of the same origin: RFC 9111 §4.4.
func (h *Cache) tagsOfReference(r *http.Request, reference string) []string {
	if reference == "" {
		return nil
	}
	base := url.URL{Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
	if path := askedPath(r); path != "" {
		if u, err := url.ParseRequestURI(path); err == nil {
			base.Path, base.RawPath = u.Path, u.RawPath
		}
	}
	u, err := base.Parse(reference)
	if err != nil || u.Host != "" && !sameHost(r, u.Host) || u.Opaque != "" {
		return nil
	}
	cleaned := h.cleaned(&http.Request{URL: &url.URL{Path: u.Path, RawPath: u.RawPath, RawQuery: u.RawQuery}})
	query := normalQuery(cleaned.URL.RawQuery)
	tags := []string{h.tagOf(u.Path, query)}
	for _, prefix := range r.Header["X-Forwarded-Prefix"] { // the proxy takes it away
		if rest, ok := strings.CutPrefix(u.Path, strings.TrimSuffix(prefix, "/")); ok && prefix != "" {
			tags = append(tags, h.tagOf(rest, query))
		}
	}
	return tags
}

// sameHost says whether a request was made to a host, as far as is known behind
// proxies.
func sameHost(r *http.Request, host string) bool {
	names := []string{r.Host, r.URL.Host}
	for name, values := range r.Header {
		if asked(name) && strings.HasSuffix(name, "Host") {
			names = append(names, values...)
		}
	}
	for _, v := range r.Header["Forwarded"] {
		for part := range splitOutsideQuotes(v, ",;") {
			if name, value, _ := strings.Cut(part, "="); strings.EqualFold(strings.TrimSpace(name), "host") {
				names = append(names, strings.Trim(value, `" `))
			}
		}
	}
	return slices.ContainsFunc(names, func(name string) bool { return name != "" && withoutPort(name) == withoutPort(host) })
}

// withoutPort is a host without a port that goes without saying.
func withoutPort(host string) string {
	host = strings.ToLower(host)
	return strings.TrimSuffix(strings.TrimSuffix(host, ":80"), ":443")
}

// changeWriter removes what is stored when the handler begins to report success.
type changeWriter struct {
	httpwriter.Writer
	decided bool
	changed func()
}

// BeforeHeader is called by [httpwriter.Writer], and once more when the handler
// has returned: it may have written nothing.
func (w *changeWriter) BeforeHeader(status int) {
	if w.decided {
		return
	}
	if w.decided = true; status < http.StatusBadRequest {
		w.changed()
	}
}

// Delete removes what is stored of the URL of r, in all variants: whatever the
// scheme and the host, whoever asks, and through whatever proxy. Of r it needs
// the URL, and its path and query alone count. Where a middleware outside has
// changed the path, as [http.StripPrefix] does, a path means all that the
// handler sees by it; with RequestURI it is that which clients ask for. The error
// is as that of [cache.Cache.Delete].
func (h *Cache) Delete(ctx context.Context, r *http.Request) error {
	return h.engine.RemoveTags(ctx, h.urlTags(h.cleaned(r))[:1])
}

// DeleteTag removes every response of a tag, at once, and whatever else on the
// same Redis and prefix has it: see [cache.Cache.DeleteTag].
func (h *Cache) DeleteTag(ctx context.Context, tags ...string) error {
	return h.engine.DeleteTag(ctx, tags...)
}

// ExpireTag makes every response of a tag stale: it is served where
// stale-while-revalidate or stale-if-error allow that.
func (h *Cache) ExpireTag(ctx context.Context, tags ...string) error {
	return h.engine.ExpireTag(ctx, tags...)
}

// Clear removes every response.
func (h *Cache) Clear(ctx context.Context) error { return h.engine.Clear(ctx) }
