// SPDX-License-Identifier: Apache-2.0

package binaries

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Builder builds sets into the cache.
type Builder struct {
	// Modules is the folder with one wrapper module for each set; empty
	// means to look for it.
	Modules string
	// Out receives progress.
	Out io.Writer
}

// Build builds those of the named sets that are not there yet, all sets if
// none is named.
func (b Builder) Build(ctx context.Context, names []string) error {
	sets, err := selectSets(names)
	if err != nil {
		return err
	}
	cache, err := Cache()
	if err != nil {
		return err
	}
	for _, s := range sets {
		if s.ready(cache) {
			fmt.Fprintf(b.Out, "%s %s: ready\n", s.Name, s.Version)
			continue
		}
		if err := b.build(ctx, s, cache); err != nil {
			return err
		}
	}
	return nil
}

func selectSets(names []string) ([]Set, error) {
	if len(names) == 0 {
		return Sets(), nil
	}
	var out []Set
	for _, n := range names {
		found := false
		for _, s := range Sets() {
			if s.Name == n {
				out, found = append(out, s), true
			}
		}
		if !found {
			return nil, fmt.Errorf("no set %q: there are etcd, kubernetes, prometheus and helm", n)
		}
	}
	return out, nil
}

func (s Set) ready(cache string) bool {
	for _, p := range s.Programs {
		if s.find(cache, p) == "" {
			return false
		}
	}
	return true
}

func (b Builder) build(ctx context.Context, s Set, cache string) error {
	modules, err := b.modules()
	if err != nil {
		return err
	}
	if _, err := exec.LookPath("go"); err != nil {
		return fmt.Errorf("build %s: %w: install Go (Debian package golang-go, or https://go.dev/dl)", s.Name, err)
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return fmt.Errorf("build %s: %w", s.Name, err)
	}
	unlock, err := b.lock(ctx, s, cache)
	if err != nil {
		return err
	}
	defer unlock()
	if s.ready(cache) {
		fmt.Fprintf(b.Out, "%s %s: ready\n", s.Name, s.Version)
		return nil
	}
	tmp, err := os.MkdirTemp(cache, ".build-"+s.Name+"-")
	if err != nil {
		return fmt.Errorf("build %s: %w", s.Name, err)
	}
	defer os.RemoveAll(tmp)
	for _, args := range s.builds {
		if err := b.goBuild(ctx, s, filepath.Join(modules, s.Name), into(args, tmp)); err != nil {
			return err
		}
	}
	dir := s.dir(cache)
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("build %s: %w", s.Name, err)
	}
	// A folder with some of the programs is the rest of another version of
	// this list.
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("build %s: %w", s.Name, err)
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return fmt.Errorf("build %s: %w", s.Name, err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		return fmt.Errorf("build %s: %w", s.Name, err)
	}
	return nil
}

func into(args []string, dir string) []string {
	out := make([]string, len(args))
	for i, a := range args {
		out[i] = strings.Replace(a, "%s", dir, 1)
	}
	return out
}

// lock keeps two builds of a set apart. The kernel gives it back when the
// process ends.
func (b Builder) lock(ctx context.Context, s Set, cache string) (func(), error) {
	f, err := os.OpenFile(filepath.Join(cache, ".lock-"+s.Name), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", s.Name, err)
	}
	for told := false; ; told = true {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("build %s: lock: %w", s.Name, err)
		}
		if !told {
			fmt.Fprintf(b.Out, "%s %s: waiting for another build of it\n", s.Name, s.Version)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

func (b Builder) goBuild(ctx context.Context, s Set, module string, args []string) error {
	if _, err := os.Stat(filepath.Join(module, "go.mod")); err != nil {
		return fmt.Errorf("build %s: %w", s.Name, err)
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-trimpath", "-buildvcs=false"}, args...)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = module, &out, &out
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-mod=readonly")
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	stop := b.progress(s)
	err := cmd.Run()
	stop(err)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("build %s in %s: %w\n%s", s.Name, module, err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}

// progress writes a line that tells the time: again and again in place on a
// terminal, else every half minute.
func (b Builder) progress(s Set) (stop func(error)) {
	what := fmt.Sprintf("building %s %s (%s)", s.Name, s.Version, strings.Join(s.Programs, ", "))
	start, terminal, every := time.Now(), isTerminal(b.Out), 30*time.Second
	if terminal {
		every = time.Second
	}
	fmt.Fprintf(b.Out, "%s: about %s on %d CPUs", what, s.Expected(), runtime.NumCPU())
	if !terminal {
		fmt.Fprintln(b.Out)
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-done:
				return
			case <-t.C:
			}
			line := fmt.Sprintf("%s: %s of about %s", what, time.Since(start).Round(time.Second), s.Expected())
			if terminal {
				fmt.Fprintf(b.Out, "\r%s\x1b[K", line)
			} else {
				fmt.Fprintln(b.Out, line)
			}
		}
	}()
	return func(err error) {
		close(done)
		<-ended
		if terminal {
			fmt.Fprint(b.Out, "\r\x1b[K")
		}
		if err == nil {
			fmt.Fprintf(b.Out, "%s %s: built in %s\n", s.Name, s.Version, time.Since(start).Round(time.Second))
		}
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// modules returns the folder with the wrapper modules: named, from
// $SVCSCOPE_LAB_MODULES, beside the program, or in the repository that the
// working folder belongs to.
func (b Builder) modules() (string, error) {
	candidates := []string{b.Modules, os.Getenv("SVCSCOPE_LAB_MODULES")}
	if exe, err := os.Executable(); err == nil {
		d := filepath.Dir(exe)
		candidates = append(candidates, filepath.Join(d, "..", "hack", "lab", "build"), filepath.Join(d, "build"))
	}
	if wd, err := os.Getwd(); err == nil {
		for d := wd; ; d = filepath.Dir(d) {
			candidates = append(candidates, filepath.Join(d, "hack", "lab", "build"))
			if d == filepath.Dir(d) {
				break
			}
		}
	}
	for _, c := range candidates {
		if c == "" {
			continue
		}
		if _, err := os.Stat(filepath.Join(c, "kubernetes", "go.mod")); err == nil {
			return filepath.Abs(c)
		}
	}
	return "", errors.New("build: the modules of hack/lab/build are not beside this program: name their folder with --modules or SVCSCOPE_LAB_MODULES")
}
