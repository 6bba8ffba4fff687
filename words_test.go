package madcrow_test

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// word is a retired word with its replacement. Text is looked for in comments,
// strings, pages, scripts and the names of tests; name in declared identifiers,
// which are split into lower-case words first ("gateOpen" is "gate open").
// What except matches is removed before. A word with an ordinary meaning is
// looked for in the places only, or not in the places in: directories with all
// below, files, or "." for the root's own files.
type word struct {
	use    string
	text   string
	name   string
	except string
	only   []string
	in     []string
}

var engine = []string{".", "internal/fault", "internal/availability", "internal/conn", "internal/node", "internal/topology"}

// words are CONTRIBUTING's glossary, from the other side.
var words = map[string]word{
	"gate":      {use: "availability: up, probing, down, closed", text: `gates?`, name: `gates?`},
	"doubt":     {use: "probing", text: `in doubt`, name: `doubt`},
	"shut":      {use: "down", text: `shuts?`, name: `shut`, except: `shut(s|ting)? ?(down|[a-z ]*out)`},
	"verdict":   {use: "the prober's result", text: `verdicts?`, name: `verdicts?`},
	"condemn":   {use: "mark as down", text: `condemn\w*`, name: `condemn\w*`},
	"connector": {use: "prober", text: `connectors?`, name: `connectors?`},
	"asker":     {use: "RESP client", text: `askers?`, name: `askers?`},
	"lane":      {use: "shared connection", text: `lanes?`, name: `lanes?`, except: `one lane`, in: []string{"examples/login/password.go"}},
	"loan":      {use: "dedicated connection; acquire, release", text: `loans?|lent|lends?|borrow\w*`, name: `loans?|lent|borrow\w*`},
	"alone":     {use: "dedicated", name: `^alone$|by itself`, only: engine},
	"gather":    {use: "write coalescing", text: `others go first|slow turns?`, name: `gather\w*|slow turn`, except: `asyncio\.gather`, only: engine},
	"twice":     {use: "idempotent, non-idempotent, read-only", name: `^twice$|^repeat$`, only: engine},
	"lesson":    {use: "node fault", text: `lessons?`, name: `lessons?`},
	"hop":       {use: "redirect", text: `hops?`, name: `hops?`, except: `(x|hop[- ]by)[- ]hop`},
	"form":      {use: "encoded key", name: `^forms?$|form of|key form`, only: []string{"cache", "httpcache", "ratelimit", "semaphore", "session", "internal/keys"}},
	"flight":    {use: "in-flight load: finish, record failure, clear failure, detach", text: `(flights?|loads?) (lands?|landed|crash|crashes|crashed)`, name: `^lands?$|^landed$|^crash$`, only: []string{"cache", "httpcache"}},
	"seat":      {use: "batch slot", text: `seats?`, name: `seats?`, in: []string{"example_test.go"}},
	"front":     {use: "hot index", text: `(the|a) front`, name: `fronts?`, only: []string{"cache", "docs/adr", "docs/cache.md"}},
	"ticks":     {use: "coarse clock", name: `ticks`, only: []string{"cache", "internal/localcache"}},
	"spare":     {use: "fallback, local limiter, degraded value", text: `spares?`, name: `spares?`, except: `to spare|spares a`},
	"apart":     {use: "split keys", text: `nodes? apart|keys? apart`, name: `apart`, only: []string{"cache", "ratelimit", "semaphore"}},
	"pass":      {use: "hit-for-pass, must not be shared", text: `nobody else's|no one else's`},
	"told":      {use: "notified, said, invalidated", text: `told|telling`, name: `told|telling`},
	"carrier":   {use: "shared subscription", text: `carriers?`, name: `carriers?`, in: []string{"carry", "inject", "contrib", "examples", "docs/from-fastapi.md"}},
	"unison":    {use: "merged state", text: `unisons?`, name: `unisons?`},
	"parcel":    {use: "outgoing message", text: `parcels?`, name: `parcels?`},
	"letter":    {use: "numbered message", name: `^letters?$`, only: []string{"pubsub/topic.go", "pubsub/envelope.go", "pubsub/topics.go"}},
	"voids":     {use: "skipped sequence numbers", text: `voids`, name: `voids`},
	"farewell":  {use: "unsubscribe", text: `farewells?`, name: `farewells?`},
	"recents":   {use: "validity cache", text: `recents`, name: `^recents?$`},
	"copies":    {use: "fallback copies", name: `^copies$`},
	"become":    {use: "set, rotated", name: `^becomes?$|^became$`},
	"nobody":    {use: "no one", text: `nobody`, name: `nobody|^nothing$`},
	"original":  {use: "FastAPI layout", text: `originals|the original(?:'s)?`, name: `originals?`, in: []string{"pubsub", "stream", "cmd/madcrow/internal/cli/stream_run.go", "cmd/madcrow/internal/cli/stream_test.go"}, except: `the original (request|response|error|body|writer|value|order|URL|path|text|reply|message|context|caller)`},
	"room":      {use: "package", text: `rooms?`, name: `rooms|room error`, in: []string{"pubsub/example_test.go"}, except: `may be room|head ?room|rooms? (for|to|left|in (the|it|its|a|there))|(want of|enough|no|more|leaves?|makes?|made|find|has|have|had|gives?|much|free|frees|is|out of|need|needs) room|chat rooms?`},
	"waist":     {use: "core", text: `waist`, name: `waist`},
	"anew":      {use: "again", text: `anew`, name: `anew`},
}

// vague are verbs that meant many things: in one package each names one
// function at most, or the methods of one interface.
var vague = []string{"take", "begin", "end", "forget", "ask", "put", "tell", "find", "look", "judge"}

// predeclared names no function or method; close closes.
var predeclared = []string{
	"any", "append", "bool", "byte", "cap", "clear", "comparable", "complex", "copy", "delete", "error", "imag", "int", "len",
	"make", "max", "min", "new", "panic", "print", "println", "real", "recover", "rune", "string",
}

// wordsLeft is how many retired words an area still has. The numbers shrink
// only; what is in no area has none.
var wordsLeft = []struct {
	area string
	dirs string // separated by blanks; "dir/..." is with all below
	left int
}{
	{"engine", ". internal/fault internal/availability internal/deadline internal/conn internal/node internal/topology internal/settings internal/guard internal/resp internal/scriptsha internal/logonce", 0},
	{"cache", "cache/... httpcache/... internal/localcache internal/memsize internal/httpwriter internal/binfmt internal/cachelimit internal/sealed", 0},
	{"limits", "ratelimit/... semaphore/... internal/limitscript/... internal/keys internal/lease", 0},
	{"sessions", "session/... service/... inject problem health clientip carry/... internal/operr", 0},
	{"messages", "pubsub/... stream/... sse/... internal/pending", 0},
	{"house", "docs/... bench/... cmd/... contrib/... examples/... madcrowtest internal/conformance internal/testkit", 0},
}

type finding struct{ dir, at, word, text string }

func TestWords_NoneIsRetired(t *testing.T) {
	found := findWords(t)
	byDir := map[string]int{}
	for _, f := range found {
		byDir[f.dir]++
	}
	left, count := map[string]int{}, map[string]int{}
	for dir, n := range byDir {
		area := areaOf(dir)
		count[area] += n
	}
	for _, a := range wordsLeft {
		left[a.area] = a.left
	}
	for _, dir := range slices.Sorted(maps.Keys(byDir)) {
		t.Logf("%5d  %s", byDir[dir], dir)
	}
	for area, n := range count {
		if n <= left[area] {
			continue
		}
		t.Errorf("%s: %d retired words, %d may be left (all are listed with WORDS=dir go test -run TestWords .)", area, n, left[area])
		for _, f := range found {
			if areaOf(f.dir) == area && left[area] == 0 {
				t.Log(f)
			}
		}
	}
	if dir := os.Getenv("WORDS"); dir != "" {
		for _, f := range found {
			if f.dir == dir || strings.HasPrefix(f.dir, dir+"/") {
				t.Log(f)
			}
		}
	}
}

func (f finding) String() string {
	return fmt.Sprintf("%s: %q: use %s: %s", f.at, f.word, words[f.word].use, f.text)
}

func areaOf(dir string) string {
	for _, a := range wordsLeft {
		for d := range strings.FieldsSeq(a.dirs) {
			if below, all := strings.CutSuffix(d, "/..."); dir == d || all && (dir == below || strings.HasPrefix(dir, below+"/")) {
				return a.area
			}
		}
	}
	return dir
}

func findWords(t *testing.T) []finding {
	t.Helper()
	rules := compileWords()
	var all []finding
	verbs := map[string][]finding{} // by package and verb
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if strings.HasPrefix(d.Name(), ".") && file != "." || slices.Contains([]string{"bin", "node_modules"}, file) {
				return fs.SkipDir
			}
			return nil
		}
		file = filepath.ToSlash(file)
		if slices.Contains([]string{"CHANGELOG.md", "CONTRIBUTING.md", "words_test.go"}, file) {
			return nil
		}
		s := &wordSearch{rules: rules, file: file, verbs: verbs}
		switch path.Ext(file) {
		case ".go":
			s.goFile(t)
		case ".md", ".lua":
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			for i, line := range strings.Split(string(text), "\n") {
				s.text(i+1, line)
			}
		}
		all = append(all, s.found...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, fs := range verbs {
		if !slices.ContainsFunc(fs, func(f finding) bool { return f.at == "" }) {
			all = append(all, fs[1:]...)
		}
	}
	slices.SortFunc(all, func(a, b finding) int { return cmp.Or(cmp.Compare(a.dir, b.dir), cmp.Compare(a.at, b.at)) })
	return all
}

// wordRules look for any word first, as most lines have none.
type wordRules struct {
	list             []wordRule
	anyText, anyName *regexp.Regexp
}

type wordRule struct {
	word               string
	text, name, except *regexp.Regexp
	only, in           []string
}

// isIn says whether a file is in one of the places.
func isIn(file string, places []string) bool {
	return slices.ContainsFunc(places, func(p string) bool {
		return file == p || p == path.Dir(file) || strings.HasPrefix(file, p+"/")
	})
}

func compileWords() wordRules {
	whole := func(expr string) *regexp.Regexp {
		if expr == "" {
			return nil
		}
		return regexp.MustCompile(`(?i)(?:\b|_)(?:` + expr + `)(?:\b|_)`)
	}
	var rules wordRules
	var texts, names []string
	for _, name := range slices.Sorted(maps.Keys(words)) {
		w := words[name]
		rules.list = append(rules.list, wordRule{name, whole(w.text), whole(w.name), whole(w.except), w.only, w.in})
		if w.text != "" {
			texts = append(texts, w.text)
		}
		if w.name != "" {
			names = append(names, w.name)
		}
	}
	rules.anyText = whole(strings.Join(texts, "|"))
	rules.anyName = whole(strings.Join(append(texts, names...), "|"))
	return rules
}

type wordSearch struct {
	rules wordRules
	file  string
	found []finding
	verbs map[string][]finding
}

func (s *wordSearch) add(line int, word, text string) {
	text = strings.TrimSpace(text)
	if len(text) > 140 {
		text = text[:140] + "…"
	}
	s.found = append(s.found, finding{path.Dir(s.file), fmt.Sprintf("%s:%d", s.file, line), word, text})
}

func (s *wordSearch) text(line int, text string) {
	if !s.rules.anyText.MatchString(text) {
		return
	}
	s.check(line, text, text, func(r wordRule) *regexp.Regexp { return r.text })
}

func (s *wordSearch) check(line int, text, shown string, of func(wordRule) *regexp.Regexp) {
	for _, r := range s.rules.list {
		if of(r) == nil || isIn(s.file, r.in) || r.only != nil && !isIn(s.file, r.only) {
			continue
		}
		rest := text
		if r.except != nil {
			rest = r.except.ReplaceAllString(rest, "")
		}
		if of(r).MatchString(rest) {
			s.add(line, r.word, shown)
		}
	}
}

func (s *wordSearch) goFile(t *testing.T) {
	t.Helper()
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, s.file, nil, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	line := func(p token.Pos) int { return set.Position(p).Line }
	for _, group := range f.Comments {
		for _, c := range group.List {
			for i, text := range strings.Split(c.Text, "\n") {
				s.text(line(c.Pos())+i, text)
			}
		}
	}
	name := func(id *ast.Ident) {
		if id != nil {
			s.name(line(id.Pos()), id.Name)
		}
	}
	s.name(line(f.Package), strings.TrimSuffix(path.Base(s.file), ".go"))
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BasicLit:
			if n.Kind == token.STRING {
				for i, text := range strings.Split(n.Value, "\n") {
					s.text(line(n.Pos())+i, text)
				}
			}
		case *ast.FuncDecl:
			name(n.Name)
			s.function(line(n.Pos()), n.Name.Name)
		case *ast.TypeSpec:
			name(n.Name)
			if i, is := n.Type.(*ast.InterfaceType); is {
				s.methods(i)
			}
		case *ast.ValueSpec:
			for _, id := range n.Names {
				name(id)
			}
		case *ast.Field:
			for _, id := range n.Names {
				name(id)
			}
		case *ast.LabeledStmt:
			name(n.Label)
		case *ast.AssignStmt:
			for _, e := range n.Lhs {
				if id, is := e.(*ast.Ident); is && n.Tok == token.DEFINE {
					name(id)
				}
			}
		case *ast.RangeStmt:
			for _, e := range []ast.Expr{n.Key, n.Value} {
				if id, is := e.(*ast.Ident); is && n.Tok == token.DEFINE {
					name(id)
				}
			}
		}
		return true
	})
}

func (s *wordSearch) name(line int, name string) {
	if len(name) < 3 {
		return
	}
	split := splitName(name)
	if !s.rules.anyName.MatchString(split) {
		return
	}
	of := func(r wordRule) *regexp.Regexp { return r.name }
	if strings.HasSuffix(s.file, "_test.go") && regexp.MustCompile(`^(Test|Benchmark|Fuzz|Example)`).MatchString(name) {
		of = func(r wordRule) *regexp.Regexp { return r.text }
	}
	s.check(line, split, name, of)
}

func (s *wordSearch) function(line int, name string) {
	if strings.HasSuffix(s.file, "_test.go") {
		return
	}
	at := fmt.Sprintf("%s:%d", s.file, line)
	if slices.Contains(predeclared, name) {
		s.found = append(s.found, finding{path.Dir(s.file), at, name, "a function is named like a predeclared identifier"})
	}
	if slices.Contains(vague, name) {
		key := path.Dir(s.file) + " " + name
		s.verbs[key] = append(s.verbs[key], finding{path.Dir(s.file), at, name, "one function of a package may have this name"})
	}
}

// methods notes that the methods of an interface have one meaning in all types
// that implement it.
func (s *wordSearch) methods(i *ast.InterfaceType) {
	for _, m := range i.Methods.List {
		for _, id := range m.Names {
			key := path.Dir(s.file) + " " + id.Name
			s.verbs[key] = append(s.verbs[key], finding{})
		}
	}
}

// splitName makes "the gate open" of "theGateOpen", "the_gate_open" and "TheGATEOpen".
func splitName(name string) string {
	var b strings.Builder
	rs := []rune(name)
	for i, r := range rs {
		if i > 0 && unicode.IsUpper(r) && (!unicode.IsUpper(rs[i-1]) || i+1 < len(rs) && unicode.IsLower(rs[i+1])) {
			b.WriteByte(' ')
		}
		if r == '_' {
			r = ' '
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return strings.TrimSpace(b.String())
}
