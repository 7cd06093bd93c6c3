// SPDX-License-Identifier: Apache-2.0

// Package instance starts, finds, talks to and ends labs. A lab is a tree of
// processes below one PID 1 in namespaces of its own; when that process dies
// the kernel ends all others and frees the namespaces. On the host there is
// only the lab's state folder.
package instance

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrDown is returned where a lab is not running.
var ErrDown = errors.New("is not up")

// ErrUp is returned where a lab is running already.
var ErrUp = errors.New("is up already")

var nameRE = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// State is the folder of one lab on the host.
type State struct {
	// Name of the lab.
	Name string
	// Dir is its absolute path, the same inside and outside the lab.
	Dir string
}

// Base returns the folder that holds the state of all labs of this user:
// $XDG_RUNTIME_DIR/svcscope-lab, or /tmp/svcscope-lab-UID.
func Base() string {
	if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" {
		if fi, err := os.Stat(d); err == nil && fi.IsDir() {
			return filepath.Join(d, "svcscope-lab")
		}
	}
	return filepath.Join("/tmp", fmt.Sprintf("svcscope-lab-%d", os.Getuid()))
}

// Of returns the state of the named lab. Inside a lab it is that lab's,
// whatever XDG_RUNTIME_DIR says.
func Of(name string) (State, error) {
	if !nameRE.MatchString(name) {
		return State{}, fmt.Errorf("lab name %q: want up to 32 of a-z, 0-9 and '-'", name)
	}
	if d := os.Getenv("LAB_STATE"); d != "" && filepath.Base(d) == name {
		return State{Name: name, Dir: d}, nil
	}
	return State{Name: name, Dir: filepath.Join(Base(), name)}, nil
}

// List returns the states of all labs of this user, running or not.
func List() ([]State, error) {
	entries, err := os.ReadDir(Base())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list labs: %w", err)
	}
	var out []State
	for _, e := range entries {
		if e.IsDir() && nameRE.MatchString(e.Name()) {
			out = append(out, State{Name: e.Name(), Dir: filepath.Join(Base(), e.Name())})
		}
	}
	return out, nil
}

// Path returns the path of a file in the state folder.
func (s State) Path(elem ...string) string {
	return filepath.Join(append([]string{s.Dir}, elem...)...)
}

// Socket is where the lab's supervisor listens.
func (s State) Socket() string { return s.Path("control.sock") }

// Kubeconfig is the administrator's; it works inside the lab.
func (s State) Kubeconfig() string { return s.Path("kubeconfig") }

// Log returns the path of a component's log.
func (s State) Log(component string) string { return s.Path("logs", component+".log") }

// Lock makes the folder and takes the lab's lock, which its processes hold as
// long as they live. It returns ErrUp if another holds it.
func (s State) Lock() (*os.File, error) {
	for range 100 {
		f, err := s.tryLock()
		if f != nil || err != nil {
			return f, err
		}
	}
	return nil, fmt.Errorf("lab %s: lock file vanishes again and again", s.Name)
}

// tryLock returns nil without an error if the folder went away under it.
func (s State) tryLock() (*os.File, error) {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("lab %s: %w", s.Name, err)
	}
	var base unix.Stat_t
	if err := unix.Lstat(filepath.Dir(s.Dir), &base); err != nil {
		return nil, fmt.Errorf("lab %s: %w", s.Name, err)
	}
	if int(base.Uid) != os.Getuid() || base.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil, fmt.Errorf("lab %s: %s is not a folder of user %d; set XDG_RUNTIME_DIR to one that is",
			s.Name, filepath.Dir(s.Dir), os.Getuid())
	}
	f, err := os.OpenFile(s.Path("lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("lab %s: %w", s.Name, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lab %s %w: `lab down --name %s` ends it", s.Name, ErrUp, s.Name)
		}
		return nil, fmt.Errorf("lab %s: lock: %w", s.Name, err)
	}
	// Whoever held the lock before may have removed the folder meanwhile.
	held, err1 := f.Stat()
	named, err2 := os.Stat(f.Name())
	if err1 != nil || err2 != nil || !os.SameFile(held, named) {
		f.Close()
		return nil, nil //nolint:nilerr // see above
	}
	return f, nil
}

// Clean removes everything in the folder but the lock. The caller holds it.
func (s State) Clean() error {
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return fmt.Errorf("lab %s: %w", s.Name, err)
	}
	for _, e := range entries {
		if e.Name() == "lock" {
			continue
		}
		if err := os.RemoveAll(s.Path(e.Name())); err != nil {
			return fmt.Errorf("lab %s: clean: %w", s.Name, err)
		}
	}
	return nil
}

// Remove deletes the folder. The caller holds the lock.
func (s State) Remove() error {
	if err := os.RemoveAll(s.Dir); err != nil {
		return fmt.Errorf("lab %s: remove state: %w", s.Name, err)
	}
	// The base goes with the last lab; it is not empty otherwise.
	_ = os.Remove(filepath.Dir(s.Dir))
	return nil
}

// Running reports whether a process holds the lab's lock.
func (s State) Running() bool {
	if _, err := os.Stat(s.Dir); err != nil {
		return false
	}
	f, err := os.Open(s.Path("lock"))
	if err != nil {
		return false
	}
	defer f.Close()
	// A shared try does not disturb a holder and is given back at once.
	return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil
}

// Process identifies the lab's PID 1 as the host sees it.
type Process struct {
	PID int `json:"pid"`
	// Start is field 22 of /proc/PID/stat, clock ticks since boot: with the
	// PID it is unique.
	Start string `json:"start"`
}

func startTime(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", fmt.Errorf("process %d: %w", pid, err)
	}
	// The second field is the name in parentheses and may hold spaces.
	_, rest, ok := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return "", fmt.Errorf("process %d: stat has %d fields", pid, len(fields))
	}
	return fields[19], nil
}

func (s State) writeProcess(pid int) error {
	start, err := startTime(pid)
	if err != nil {
		return err
	}
	return WriteJSON(s.Path("process.json"), Process{PID: pid, Start: start})
}

// WriteJSON writes a value to a file of mode 0600, whole or not at all.
func WriteJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(tmp, path)
}

// ReadJSON reads what WriteJSON wrote.
func ReadJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("decode %s: %w", path, err)
	}
	return nil
}
