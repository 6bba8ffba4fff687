package settings

import (
	"strings"

	"github.com/madcrow-go/madcrow/internal/typo"
)

// warnMistyped warns of variables whose names are nearly those of settings that are
// not set. Others are left in peace: what Kubernetes and Docker write for services
// that are called redis, and what other programs read.
func (r *envReader) warnMistyped(environ []string) {
	known := map[string]bool{}
	for _, s := range table {
		name := s.envName(r.env.Prefix)
		known[name] = true
		if s.file {
			known[name+"_FILE"] = true
		}
	}
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		if !strings.HasPrefix(name, r.env.Prefix+"REDIS_") || known[name] || strings.TrimSpace(value) == "" {
			continue
		}
		if meant := r.nearest(name, known); meant != "" {
			r.warn(name + " is no setting and is ignored: did you mean " + meant + "?")
		}
	}
}

// nearest is the setting without a value that a name differs from by one mistake,
// or by two where it is long; "" is none.
func (r *envReader) nearest(name string, known map[string]bool) (meant string) {
	most := 1
	if len(name)-len(r.env.Prefix) > len("REDIS_")+8 {
		most = 2
	}
	for other := range known {
		d := typo.Distance(name, other)
		if d > most || d == most && meant != "" && other > meant {
			continue
		}
		if value, _ := r.env.Lookup(other); value == "" {
			meant, most = other, d
		}
	}
	return meant
}
