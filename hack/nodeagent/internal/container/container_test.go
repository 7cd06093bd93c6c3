// SPDX-License-Identifier: Apache-2.0

package container

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// insideEnv marks the test's process in namespaces of its own; without says
// why there are none here.
const (
	insideEnv  = "NODEAGENT_TEST_INSIDE"
	withoutEnv = "NODEAGENT_TEST_WITHOUT"
)

// TestMain makes the test binary serve as a container's first process, and
// runs the tests in a user and a network namespace, as in a lab. Where there
// are none, tests that start containers are skipped, or it is a failure with
// SVCSCOPE_REQUIRE_KERNEL=1.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && (os.Args[1] == InitCommand || os.Args[1] == ExecCommand) {
		Main(os.Args[1])
	}
	if os.Getenv(insideEnv) != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
	}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		os.Exit(0)
	case errors.As(err, &exit):
		os.Exit(max(exit.ExitCode(), 1))
	}
	fmt.Fprintln(os.Stderr, "no namespaces here:", err)
	if os.Getenv("SVCSCOPE_REQUIRE_KERNEL") == "1" {
		os.Exit(1)
	}
	if err := os.Setenv(withoutEnv, err.Error()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// rootfs returns a fresh root file system with the probe as /bin/probe.
func rootfs(t *testing.T) string {
	t.Helper()
	if why := os.Getenv(withoutEnv); why != "" {
		t.Skip("no namespaces here: ", why)
	}
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "bin", "probe"), "./testdata/probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the probe: %v: %s", err, out)
	}
	return dir
}

type report struct {
	Pid            int
	Status, Errno  map[string]string
	Env, Args      []string
	Dir, Net, Init string
	Kcore          int
}

func read(t *testing.T, out []byte) report {
	t.Helper()
	var r report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("the probe's report: %v: %s", err, out)
	}
	return r
}

func probe(t *testing.T, s *Spec) report {
	t.Helper()
	var out, errs bytes.Buffer
	c, err := Start(s, Streams{Out: &out, Err: &errs})
	if err != nil {
		t.Fatal(err)
	}
	code, _, err := c.Wait()
	if err != nil || code != 0 {
		t.Fatalf("the probe ended with %d, %v: %s", code, err, errs.String())
	}
	return read(t, out.Bytes())
}

// check compares a report with what it has to say.
func check(t *testing.T, r report, status, errno map[string]string) {
	t.Helper()
	for k, want := range status {
		if r.Status[k] != want {
			t.Errorf("%s is %q, want %q", k, r.Status[k], want)
		}
	}
	for k, want := range errno {
		if got, ok := r.Errno[k]; !ok || got != want {
			t.Errorf("%s gives %q, want %q", k, got, want)
		}
	}
}

// agentLike is how the chart's container runs.
func agentLike(dir string) *Spec {
	return &Spec{Rootfs: dir, ReadOnly: true, Process: Process{
		Args: []string{"probe", "a", "b"}, Env: []string{"PATH=/bin", "X=1"}, Dir: "/bin",
		Caps: []string{"NET_ADMIN"}, NoNewPrivs: true, Seccomp: true,
	}}
}

func TestConfined(t *testing.T) {
	s := agentLike(rootfs(t))
	ro, rw := t.TempDir(), t.TempDir()
	s.Mounts = []Mount{{Source: ro, Target: "/ro", ReadOnly: true}, {Source: rw, Target: "/rw"}}
	r := probe(t, s)
	const netAdmin = "0000000000001000"
	const none = "0000000000000000"
	check(t, r, map[string]string{
		"CapInh": none, "CapPrm": netAdmin, "CapEff": netAdmin, "CapBnd": netAdmin, "CapAmb": none,
		"NoNewPrivs": "1", "Seccomp": "2", "Seccomp_filters": "1", "Uid": "0\t0\t0\t0", "Gid": "0\t0\t0\t0",
	}, map[string]string{
		"write /new": "EROFS", "write /ro/new": "EROFS", "write /rw/new": "", "write /dev/null": "",
		"write /proc/sys/kernel/domainname": "EROFS", "write /proc/sys/net/ipv4/ip_forward": "EROFS",
		// A file system of the kernel lets nobody make files.
		"mount": "EPERM", "unshare user": "EPERM", "clone3": "ENOSYS", "clone user": "EPERM", "ptrace": "EPERM",
		"bpf": "EPERM", "kexec_load": "EPERM", "keyctl": "EPERM", "personality": "EPERM", "vsock": "EPERM", "netlink": "",
	})
	net, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if r.Net != net {
		t.Errorf("the network namespace is %s, want the caller's, %s", r.Net, net)
	}
	if r.Pid != 1 || r.Dir != "/bin" || r.Kcore != 0 {
		t.Errorf("PID %d, working directory %s, %d bytes of /proc/kcore; want 1, /bin, 0", r.Pid, r.Dir, r.Kcore)
	}
	if diff := cmp.Diff([]string{"PATH=/bin", "X=1"}, r.Env); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"probe", "a", "b"}, r.Args); diff != "" {
		t.Errorf("arguments (-want +got):\n%s", diff)
	}
	if left, err := os.ReadDir(rw); err != nil || len(left) != 1 {
		t.Errorf("the volume has %v, %v; want what was written", left, err)
	}
}

// TestPlain is a container whose spec asks for nothing: a runtime's defaults.
func TestPlain(t *testing.T) {
	s := &Spec{Rootfs: rootfs(t), Process: Process{Args: []string{"/bin/probe"}, Caps: DefaultCaps()}}
	r := probe(t, s)
	const caps = "00000000a80425fb"
	check(t, r, map[string]string{"CapPrm": caps, "CapEff": caps, "CapBnd": caps, "CapInh": "0000000000000000", "NoNewPrivs": "0", "Seccomp": "0"},
		map[string]string{"write /new": "", "write /proc/sys/net/ipv4/ip_forward": "EROFS", "mount": "EPERM"})
	if r.Dir != "/" {
		t.Errorf("working directory %s, want /", r.Dir)
	}
}

// TestSeccompAlone is a filter without no_new_privs, which is added while the
// process still may.
func TestSeccompAlone(t *testing.T) {
	s := agentLike(rootfs(t))
	s.NoNewPrivs, s.Caps = false, nil
	check(t, probe(t, s), map[string]string{"NoNewPrivs": "0", "Seccomp": "2", "CapEff": "0000000000000000", "CapBnd": "0000000000000000"},
		map[string]string{"unshare user": "EPERM", "keyctl": "EPERM"})
}

func TestExecAndSignals(t *testing.T) {
	s := agentLike(rootfs(t))
	s.Args = []string{"probe", "wait"}
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	c, err := Start(s, Streams{Out: pw, Err: os.Stderr})
	pw.Close()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	if n, err := pr.Read(b); err != nil || string(b[:n]) != "waiting\n" {
		t.Fatalf("the container says %q, %v", b[:n], err)
	}
	p := s.Process
	p.Args = []string{"probe"}
	var out bytes.Buffer
	cmd, err := c.Exec(&p, Streams{Out: &out, Err: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	r := read(t, out.Bytes())
	check(t, r, map[string]string{"CapEff": "0000000000001000", "CapBnd": "0000000000001000", "NoNewPrivs": "1", "Seccomp": "2"},
		map[string]string{"write /new": "EROFS", "mount": "EPERM", "netlink": ""})
	if r.Pid < 2 || !strings.HasPrefix(r.Init, "probe\x00wait") {
		t.Errorf("the command is PID %d and PID 1 is %q, want to be beside the container's process", r.Pid, r.Init)
	}
	p.Args = []string{"no-such-program"}
	if _, err := c.Exec(&p, Streams{}); err == nil || !strings.Contains(err.Error(), "no-such-program") {
		t.Errorf("a program that is not there: %v", err)
	}
	if err := c.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, signal, err := c.Wait(); code != 3 || signal != 0 || err != nil {
		t.Errorf("the container ended with %d, signal %d, %v; want 3", code, signal, err)
	}
}

func TestStartErrors(t *testing.T) {
	dir := rootfs(t)
	for name, c := range map[string]struct {
		change func(*Spec)
		want   string
	}{
		"no program":    {func(s *Spec) { s.Args = []string{"nothing"} }, "nothing"},
		"no source":     {func(s *Spec) { s.Mounts = []Mount{{Source: dir + "/none", Target: "/x"}} }, "mount /x"},
		"no directory":  {func(s *Spec) { s.Dir = "/none" }, "working directory"},
		"no capability": {func(s *Spec) { s.Caps = []string{"FLY"} }, "FLY"},
	} {
		t.Run(name, func(t *testing.T) {
			s := agentLike(dir)
			c.change(s)
			if _, err := Start(s, Streams{}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Start: %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestCaps(t *testing.T) {
	for name, c := range map[string]struct{ add, drop, want []string }{
		"default":     {nil, nil, DefaultCaps()},
		"drop all":    {nil, []string{"ALL"}, nil},
		"one alone":   {[]string{"NET_ADMIN"}, []string{"ALL"}, []string{"NET_ADMIN"}},
		"all but one": {[]string{"ALL"}, []string{"CAP_NET_RAW"}, slices.DeleteFunc(capNames(), func(n string) bool { return n == "NET_RAW" })},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Caps(c.add, c.drop)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got, cmp.Transformer("empty", func(s []string) []string { return append([]string{}, s...) })); diff != "" {
				t.Errorf("Caps (-want +got):\n%s", diff)
			}
		})
	}
	if _, err := Caps([]string{"NET_ADMINS"}, nil); err == nil {
		t.Error("an unknown capability is no error")
	}
}

func TestPolicy(t *testing.T) {
	allows := func(caps ...string) []string {
		p, err := Policy(caps)
		if err != nil {
			t.Fatal(err)
		}
		return p.Syscalls[0].Names
	}
	plain := allows()
	if diff := cmp.Diff(plain, allows("NET_ADMIN")); diff != "" {
		t.Errorf("NET_ADMIN changes the filter:\n%s", diff)
	}
	for n := range strings.FieldsSeq("mount umount2 ptrace bpf unshare setns keyctl add_key request_key kexec_load init_module reboot swapon perf_event_open clone socket personality userfaultfd io_uring_setup") {
		if slices.Contains(plain, n) {
			t.Errorf("%s is allowed to everyone", n)
		}
	}
	if names := allows("SYS_ADMIN"); !slices.Contains(names, "mount") || !slices.Contains(names, "clone") {
		t.Error("SYS_ADMIN does not allow mount and clone")
	}
}
