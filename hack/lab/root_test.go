// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"strings"
	"testing"

	"github.com/svcscope/svcscope/hack/lab/labtest"
)

// TestWithoutUserNamespace: the host's own root runs a lab that leaves as
// little behind as the others.
func TestWithoutUserNamespace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("--userns=false is for root")
	}
	before, mark := take(t, "svcscope-lab-nothing"), ""
	t.Run("up", func(t *testing.T) {
		lab := labtest.Start(t, labtest.Options{Rules: "scenes/demo.v4.rules", Args: []string{"--userns=false"}})
		mark = lab.Info.State
		self, err := os.Readlink("/proc/self/ns/user")
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSpace(lab.Exec("node1", "readlink", "/proc/self/ns/user")); got != self {
			t.Errorf("user namespace of node1 is %s, the test's %s", got, self)
		}
		for _, dir := range []string{"/sys", "/proc/sys"} {
			options := lab.Exec("node1", "findmnt", "--noheadings", "--output=OPTIONS", "--target="+dir)
			if !strings.HasPrefix(options, "ro,") {
				t.Errorf("%s is mounted %s, want read-only", dir, options)
			}
		}
		if r := lab.Load("client", "10.96.0.80:80", 50); r.Succeeded != 50 {
			t.Errorf("50 connections: %+v", r)
		}
	})
	after := take(t, mark)
	if len(after.processes) > 0 {
		t.Errorf("processes left: %q in %q", after.processes, after.namespaces)
	}
	if was, is := strings.Join(before.mounts, "\n"), strings.Join(after.mounts, "\n"); was != is {
		t.Errorf("mounts on the host changed: %s, before %s", is, was)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Errorf("state folder %s is left", mark)
	}
}
