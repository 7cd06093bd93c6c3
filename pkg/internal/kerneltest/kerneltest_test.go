// SPDX-License-Identifier: Apache-2.0

package kerneltest

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRunIsAPlaceOfItsOwn(t *testing.T) {
	outside, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	key := "KERNELTEST_OUTSIDE"
	if os.Getenv(key) == "" {
		t.Setenv(key, outside)
	}
	Run(t, func(t *testing.T) {
		inside, err := os.Readlink("/proc/self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		if inside == os.Getenv(key) {
			t.Error("same network namespace as outside")
		}
		if os.Geteuid() != 0 {
			t.Errorf("uid %d, want 0", os.Geteuid())
		}
		links, err := net.Interfaces()
		if err != nil {
			t.Fatal(err)
		}
		if len(links) == 0 || links[0].Name != "lo" || links[0].Flags&net.FlagUp == 0 {
			t.Errorf("links %v, want lo, up", links)
		}
		if left, _ := filepath.Glob("/run/*"); len(left) > 0 {
			t.Errorf("/run has %v, want it empty", left)
		}
	})
}

func TestRunInSubtests(t *testing.T) {
	for _, name := range []string{"one (with signs)", "two/three"} {
		t.Run(name, func(t *testing.T) {
			Run(t, func(t *testing.T) { Exec(t, "", "ip", "addr", "add", "192.0.2.1/32", "dev", "lo") })
		})
	}
}

func TestRunSkipsAsTheChildDoes(t *testing.T) {
	if os.Getenv(requireEnv) == "1" {
		t.Setenv(requireEnv, "")
	}
	ran := t.Run("child skips", func(t *testing.T) {
		t.Cleanup(func() {
			if _, child := os.LookupEnv(childEnv); !child && !t.Skipped() {
				t.Error("not skipped")
			}
		})
		Run(t, func(t *testing.T) { t.Skip("for a reason") })
	})
	if !ran {
		t.Error("a skip counts as failure")
	}
}

func TestSkipReason(t *testing.T) {
	out := "=== RUN   TestX\n    need_test.go:12: need nfacct: gone\n--- SKIP: TestX (0.00s)\nPASS\n"
	got, ok := skipReason(out, "TestX")
	if !ok || got != "need nfacct: gone" {
		t.Errorf("got %q, %v", got, ok)
	}
	if _, ok := skipReason("--- PASS: TestX (0.00s)\n", "TestX"); ok {
		t.Error("a pass is a skip")
	}
}

func TestDropCapabilities(t *testing.T) {
	Run(t, func(t *testing.T) {
		DropCapabilities(t, unix.CAP_NET_ADMIN)
		for name, want := range map[string]string{
			"CapInh": "0000000000000000", "CapAmb": "0000000000000000", "CapPrm": "0000000000001000",
			"CapEff": "0000000000001000", "CapBnd": "0000000000001000", "NoNewPrivs": "1",
		} {
			for _, file := range []string{"/proc/thread-self/status", "exec"} {
				if got := statusField(t, file, name); got != want {
					t.Errorf("%s of %s: got %s, want %s", name, file, got, want)
				}
			}
		}
		if err := unix.Unshare(unix.CLONE_NEWNS); !errors.Is(err, unix.EPERM) {
			t.Errorf("unshare: got %v, want EPERM", err)
		}
	})
}

// statusField reads one field of a status file of proc, "exec" that of a
// program that is executed.
func statusField(t *testing.T, file, name string) string {
	t.Helper()
	var text string
	if file == "exec" {
		text = Exec(t, "", "cat", "/proc/self/status")
	} else {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text = string(b)
	}
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	t.Fatalf("%s has no %s", file, name)
	return ""
}
