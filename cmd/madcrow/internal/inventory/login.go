package inventory

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/keys"
)

// maxSubjects bounds what LoginSubjects collects.
const maxSubjects = 1000

// LoginSubjects are the other subjects of a login that contain a text, in any case of
// letters: first those of which it is the user, or the address, of ratelimit.LoginKey.
// It looks until ctx ends; complete says whether all keys were seen. Subjects that
// stand as a hash are not found.
func LoginSubjects(ctx context.Context, r *madcrow.Redis, name, part string) (subjects []string, complete bool, err error) {
	same := part
	part = strings.ToLower(part)
	before := r.Config().KeyPrefix + keys.Typed + "login:"
	found := map[string]struct{}{}
	seen, err := scan(ctx, r, escapeGlob(before+name)+":*", nil, func(key string) {
		_, subject, _, ok := loginOf(strings.TrimPrefix(key, before))
		if ok && subject != same && len(found) < maxSubjects && !strings.HasPrefix(subject, keys.Hashed) && strings.Contains(strings.ToLower(subject), part) {
			found[subject] = struct{}{}
		}
	})
	if err != nil {
		return nil, false, err
	}
	for subject := range found {
		subjects = append(subjects, subject)
	}
	slices.SortFunc(subjects, func(a, b string) int {
		return cmp.Or(cmp.Compare(distance(a, part), distance(b, part)), cmp.Compare(a, b))
	})
	return subjects, seen.why == "" && len(found) < maxSubjects, nil
}

// distance is 0 where a text in lower case is the user or the address of a subject.
func distance(subject, part string) int {
	subject = strings.ToLower(subject)
	if strings.HasSuffix(subject, "|"+part) || strings.HasPrefix(subject, part+"|") {
		return 0
	}
	return 1
}
