// SPDX-License-Identifier: Apache-2.0

package kerneltest

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// childEnv holds, in the re-executed process, the name of the test it is for.
const childEnv = "SVCSCOPE_KERNELTEST_CHILD"

// requireEnv set to 1 turns every skip into a failure.
const requireEnv = "SVCSCOPE_REQUIRE_KERNEL"

// Run calls fn as root of new user, network, mount and PID namespaces: lo is
// up, /run is an empty tmpfs (so /run/xtables.lock is private), no rule and no
// table exists. The calling test's code before Run runs in both processes.
// The process is single-purpose: fn may lock threads and drop privileges.
// Where namespaces are not allowed the test is skipped, or fails with
// SVCSCOPE_REQUIRE_KERNEL=1.
func Run(t *testing.T, fn func(t *testing.T)) {
	t.Helper()
	if inChild(t) {
		fn(t)
		return
	}
	out, err := reexec(t, "-test.run="+pattern(t.Name()), "-test.v")
	reason, skipped := skipReason(out, t.Name())
	switch {
	case err != nil:
		t.Fatalf("in namespaces: %v\n%s", err, out)
	case skipped:
		skip(t, "in namespaces: "+reason)
	case !strings.Contains(out, "--- PASS: "+t.Name()+" "):
		t.Fatalf("in namespaces: the test did not run:\n%s", out)
	case testing.Verbose():
		t.Logf("in namespaces:\n%s", out)
	}
}

// RunB is Run for benchmarks; the figures that the other process measures are
// reported as those of b.
func RunB(b *testing.B, fn func(b *testing.B)) {
	b.Helper()
	if inChild(b) {
		fn(b)
		return
	}
	args := []string{"-test.run=^$", "-test.bench=" + pattern(b.Name())}
	if f := flag.Lookup("test.benchtime"); f != nil {
		args = append(args, "-test.benchtime="+f.Value.String())
	}
	out, err := reexec(b, args...)
	if err != nil {
		b.Fatalf("in namespaces: %v\n%s", err, out)
	}
	if reason, skipped := skipReason(out, b.Name()); skipped {
		skip(b, "in namespaces: "+reason)
	}
	reportFigures(b, out)
}

// inChild tells whether this is the re-executed process, which it sets up on
// the first call.
func inChild(tb testing.TB) bool {
	tb.Helper()
	want, ok := os.LookupEnv(childEnv)
	if !ok {
		return false
	}
	if want != tb.Name() {
		tb.Fatalf("%s calls Run inside the namespaces of %s", tb.Name(), want)
	}
	if err := setup(); err != nil {
		skip(tb, "set up namespaces: "+err.Error())
	}
	return true
}

// pattern returns the expression that selects exactly the test of that name.
func pattern(name string) string {
	parts := strings.Split(name, "/")
	for i, p := range parts {
		parts[i] = "^" + regexp.QuoteMeta(p) + "$"
	}
	return strings.Join(parts, "/")
}

// reexec runs the test binary in new namespaces and returns what it printed.
// It skips where the kernel does not let us make them.
func reexec(tb testing.TB, args ...string) (string, error) {
	tb.Helper()
	exe, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	args = append(args, "-test.count=1", "-test.timeout="+remaining(tb).String())
	// Pdeathsig is sent when the parent *thread* ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var out bytes.Buffer
	for _, flags := range cloneFlags(tb) {
		cmd := exec.Command(exe, args...)
		cmd.Env = append(os.Environ(), childEnv+"="+tb.Name())
		cmd.Stdout, cmd.Stderr = &out, &out
		cmd.SysProcAttr = sysProcAttr(flags)
		if err = cmd.Start(); err == nil {
			return finish(tb, cmd, &out)
		}
	}
	skip(tb, "make namespaces: "+err.Error())
	return "", err
}

// finish waits for cmd, and ends it with the test.
func finish(tb testing.TB, cmd *exec.Cmd, out *bytes.Buffer) (string, error) {
	tb.Helper()
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		return out.String(), err
	case <-tb.Context().Done():
		_ = cmd.Process.Kill()
		return out.String(), errors.Join(errors.New("test ended"), <-done)
	}
}

// cloneFlags lists the sets of namespaces to try: real root may make all but
// the user namespace where that one is forbidden. Benchmarks of real root stay
// without it: iptables-nft-restore may then send rules by the ten thousand at
// once, which takes a socket buffer above net.core.wmem_max.
func cloneFlags(tb testing.TB) []uintptr {
	base := uintptr(unix.CLONE_NEWNS | unix.CLONE_NEWPID)
	if os.Geteuid() != 0 {
		return []uintptr{base | unix.CLONE_NEWUSER}
	}
	if _, benchmark := tb.(*testing.B); benchmark {
		return []uintptr{base, base | unix.CLONE_NEWUSER}
	}
	return []uintptr{base | unix.CLONE_NEWUSER, base}
}

func sysProcAttr(flags uintptr) *syscall.SysProcAttr {
	// The network namespace comes after the user namespace has its root: of
	// one that is made together with it, before uid_map is written, files like
	// /proc/net/ip_tables_names (mode 0440) belong to the real root for good
	// (net/netfilter/x_tables.c, xt_proto_init).
	a := &syscall.SysProcAttr{
		Cloneflags: flags, Unshareflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL,
	}
	if flags&unix.CLONE_NEWUSER != 0 {
		a.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	return a
}

// remaining is the time the child may take: a little less than we have, so
// that it is the child that reports where it hangs.
func remaining(tb testing.TB) time.Duration {
	const most = 10 * time.Minute
	d, ok := tb.(interface{ Deadline() (time.Time, bool) })
	if !ok {
		return most
	}
	at, ok := d.Deadline()
	if !ok {
		return most
	}
	return max(time.Until(at)*9/10, time.Second)
}

// setup makes the new namespaces usable; once per process.
var setup = sync.OnceValue(func() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	return linkUp("lo")
})

// linkUp is `ip link set dev name up` without the tool.
func linkUp(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("bring %s up: %w", name, err)
	}
	return nil
}

// skipReason finds the child's skip of the test called name, and why.
func skipReason(out, name string) (string, bool) {
	_, rest, ok := strings.Cut(out, "--- SKIP: "+name)
	if !ok {
		return "", false
	}
	// With -test.v the reason stands before the verdict, in benchmarks after.
	before := strings.TrimSpace(out[:len(out)-len(rest)])
	for _, part := range []string{before, rest} {
		for line := range strings.Lines(part) {
			if m := reasonLine.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
				return m[1], true
			}
		}
	}
	return "no reason given", true
}

var reasonLine = regexp.MustCompile(`^[\w./-]+\.go:\d+: (.*)`)

// reportFigures copies "123 ns/op 4 B/op ..." of the child's result line to b.
func reportFigures(b *testing.B, out string) {
	b.Helper()
	found := false
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		for i := 2; i+1 < len(f); i += 2 {
			v, err := strconv.ParseFloat(f[i], 64)
			if err != nil {
				continue
			}
			b.ReportMetric(v, f[i+1])
			found = true
		}
	}
	if !found {
		b.Fatalf("in namespaces: no figures:\n%s", out)
	}
}
