// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
)

func watchLock(t *testing.T, path string) *LockWatch {
	t.Helper()
	w, err := WatchLock(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		for range w.Events() { // until it has ended
		}
	})
	return w
}

// take waits for n events.
func take(t *testing.T, w *LockWatch, n int) (kinds []LockEventKind) {
	t.Helper()
	for len(kinds) < n {
		select {
		case e, ok := <-w.Events():
			if !ok {
				t.Fatalf("the watch ended after %v", kinds)
			}
			if e.At.IsZero() {
				t.Error("an event without a time")
			}
			kinds = append(kinds, e.Kind)
		case <-time.After(10 * time.Second):
			t.Fatalf("only %v", kinds)
		}
	}
	return kinds
}

func lockEnded(t *testing.T, w *LockWatch) {
	t.Helper()
	for {
		select {
		case _, ok := <-w.Events():
			if !ok {
				return
			}
		case <-time.After(10 * time.Second):
			t.Fatal("the watch goes on")
		}
	}
}

func newLock(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "xtables.lock")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLockWatchTellsOpeningsAndClosings(t *testing.T) {
	path := newLock(t)
	w := watchLock(t, path)
	open := func() *os.File {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	a := open()
	first := take(t, w, 1)
	b := open()
	first = append(first, take(t, w, 1)...)
	_ = a.Close()
	first = append(first, take(t, w, 1)...)
	_ = b.Close()
	first = append(first, take(t, w, 1)...)
	want := []LockEventKind{LockOpened, LockOpened, LockClosed, LockClosed}
	if diff := cmp.Diff(want, first); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestLockWatchEndsWithItsFile(t *testing.T) {
	for name, replace := range map[string]func(path string) error{
		"removed": os.Remove,
		"moved":   func(path string) error { return os.Rename(path, path+".old") },
		"replaced": func(path string) error {
			if err := os.WriteFile(path+".new", nil, 0o600); err != nil {
				return err
			}
			return os.Rename(path+".new", path)
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := newLock(t)
			w := watchLock(t, path)
			if err := replace(path); err != nil {
				t.Fatal(err)
			}
			lockEnded(t, w)
			again, err := WatchLock(path)
			if name == "replaced" {
				if err != nil {
					t.Fatal(err)
				}
				_ = again.Close()
				lockEnded(t, again)
			} else if !errors.Is(err, ErrAbsent) {
				t.Errorf("got %v, want ErrAbsent", err)
			}
		})
	}
}

func TestLockWatchGoesOnWhenModesChange(t *testing.T) {
	path := newLock(t)
	w := watchLock(t, path)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	if diff := cmp.Diff([]LockEventKind{LockOpened, LockClosed}, take(t, w, 2)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestLockWatchOfNoFile(t *testing.T) {
	for _, path := range []string{filepath.Join(t.TempDir(), "none"), t.TempDir()} {
		if _, err := WatchLock(path); !errors.Is(err, ErrAbsent) {
			t.Errorf("%s: got %v, want ErrAbsent", path, err)
		}
	}
}

// TestLockWatchLosesNothingSilently has nobody take events.
func TestLockWatchLosesNothingSilently(t *testing.T) {
	path := newLock(t)
	w := watchLock(t, path)
	for range 3 * lockQueue {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
	if err := os.Remove(path); err != nil { // which ends the watch
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); !w.closed.Load(); {
		if time.Now().After(deadline) {
			t.Fatal("events stay in the kernel")
		}
	}
	kinds := map[LockEventKind]int{}
	for e := range w.Events() {
		kinds[e.Kind]++
	}
	if kinds[LockOverflow] == 0 {
		t.Errorf("got %v, want an overflow", kinds)
	}
}

// TestLockWatchSeesEveryCommit runs the writers of the real thing: each table
// of a restore is one session, and iptables-save takes no lock.
func TestLockWatchSeesEveryCommit(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		needLegacy(t, "iptables-legacy")
		const path = "/run/xtables.lock"
		w := watchLock(t, path)
		rules := "*filter\n:X - [0:0]\nCOMMIT\n*nat\n:X - [0:0]\nCOMMIT\n"
		kerneltest.Exec(t, rules, "iptables-legacy-restore", "-w", "5", "--noflush", "--counters")
		kerneltest.Exec(t, "", "iptables-legacy", "-w", "5", "-t", "nat", "-A", "X", "-j", "RETURN")
		kerneltest.Exec(t, "", "iptables-legacy-save", "-c")
		kerneltest.Exec(t, "", "iptables-legacy", "-w", "5", "-t", "nat", "-C", "X", "-j", "RETURN")
		var want []LockEventKind
		for range 4 { // filter, nat, -A, -C
			want = append(want, LockOpened, LockClosed)
		}
		if err := os.Remove(path); err != nil { // which ends the watch
			t.Fatal(err)
		}
		var got []LockEventKind
		for e := range w.Events() {
			got = append(got, e.Kind)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}
