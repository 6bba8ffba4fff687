package problem_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/clientip"
	"github.com/madcrow-go/madcrow/internal/operr"
	"github.com/madcrow-go/madcrow/internal/sealed"
	"github.com/madcrow-go/madcrow/problem"
	"github.com/madcrow-go/madcrow/ratelimit"
	"github.com/madcrow-go/madcrow/semaphore"
	"github.com/madcrow-go/madcrow/service"
	"github.com/madcrow-go/madcrow/session"
)

const secret = "WRONGTYPE dial tcp 10.1.2.3:6379 of user-7"

func redis(kind madcrow.Kind) error {
	return &madcrow.Error{Op: "GET", Kind: kind, Err: errors.New(secret)}
}

// The packages' own errors as they return them.
func ofCache(err error) error   { return cache.Fail(sealed.Key{}, "get", "c", err) }
func ofSession(err error) error { return fmt.Errorf("outer: %w", err) }

// away is a Redis without a server.
var away = func() *madcrow.Redis {
	r, err := madcrow.Open(context.Background(), madcrow.Config{Host: "127.0.0.1", Port: 1, CommandTimeout: time.Second})
	if err != nil {
		panic(err)
	}
	return r
}()

// ofLimit is the error of a limit of one an hour, which asks a Redis that is
// away for a request of this cost. Its deadline is a minute ahead, or passed.
func ofLimit(policy madcrow.FailPolicy, cost int64, deadline time.Duration) error {
	l, err := ratelimit.New(away, "p", ratelimit.Options{Rate: ratelimit.PerHour(1), FailPolicy: policy})
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	for range 2 {
		if _, err = l.WaitN(ctx, "user-7", cost); err != nil {
			return err
		}
	}
	return nil
}

// ofLoader is the error of a cache on a Redis that is away, whose loader fails.
func ofLoader(failure error) error {
	c, err := cache.New(away, "c", cache.Options[string]{})
	if err != nil {
		panic(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	_, err = c.GetOrLoad(context.Background(), "k", func(context.Context) (string, error) { return "", failure })
	return err
}

// ofSemaphore is the error of a semaphore on a Redis that is away.
func ofSemaphore(deadline time.Duration) error {
	s, err := semaphore.New(away, "p", semaphore.Options{Limit: 1, FailPolicy: madcrow.FailClosed})
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	_, _, err = s.TryAcquire(ctx, "user-7")
	return err
}

// ofBusy is the error of a semaphore without a free lease.
func ofBusy() error {
	s, err := semaphore.New(away, "p", semaphore.Options{Limit: 1, FailPolicy: madcrow.FailLocal(1)})
	if err != nil {
		panic(err)
	}
	for range 2 {
		_, d, err := s.TryAcquire(context.Background(), "user-7")
		if err != nil {
			panic(err)
		}
		if err := d.Err(); err != nil {
			return err
		}
	}
	return nil
}

func ofService(err error) error { return service.Failed("get", service.TableCache, err) }

type answer struct {
	err    error
	status int
	retry  bool
}

// answers has every exported error of every package, by name; several of one name
// differ in the text after a blank.
var answers = map[string]answer{
	"madcrow.ErrUnavailable":   {redis(madcrow.KindUnavailable), 503, true},
	"madcrow.ErrTimeout":       {redis(madcrow.KindTimeout), 504, false},
	"madcrow.ErrCanceled":      {redis(madcrow.KindCanceled), 503, true},
	"madcrow.ErrReadOnly":      {redis(madcrow.KindReadOnly), 503, true},
	"madcrow.ErrOutOfMemory":   {redis(madcrow.KindOutOfMemory), 503, true},
	"madcrow.ErrAuth":          {redis(madcrow.KindAuth), 503, true},
	"madcrow.ErrPermission":    {redis(madcrow.KindPermission), 500, false},
	"madcrow.ErrLoading":       {redis(madcrow.KindLoading), 503, true},
	"madcrow.ErrBusy":          {redis(madcrow.KindBusy), 503, true},
	"madcrow.ErrConflict":      {redis(madcrow.KindConflict), 409, false},
	"madcrow.ErrWrongType":     {redis(madcrow.KindWrongType), 409, false},
	"madcrow.ErrTooLarge":      {redis(madcrow.KindTooLarge), 413, false},
	"madcrow.ErrConfig":        {redis(madcrow.KindConfig), 500, false},
	"madcrow.ErrServer":        {redis(madcrow.KindServer), 500, false},
	"madcrow.ErrClosed":        {&madcrow.Error{Op: "closed", Kind: madcrow.KindUnavailable, Err: madcrow.ErrClosed}, 503, true},
	"madcrow.ErrQuota":         {&madcrow.Error{Kind: madcrow.KindUnavailable, Err: madcrow.ErrQuota}, 503, true},
	"madcrow.ErrNoScripts":     {&madcrow.Error{Kind: madcrow.KindServer, Err: madcrow.ErrNoScripts}, 500, false},
	"madcrow.ErrNoSentinel":    {&madcrow.Error{Kind: madcrow.KindUnavailable, Err: madcrow.ErrNoSentinel}, 503, true},
	"madcrow.ErrUnknownMaster": {&madcrow.Error{Kind: madcrow.KindUnavailable, Err: madcrow.ErrUnknownMaster}, 503, true},
	"madcrow.ErrSlotMoving":    {&madcrow.Error{Kind: madcrow.KindUnavailable, Err: madcrow.ErrSlotMoving}, 503, true},
	"madcrow.Error":            {fmt.Errorf("outer: %w", redis(madcrow.KindTimeout)), 504, false},
	"madcrow.ArgumentError":    {&madcrow.ArgumentError{Op: "cache.set", Argument: "key", Reason: secret}, 500, false},
	"madcrow.ConfigError":      {&madcrow.ConfigError{Problems: []madcrow.ConfigProblem{{Reason: secret}}}, 500, false},
	"madcrow.ConfigProblem":    {madcrow.ConfigProblem{Reason: secret}, 500, false},

	"cache.ErrNotFound":                   {ofCache(cache.ErrNotFound), 404, false},
	"cache.ErrLoadTimeout":                {ofCache(cache.ErrLoadTimeout), 504, false},
	"cache.ErrLoadFailed":                 {ofCache(cache.ErrLoadFailed), 500, false},
	"cache.ErrBusy":                       {ofCache(cache.ErrBusy), 503, true},
	"cache.ErrQueued":                     {ofCache(cache.ErrQueued), 503, true},
	"cache.ErrClosed":                     {ofCache(cache.ErrClosed), 503, true},
	"madcrow.Error of cache":              {ofCache(redis(madcrow.KindUnavailable)), 503, true},
	"madcrow.Error of cache timeout":      {ofCache(redis(madcrow.KindTimeout)), 504, false},
	"madcrow.Error of cache type":         {ofCache(redis(madcrow.KindWrongType)), 503, true},
	"madcrow.Error of cache load":         {ofLoader(problem.New(409, "X", "x")), 409, false},
	"madcrow.Error of cache own load":     {ofLoader(errors.New(secret)), 500, false},
	"madcrow.Error of cache session load": {ofLoader(ofSession(session.ErrNoUser)), 401, false},

	"clientip.ErrUnknown": {fmt.Errorf("outer: %w", clientip.ErrUnknown), 400, false},
	"clientip.ErrPolicy":  {clientip.ErrPolicy, 500, false},

	"ratelimit.ErrNever":            {ofLimit(madcrow.FailClosed, 2, time.Minute), 429, false},
	"ratelimit.ErrTooLate":          {ofLimit(madcrow.FailLocal(1), 1, time.Minute), 429, true},
	"madcrow.Error of a limit":      {ofLimit(madcrow.FailClosed, 1, time.Minute), 503, true},
	"madcrow.Error of a late limit": {ofLimit(madcrow.FailClosed, 1, -time.Second), 504, false},
	"semaphore.ErrBusy":             {ofBusy(), 429, true},
	"semaphore.ErrLeaseLost":        {semaphore.ErrLeaseLost, 503, true},
	"madcrow.Error of a semaphore":  {ofSemaphore(time.Minute), 503, true},
	"madcrow.Error of a late lease": {ofSemaphore(-time.Second), 504, false},

	"service.ErrCorrupt":               {ofService(service.ErrCorrupt), 500, false},
	"madcrow.Error of service":         {ofService(redis(madcrow.KindUnavailable)), 503, true},
	"madcrow.Error of service type":    {ofService(redis(madcrow.KindWrongType)), 409, false},
	"madcrow.ArgumentError of service": {operr.Unprocessable("key", &madcrow.ArgumentError{Op: "service.get", Argument: "key", Reason: "m"}), 422, false},
	"madcrow.Error of service timeout": {ofService(redis(madcrow.KindTimeout)), 504, false},

	"session.ErrEnded":            {ofSession(session.ErrEnded), 401, false},
	"session.ErrRotated":          {ofSession(session.ErrRotated), 401, false},
	"session.ErrConflict":         {ofSession(session.ErrConflict), 409, false},
	"session.ErrHeadersSent":      {ofSession(session.ErrHeadersSent), 500, false},
	"session.ErrNotReplicated":    {ofSession(session.ErrNotReplicated), 503, true},
	"session.ErrOldSessionActive": {ofSession(session.ErrOldSessionActive), 503, true},
	"session.ErrInUse":            {ofSession(session.ErrInUse), 504, false},
	"session.ErrFastAPILayout":    {ofSession(session.ErrFastAPILayout), 500, false},
	"session.ErrNoUser":           {ofSession(session.ErrNoUser), 401, false},
	"session.ErrNoCookie":         {ofSession(session.ErrNoCookie), 401, false},
	"session.ErrMalformed":        {ofSession(session.ErrMalformed), 401, false},
	"session.ErrUnknown":          {ofSession(session.ErrUnknown), 401, false},
	"session.ErrRevoked":          {ofSession(session.ErrRevoked), 401, false},
	"session.ErrTwoCookies":       {ofSession(session.ErrTwoCookies), 401, false},
	"session.ErrOtherSecret":      {ofSession(session.ErrOtherSecret), 401, false},
	"session.ErrUndecodable":      {ofSession(session.ErrUndecodable), 401, false},
	"session.ErrNoMiddleware":     {ofSession(session.ErrNoMiddleware), 500, false},
}

func TestFrom_EveryErrorOfEveryPackageHasItsStatus(t *testing.T) {
	for name, a := range answers {
		p := problem.From(a.err)
		if p.Status != a.status || (p.RetryAfter > 0) != a.retry {
			t.Errorf("%s: %d, Retry-After %v; want %d, %v", name, p.Status, p.RetryAfter, a.status, a.retry)
		}
		if p.Operation+p.Table != "" && !strings.Contains(name, "service") {
			t.Errorf("%s tells strangers what stands behind: %s %s", name, p.Operation, p.Table)
		}
		text := fmt.Sprintf("%+v", p)
		for _, leak := range []string{"WRONGTYPE", "10.1.2.3", "user-7", "GET"} {
			if strings.Contains(text, leak) {
				t.Errorf("%s tells %q: %s", name, leak, text)
			}
		}
		if p.Status != 500 && p.Code == problem.CodeInternal {
			t.Errorf("%s has no code of its own", name)
		}
	}
	if got := len(answers); got < 60 {
		t.Errorf("%d errors in the table", got)
	}
}

// A new error comes with its answer.
func TestFrom_TheTableHasEveryExportedError(t *testing.T) {
	seen := map[string]bool{}
	for name := range answers {
		first, _, _ := strings.Cut(name, " ")
		seen[first] = true
	}
	found := map[string]bool{}
	for _, pkg := range []string{".", "cache", "clientip", "health", "inject", "problem", "ratelimit", "semaphore", "service", "session"} {
		for _, name := range exportedErrors(t, "../"+pkg) {
			found[name] = true
			if !seen[name] {
				t.Errorf("%s is not in the table", name)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(seen)) {
		if !found[name] {
			t.Errorf("%s is in the table and nowhere else", name)
		}
	}
}

// exportedErrors are the variables Err… and the types with a method Error.
func exportedErrors(t *testing.T, dir string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Recv != nil && n.Name.Name == "Error" {
					typ := n.Recv.List[0].Type
					if star, ok := typ.(*ast.StarExpr); ok {
						typ = star.X
					}
					if id, ok := typ.(*ast.Ident); ok && id.IsExported() {
						names = append(names, tree.Name.Name+"."+id.Name)
					}
				}
				return false
			case *ast.ValueSpec:
				for _, id := range n.Names {
					if strings.HasPrefix(id.Name, "Err") {
						names = append(names, tree.Name.Name+"."+id.Name)
					}
				}
			}
			return true
		})
	}
	return names
}
