// Command release prepares a version of every module that users import or install.
//
//	scripts/release v0.1.0             a branch and the tags, in this repository
//	scripts/release -dry-run v0.1.0    tries it, and leaves nothing behind
//
// In a clone it writes the version into each go.mod, drops the lines that replace
// a module by a folder, and commits. Then it serves the modules as a proxy would,
// from files, and uses them as a stranger does: go get and go build of each
// library, go install of the program. Nothing is pushed.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
	"golang.org/x/mod/zip"
)

const (
	rootModule = "github.com/madcrow-go/madcrow"
	program    = rootModule + "/cmd/madcrow"
)

// unreleased are the modules that are run from a clone only. Their go.mod keeps its
// replace lines.
var unreleased = []string{"bench", "examples", "tools"}

func main() {
	root := flag.String("root", ".", "the folder of the repository")
	dry := flag.Bool("dry-run", false, "leave no branch and no tags")
	flag.Parse()
	if err := release(*root, flag.Arg(0), *dry); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func release(root, version string, dry bool) error {
	if semver.Canonical(version) != version || version == "" {
		return fmt.Errorf("a version such as v0.1.0 is wanted, not %q", version)
	}
	if major := semver.Major(version); major != "v0" && major != "v1" {
		return fmt.Errorf("%s: from v2 on the module's path must end with /%s", version, major)
	}
	if !dry {
		if err := ready(root, version); err != nil {
			return err
		}
	}
	tmp, err := os.MkdirTemp("", "release")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	r := &releaser{version: version, clone: filepath.Join(tmp, "clone"), proxy: filepath.Join(tmp, "proxy"), tmp: tmp}
	steps := []struct {
		what string
		do   func() error
	}{
		{"clone", func() error { return r.cloneOf(root) }},
		{"go.mod files, and the modules as a proxy has them", r.prepare},
		{"each library, as a user gets it", r.useLibraries},
		{"go install of the program", r.install},
	}
	for _, step := range steps {
		start := time.Now()
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
		fmt.Printf("ok %5.1fs  %s\n", time.Since(start).Seconds(), step.what)
	}
	if dry {
		return nil
	}
	return r.publish(root)
}

// ready says why a version may not be made of the repository as it is.
func ready(root, version string) error {
	out, err := output(root, nil, "git", "status", "--porcelain")
	if err != nil {
		return err
	}
	if out != "" {
		return fmt.Errorf("commit these first:\n%s", out)
	}
	changes, err := os.ReadFile(filepath.Join(root, "CHANGELOG.md"))
	if err != nil {
		return err
	}
	if !strings.Contains(string(changes), "## ["+strings.TrimPrefix(version, "v")+"]") {
		return fmt.Errorf("CHANGELOG.md has no part ## [%s]: rename Unreleased", strings.TrimPrefix(version, "v"))
	}
	if tag, _ := output(root, nil, "git", "tag", "--list", version); tag != "" {
		return fmt.Errorf("the tag %s exists", version)
	}
	return nil
}

type releaser struct {
	version, clone, proxy, tmp string
	modules                    []string // folders, each after those that it requires; "" is the root
	tags                       []string
}

func (r *releaser) cloneOf(root string) error {
	root, err := filepath.Abs(root)
	if err != nil {
		return err
	}
	if err := run(root, nil, "git", "clone", "--quiet", "--no-tags", root, r.clone); err != nil {
		return err
	}
	files, err := output(r.clone, nil, "git", "ls-files", "go.mod", "*/go.mod")
	if err != nil {
		return err
	}
	requires := map[string][]string{}
	for _, file := range strings.Fields(files) {
		dir := strings.TrimSuffix(strings.TrimSuffix(file, "go.mod"), "/")
		if slices.Contains(unreleased, dir) {
			continue
		}
		mod, err := r.read(dir)
		if err != nil {
			return err
		}
		requires[dir] = nil
		for _, req := range mod.Require {
			if rest, ours := strings.CutPrefix(req.Mod.Path, rootModule); ours {
				requires[dir] = append(requires[dir], strings.TrimPrefix(rest, "/"))
			}
		}
	}
	r.modules = sorted(requires)
	return nil
}

// sorted puts each module after those that it requires.
func sorted(requires map[string][]string) (order []string) {
	var visit func(dir string)
	visit = func(dir string) {
		if slices.Contains(order, dir) {
			return
		}
		for _, other := range requires[dir] {
			visit(other)
		}
		order = append(order, dir)
	}
	dirs := make([]string, 0, len(requires))
	for dir := range requires {
		dirs = append(dirs, dir)
	}
	slices.Sort(dirs)
	for _, dir := range dirs {
		visit(dir)
	}
	return order
}

func (r *releaser) read(dir string) (*modfile.File, error) {
	name := filepath.Join(r.clone, dir, "go.mod")
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return modfile.Parse(name, text, nil)
}

// prepare writes each go.mod, tidies it with the modules before it, commits it and
// gives it to the proxy. The sum of a module stands in the go.sum of the next.
func (r *releaser) prepare() error {
	if err := run(r.clone, nil, "git", "checkout", "--quiet", "-b", "release/"+r.version); err != nil {
		return err
	}
	for _, dir := range r.modules {
		mod, err := r.read(dir)
		if err != nil {
			return err
		}
		if err := r.unreplace(mod); err != nil {
			return err
		}
		text, err := mod.Format()
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(r.clone, dir, "go.mod"), text, 0o644); err != nil {
			return err
		}
		if dir != "" {
			if err := r.goRun(filepath.Join(r.clone, dir), "mod", "tidy"); err != nil {
				return err
			}
		}
		if err := run(r.clone, nil, "git", "commit", "--quiet", "--allow-empty", "-am", "Release "+r.version); err != nil {
			return err
		}
		if err := r.serve(dir); err != nil {
			return err
		}
		r.tags = append(r.tags, strings.TrimPrefix(dir+"/"+r.version, "/"))
	}
	return nil
}

func (r *releaser) unreplace(mod *modfile.File) error {
	for _, rep := range slices.Clone(mod.Replace) {
		if !strings.HasPrefix(rep.Old.Path, rootModule) {
			return fmt.Errorf("%s replaces %s, which users do not get", mod.Module.Mod.Path, rep.Old.Path)
		}
		if err := mod.DropReplace(rep.Old.Path, rep.Old.Version); err != nil {
			return err
		}
	}
	for _, req := range mod.Require {
		if strings.HasPrefix(req.Mod.Path, rootModule) {
			if err := mod.AddRequire(req.Mod.Path, r.version); err != nil {
				return err
			}
		}
	}
	mod.Cleanup()
	return nil
}

// serve writes a module in the layout of a module proxy.
func (r *releaser) serve(dir string) error {
	m := module.Version{Path: strings.TrimSuffix(rootModule+"/"+dir, "/"), Version: r.version}
	at := filepath.Join(r.proxy, filepath.FromSlash(m.Path), "@v")
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	gomod, err := os.ReadFile(filepath.Join(r.clone, dir, "go.mod"))
	if err != nil {
		return err
	}
	info, err := json.Marshal(map[string]any{"Version": r.version, "Time": time.Now().UTC()})
	if err != nil {
		return err
	}
	for name, text := range map[string][]byte{"list": []byte(r.version + "\n"), r.version + ".mod": gomod, r.version + ".info": info} {
		if err := os.WriteFile(filepath.Join(at, name), text, 0o644); err != nil {
			return err
		}
	}
	f, err := os.Create(filepath.Join(at, r.version+".zip"))
	if err != nil {
		return err
	}
	return errors.Join(zip.CreateFromVCS(f, m, r.clone, "HEAD", dir), f.Close())
}

// useLibraries builds each library in a module of its own, as a stranger's program.
func (r *releaser) useLibraries() error {
	for i, dir := range r.modules {
		path := strings.TrimSuffix(rootModule+"/"+dir, "/")
		if path == program {
			continue
		}
		user := filepath.Join(r.tmp, fmt.Sprintf("user%d", i))
		if err := os.MkdirAll(user, 0o755); err != nil {
			return err
		}
		for _, args := range [][]string{
			{"mod", "init", "example.com/user"},
			{"get", path + "@" + r.version},
			{"build", "-mod=mod", path + "/..."},
		} {
			if err := r.goRun(user, args...); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *releaser) install() error {
	if err := r.goRun(r.tmp, "install", program+"@latest"); err != nil {
		return err
	}
	out, err := output(r.tmp, nil, filepath.Join(r.tmp, "bin", "madcrow"), "version")
	if err != nil {
		return err
	}
	if !strings.Contains(out, strings.TrimPrefix(r.version, "v")) {
		return fmt.Errorf("the program calls itself %q", out)
	}
	return nil
}

// publish brings the branch and the tags into the repository, and says what to push.
func (r *releaser) publish(root string) error {
	for _, tag := range r.tags {
		if err := run(r.clone, nil, "git", "tag", "-a", "-m", "Release "+r.version, tag); err != nil {
			return err
		}
	}
	branch := "release/" + r.version
	if err := run(root, nil, "git", "fetch", "--quiet", r.clone, branch+":"+branch, "refs/tags/*:refs/tags/*"); err != nil {
		return err
	}
	fmt.Printf("\nThe branch %s and the tags are here. To publish them:\n\n    git push --atomic origin %s\n", branch, strings.Join(r.tags, " "))
	return nil
}

// goRun runs the go command with the proxy of files, and with a module cache of its
// own that takes the other modules from the usual one.
func (r *releaser) goRun(dir string, args ...string) error {
	env, err := output("", nil, "go", "env", "GOMODCACHE", "GOPROXY")
	if err != nil {
		return err
	}
	cache, proxy, _ := strings.Cut(env, "\n")
	return run(dir, []string{
		"GOWORK=off", "CGO_ENABLED=0", "GOFLAGS=-modcacherw -trimpath",
		"GOPROXY=file://" + r.proxy + ",file://" + filepath.Join(cache, "cache", "download") + "," + proxy,
		"GONOSUMDB=" + rootModule, "GOMODCACHE=" + filepath.Join(r.tmp, "mod"), "GOBIN=" + filepath.Join(r.tmp, "bin"),
	}, "go", args...)
}

func run(dir string, env []string, name string, args ...string) error {
	_, err := output(dir, env, name, args...)
	return err
}

// output runs a program and returns what it printed.
func output(dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	var out, problems strings.Builder
	cmd.Stdout, cmd.Stderr = &out, io.Writer(&problems)
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s%s", name, strings.Join(args, " "), err, out.String(), problems.String())
	}
	return strings.TrimSpace(out.String()), nil
}
