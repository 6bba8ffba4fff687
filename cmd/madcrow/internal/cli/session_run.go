package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/service"
	"github.com/madcrow-go/madcrow/session"
)

// sessionInfo is one session in a list, as JSON.
type sessionInfo struct {
	Handle    string    `json:"handle"`
	Created   time.Time `json:"created"`
	LastUsed  time.Time `json:"last_used"`
	Ends      time.Time `json:"ends"`
	Address   string    `json:"address"`
	UserAgent string    `json:"user_agent"`
}

func infoOf(i session.Info) sessionInfo {
	return sessionInfo{i.Handle, i.Created.UTC(), i.LastUsed.UTC(), i.Ends.UTC(), i.Device.Address, i.Device.UserAgent}
}

// sessionAnswer is what show prints as JSON. Of a session in the FastAPI layout there is
// no more than is known.
type sessionAnswer struct {
	User  string `json:"user,omitempty"`
	Name  string `json:"name,omitempty"`
	Found bool   `json:"found"`
	*sessionInfo
	*sessionFacts
	// Data is not there unless it is asked for, and null where it is encrypted.
	Data *json.RawMessage `json:"data,omitempty"`
}

type sessionFacts struct {
	Left       float64 `json:"left_seconds"`
	Remembered bool    `json:"remembered"`
	Changes    int64   `json:"changes,omitempty"`
	Messages   int     `json:"messages"`
	Bytes      int     `json:"bytes"`
	Encrypted  bool    `json:"encrypted"`
}

func listSessions(ctx context.Context, c *cobra.Command, r *madcrow.Redis, o *sessionOptions, args []string) error {
	m, err := o.sessions(r)
	if err != nil {
		return asSessionUsage(err)
	}
	all, err := m.List(ctx, args[0])
	if err != nil {
		return asSessionUsage(err)
	}
	infos := make([]sessionInfo, 0, len(all))
	for _, i := range all {
		infos = append(infos, infoOf(i))
	}
	answer := map[string]any{"user": args[0], "name": o.name, "sessions": infos}
	if len(infos) == 0 {
		return o.missing(ctx, c, r, m, answer, fmt.Sprintf("user %q has no sessions in %q", args[0], o.name))
	}
	return o.done(c, listText(infos), answer)
}

func listText(infos []sessionInfo) string {
	var b strings.Builder
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(tw, "HANDLE\tCREATED\tLAST USED\tENDS\tADDRESS\tDEVICE")
	for _, i := range infos {
		_, _ = fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\n", i.Handle, stamp(i.Created), stamp(i.LastUsed), stamp(i.Ends), orDash(i.Address), orDash(i.UserAgent))
	}
	_ = tw.Flush() // into memory
	return strings.TrimRight(b.String(), "\n")
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// orDash is what a stranger sent, fit for a terminal.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return oneLine(s)
}

func showSession(ctx context.Context, c *cobra.Command, r *madcrow.Redis, o *sessionOptions, args []string) error {
	m, err := o.sessions(r)
	if err != nil {
		return asSessionUsage(err)
	}
	user, handle, answer := "", o.fastAPI, sessionAnswer{}
	if o.fastAPI == "" {
		user, handle = args[0], args[1]
		answer.User, answer.Name = user, o.name
	}
	d, found, err := m.Inspect(ctx, user, handle)
	if err != nil {
		return asSessionUsage(err)
	}
	if answer.Found = found; !found {
		return o.missing(ctx, c, r, m, answer, fmt.Sprintf("user %q has no such session in %q", user, o.name))
	}
	if o.fastAPI == "" {
		info := infoOf(d.Info)
		answer.sessionInfo = &info
	}
	answer.sessionFacts = &sessionFacts{d.Left.Seconds(), d.Remember, d.Changes, d.Flashes, d.Size, d.Sealed}
	if o.data {
		answer.Data = &d.Data
	}
	return o.done(c, answer.text(), answer)
}

func (a sessionAnswer) text() string {
	var b strings.Builder
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(name, text string) { _, _ = fmt.Fprintf(tw, "%s\t%s\n", name, text) }
	if i := a.sessionInfo; i != nil {
		row("handle", i.Handle)
		row("created", stamp(i.Created))
		row("last used", stamp(i.LastUsed))
		row("ends", stamp(i.Ends)+" at the latest")
		row("address", orDash(i.Address))
		row("device", orDash(i.UserAgent))
		row("remembered", map[bool]string{true: "yes", false: "no"}[a.Remembered])
		row("changes", fmt.Sprint(a.Changes))
		row("messages", fmt.Sprint(a.Messages))
	}
	row("left", short(time.Duration(a.Left*float64(time.Second))).String()+" without use")
	kind := "JSON"
	if a.Encrypted {
		kind = "encrypted"
	}
	row("data", fmt.Sprintf("%d bytes, %s", a.Bytes, kind))
	_ = tw.Flush() // into memory
	text := strings.TrimRight(b.String(), "\n")
	if a.Data != nil && !a.Encrypted {
		text += "\n" + dataText(*a.Data)
	}
	return text
}

// dataText is JSON for a terminal.
func dataText(data json.RawMessage) string {
	if data == nil {
		return "the data is no JSON"
	}
	var b bytes.Buffer
	if err := json.Indent(&b, data, "", "  "); err != nil {
		return oneLine(string(data))
	}
	lines := strings.Split(b.String(), "\n")
	for i := range lines {
		lines[i] = oneLine(lines[i])
	}
	return strings.Join(lines, "\n")
}

func revokeSessions(ctx context.Context, c *cobra.Command, r *madcrow.Redis, o *sessionOptions, args []string) error {
	if o.fastAPI != "" {
		existed, err := service.New(r, service.Options{}).DeleteSession(ctx, o.fastAPI)
		if err != nil {
			return err
		}
		answer := map[string]any{"revoked": existed}
		if !existed {
			return o.missing(ctx, c, r, nil, answer, "")
		}
		return o.done(c, "revoked", answer)
	}
	m, err := o.sessions(r)
	if err != nil {
		return asSessionUsage(err)
	}
	answer := map[string]any{"user": args[0], "name": o.name}
	if o.all {
		n, err := m.RevokeAll(ctx, args[0])
		if err != nil {
			return asSessionUsage(err)
		}
		if answer["revoked"] = n; n == 0 {
			return o.missing(ctx, c, r, m, answer, fmt.Sprintf("user %q has no sessions in %q", args[0], o.name))
		}
		return o.done(c, fmt.Sprintf("revoked %d", n), answer)
	}
	existed, err := m.Revoke(ctx, args[0], args[1])
	if err != nil {
		return asSessionUsage(err)
	}
	if answer["handle"], answer["revoked"] = args[1], existed; !existed {
		return o.missing(ctx, c, r, m, answer, fmt.Sprintf("user %q has no such session in %q", args[0], o.name))
	}
	return o.done(c, "revoked", answer)
}

// missing says that there is no such session, and why. Where the secret is another
// one that is a failure and no answer.
func (o *sessionOptions) missing(ctx context.Context, c *cobra.Command, r *madcrow.Redis, m *session.Manager[any], answer any, text string) error {
	absent := error(notThere{"there is no such session in the FastAPI layout"})
	if o.fastAPI == "" {
		absent = o.none(ctx, r, m, text)
	}
	if o.output == "json" && isAnswer(absent) {
		if err := o.done(c, "", answer); err != nil {
			return err
		}
	}
	return absent
}
