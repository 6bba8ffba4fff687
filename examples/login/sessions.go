package main

import (
	"net/http"
	"slices"
	"strings"

	"github.com/madcrow-go/madcrow/session"
)

// place is one line of the page of sessions.
type place struct {
	session.Info
	What string
	Here bool
}

func (a *app) list(w http.ResponseWriter, r *http.Request, m member) error {
	all, err := a.sessions.List(r.Context(), m.user)
	if err != nil {
		return err
	}
	places := make([]place, 0, len(all))
	for _, info := range all {
		places = append(places, place{Info: info, What: describe(info.Device.UserAgent), Here: info.Handle == m.Handle()})
	}
	slices.SortStableFunc(places, func(a, b place) int { // this one first
		switch {
		case a.Here:
			return -1
		case b.Here:
			return 1
		}
		return 0
	})
	return a.show(w, r, http.StatusOK, "sessions", "Sessions", places)
}

// end ends one session, by its handle, or the others, or all.
func (a *app) end(w http.ResponseWriter, r *http.Request, m member) error {
	ctx := r.Context()
	switch which := r.PostFormValue("session"); which {
	case "":
		return a.say(w, r, m, "/sessions", "error", "No session was named.")
	case "others":
		n, err := m.RevokeOthers(ctx)
		if err != nil {
			return err
		}
		return a.say(w, r, m, "/sessions", "ok", othersEnded(n))
	case "all":
		if _, err := a.sessions.RevokeAll(ctx, m.user); err != nil {
			return err
		}
		session.ClearSiteData(w.Header())
		if err := m.Logout(ctx); err != nil { // there is nothing left to end but the cookie
			return err
		}
		leave(w, r, "all")
		return nil
	case m.Handle():
		return a.logout(w, r)
	default:
		was, err := a.sessions.Revoke(ctx, m.user, which)
		if err != nil {
			return err
		}
		text := "The session is ended."
		if !was {
			text = "This session had ended already."
		}
		return a.say(w, r, m, "/sessions", "ok", text)
	}
}

// describe makes a User-Agent readable. It only has to help somebody to find
// his own devices: anyone can send any.
func describe(agent string) string {
	browser := first(agent, []string{
		"Edg/", "Edge", "OPR/", "Opera", "SamsungBrowser/", "Samsung Internet", "Firefox/", "Firefox", "FxiOS/", "Firefox",
		"CriOS/", "Chrome", "Chrome/", "Chrome", "Safari/", "Safari", "curl/", "curl", "Go-http-client/", "A Go program",
	})
	system := first(agent, []string{
		"Android", "Android", "iPhone", "iPhone", "iPad", "iPad", "Windows", "Windows", "CrOS", "ChromeOS",
		"Mac OS X", "macOS", "Linux", "Linux",
	})
	switch {
	case browser != "" && system != "":
		return browser + " on " + system
	case browser+system != "":
		return browser + system
	}
	return "Unknown device"
}

// first returns the name behind the first mark that text has. The order
// matters: nearly all of them claim to be Safari too.
func first(text string, marksAndNames []string) string {
	for i := 0; i < len(marksAndNames); i += 2 {
		if strings.Contains(text, marksAndNames[i]) {
			return marksAndNames[i+1]
		}
	}
	return ""
}
