// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func testState(t *testing.T) State {
	t.Helper()
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	t.Setenv("LAB_STATE", "")
	s, err := Of("x")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestLockKeepsTwoLabsApart(t *testing.T) {
	s := testState(t)
	f, err := s.Lock()
	if err != nil {
		t.Fatal(err)
	}
	if !s.Running() {
		t.Error("held lock, not running")
	}
	if _, err := s.Lock(); !errors.Is(err, ErrUp) {
		t.Errorf("second lock: %v, want ErrUp", err)
	}
	f.Close()
	if s.Running() {
		t.Error("lock given back, running")
	}
}

func TestDownCleansWhatADeadLabLeft(t *testing.T) {
	s := testState(t)
	if was, err := Down(s); was || err != nil {
		t.Errorf("down of nothing: %t, %v", was, err)
	}
	if err := os.MkdirAll(s.Path("logs"), 0o700); err != nil {
		t.Fatal(err)
	}
	// A process of this number and another start time is not the lab.
	if err := WriteJSON(s.Path("process.json"), Process{PID: os.Getpid(), Start: "1"}); err != nil {
		t.Fatal(err)
	}
	if was, err := Down(s); !was || err != nil {
		t.Errorf("down of a dead lab: %t, %v", was, err)
	}
	if _, err := os.Stat(filepath.Dir(s.Dir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("state is left: %v", err)
	}
}

func TestNamesThatAreNone(t *testing.T) {
	for _, name := range []string{"", "A", "../x", "a/b", "-", "a-", "0123456789012345678901234567890123"} {
		if _, err := Of(name); err == nil {
			t.Errorf("name %q: no error", name)
		}
	}
}

func TestStartTimeOfThisProcess(t *testing.T) {
	a, err := startTime(os.Getpid())
	if err != nil || a == "" || a == "0" {
		t.Errorf("start time %q, %v", a, err)
	}
}
