// SPDX-License-Identifier: Apache-2.0

package kerneltest

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Feature is something that not every kernel has.
type Feature struct {
	Name string
	// Major and Minor are the first version of Linux that always has it. Zero
	// means that it depends on the kernel's configuration only.
	Major, Minor int
	// Probe returns nil if the feature is there, else what the kernel said.
	Probe func() error
}

// Need skips the test if the kernel lacks f. It fails instead if the kernel is
// as new as f's stated minimum, or with SVCSCOPE_REQUIRE_KERNEL=1.
func Need(tb testing.TB, f Feature) {
	tb.Helper()
	err := f.Probe()
	if err == nil {
		return
	}
	major, minor := Version(tb)
	if f.Major > 0 && (major > f.Major || major == f.Major && minor >= f.Minor) {
		tb.Fatalf("need %s: %v, and Linux %d.%d should have it since %d.%d",
			f.Name, err, major, minor, f.Major, f.Minor)
	}
	skip(tb, fmt.Sprintf("need %s: %v", f.Name, err))
}

// NeedTool returns the path of a tool, and skips the test if it is not
// installed; with SVCSCOPE_REQUIRE_KERNEL=1 it fails. Both name the Debian
// package.
func NeedTool(tb testing.TB, name string) string {
	tb.Helper()
	path, err := lookTool(name)
	if err != nil {
		skip(tb, fmt.Sprintf("need the tool %s: apt-get install %s", name, debianPackage(name)))
	}
	return path
}

// Version returns the running kernel's version.
func Version(tb testing.TB) (major, minor int) {
	tb.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		tb.Fatalf("uname: %v", err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		tb.Fatalf("kernel release %q: %v", release, err)
	}
	return major, minor
}

// skip skips tb, or fails it where every test has to run.
func skip(tb testing.TB, reason string) {
	tb.Helper()
	if os.Getenv(requireEnv) == "1" {
		tb.Fatalf("%s (%s=1 forbids to skip)", reason, requireEnv)
	}
	tb.Skip(reason)
}

// lookTool also looks where an ordinary user's PATH often does not.
func lookTool(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
		if p, e := exec.LookPath(dir + name); e == nil {
			return p, nil
		}
	}
	return "", err
}

func debianPackage(tool string) string {
	switch {
	case strings.HasPrefix(tool, "iptables"), strings.HasPrefix(tool, "ip6tables"),
		strings.HasPrefix(tool, "xtables"):
		return "iptables"
	case tool == "nft":
		return "nftables"
	case tool == "ip", tool == "ss", tool == "tc":
		return "iproute2"
	case tool == "ping":
		return "iputils-ping"
	}
	return tool // conntrack, ipset, strace
}
