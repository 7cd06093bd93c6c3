// SPDX-License-Identifier: Apache-2.0

// Package labtest brings a lab up for a test and takes it down with it:
//
//	lab := labtest.Start(t, labtest.Options{Backend: "legacy"})
//	web := lab.Expose("web", "--port", "80", "--pods", "pod1,pod2")
//	r := lab.Load("client", web.VIP4(), 500)
//	rules := lab.Exec("node1", "iptables-save", "-c", "-t", "nat")
package labtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/svcscope/svcscope/hack/lab/internal/binaries"
	"github.com/svcscope/svcscope/hack/lab/internal/cluster"
	"github.com/svcscope/svcscope/hack/lab/internal/instance"
	"github.com/svcscope/svcscope/hack/lab/internal/traffic"
)

// Options says what a lab is to be. The zero value is one with the real
// control plane, kube-proxy in iptables mode, iptables-nft and three pods.
type Options struct {
	// ProxyMode is "iptables" or "nftables".
	ProxyMode string
	// Backend of iptables, "nft" or "legacy".
	Backend string
	// Rules is an iptables-restore file; with it there is no control plane.
	Rules string
	// Scene is "" or "demo".
	Scene string
	// Pods is the number of pods.
	Pods int
	// Args are further arguments of `lab up`.
	Args []string
}

// Info is what the lab is: see `lab up -o json`.
type Info = instance.Info

// Result is what became of connections: see `lab load -o json`.
type Result = traffic.Result

// Lab is a running lab that belongs to a test.
type Lab struct {
	// Info tells names and addresses.
	Info Info
	// Program is the path of the lab program.
	Program string

	t   testing.TB
	env []string
}

// Start brings a lab up. It is taken down when the test ends, and also when
// the test's process dies. Without the binaries of the control plane the test
// is skipped, or fails with SVCSCOPE_REQUIRE_LAB=1.
func Start(t testing.TB, o Options) *Lab {
	t.Helper()
	if o.Rules == "" {
		requireBinaries(t)
	}
	l := &Lab{Program: Program(t), t: t}
	state := stateDir(t)
	name := fmt.Sprintf("t%d", os.Getpid())
	l.env = append(os.Environ(), "XDG_RUNTIME_DIR="+state, "LAB_NAME="+name)
	cmd := exec.Command(l.Program, append([]string{"up", "--die-with-parent", "-o", "json"}, o.args()...)...)
	cmd.Env = l.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var log bytes.Buffer
	cmd.Stderr = &log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.keepLogs(name, state)
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("lab down: %v: %s", err, log.String())
		}
	})
	if err := json.NewDecoder(stdout).Decode(&l.Info); err != nil {
		stdin.Close()
		_, _ = io.Copy(io.Discard, stdout) // until it has ended
		t.Fatalf("lab up: %v\n%s", err, log.String())
	}
	return l
}

func (o Options) args() []string {
	var args []string
	for _, f := range []struct{ flag, value string }{
		{"--proxy-mode", o.ProxyMode}, {"--iptables", o.Backend}, {"--scene", o.Scene}, {"--rules", o.Rules},
	} {
		if f.value != "" {
			args = append(args, f.flag, f.value)
		}
	}
	if o.Rules != "" {
		args = append(args, "--control-plane", "none")
	}
	if o.Pods > 0 {
		args = append(args, "--pods", strconv.Itoa(o.Pods))
	}
	return append(args, o.Args...)
}

func requireBinaries(t testing.TB) {
	t.Helper()
	_, err := binaries.Find("etcd", "kube-apiserver", "kube-proxy", "kubectl")
	switch {
	case err == nil:
	case errors.Is(err, binaries.ErrMissing) && os.Getenv("SVCSCOPE_REQUIRE_LAB") != "1":
		t.Skip(err)
	default:
		t.Fatal(err)
	}
}

// Program builds the lab program for the test. $SVCSCOPE_LAB_PROGRAM names one
// that is built already.
func Program(t testing.TB) string {
	t.Helper()
	if p := os.Getenv("SVCSCOPE_LAB_PROGRAM"); p != "" {
		return p
	}
	path := filepath.Join(t.TempDir(), "lab")
	out, err := exec.Command("go", "build", "-o", path, "github.com/svcscope/svcscope/hack/lab").CombinedOutput()
	if err != nil {
		t.Fatalf("build the lab program: %v: %s", err, out)
	}
	return path
}

// stateDir returns a folder of the test for the lab's state. Not TempDir: a
// socket's path must be short.
func stateDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lab-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// keepLogs writes the end of the components' logs to a failed test's output.
func (l *Lab) keepLogs(name, state string) {
	if !l.t.Failed() {
		return
	}
	files, _ := filepath.Glob(filepath.Join(state, "svcscope-lab", name, "logs", "*.log"))
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil || len(b) == 0 {
			continue
		}
		if len(b) > 3000 {
			b = b[len(b)-3000:]
		}
		l.t.Logf("%s:\n%s", filepath.Base(f), b)
	}
}

// Command returns `lab ARGS...` for this lab, not yet started.
func (l *Lab) Command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(l.t.Context(), l.Program, args...)
	cmd.Env = l.env
	return cmd
}

// Run runs `lab ARGS...` for this lab and returns its standard output. The
// test fails if the command does.
func (l *Lab) Run(args ...string) string {
	l.t.Helper()
	var stderr bytes.Buffer
	cmd := l.Command(args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		l.t.Fatalf("lab %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr.Bytes())
	}
	return string(out)
}

// Exec runs a command in a namespace and returns its standard output. The
// test fails if the command does.
func (l *Lab) Exec(where string, argv ...string) string {
	l.t.Helper()
	return l.Run(append([]string{"exec", where, "--"}, argv...)...)
}

// Kubectl runs kubectl and returns its standard output.
func (l *Lab) Kubectl(args ...string) string {
	l.t.Helper()
	return l.Run(append([]string{"kubectl", "--"}, args...)...)
}

// Process is a command that runs in a namespace.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
	out  syncBuffer
}

// syncBuffer is a bytes.Buffer for one writer and any readers.
type syncBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

// Write implements io.Writer.
func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

// String returns what was written so far.
func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// StartProcess starts a command in a namespace. It is stopped when the test
// ends.
func (l *Lab) StartProcess(where string, argv ...string) *Process {
	l.t.Helper()
	return l.StartWith(nil, where, argv...)
}

// StartWith is StartProcess with flags of `lab exec`, such as
// "--caps=net_admin".
func (l *Lab) StartWith(flags []string, where string, argv ...string) *Process {
	l.t.Helper()
	return l.start(append(append(append([]string{"exec"}, flags...), where, "--"), argv...))
}

func (l *Lab) start(args []string) *Process {
	l.t.Helper()
	p := &Process{cmd: exec.Command(l.Program, args...), done: make(chan struct{})}
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = l.env, &p.out, &p.out
	if err := p.cmd.Start(); err != nil {
		l.t.Fatalf("lab %s: %v", strings.Join(args, " "), err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	l.t.Cleanup(func() { _ = p.Stop() })
	return p
}

// Stop sends SIGTERM, waits up to ten seconds for the end, then kills. It
// returns how the command ended. It may be called again.
func (p *Process) Stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("did not end within 10 s of SIGTERM: %w", p.err)
	}
	return p.err
}

// Kill ends the command with SIGKILL.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Done is closed when the command has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Output returns what the command has written so far, both streams.
func (p *Process) Output() string { return p.out.String() }

// WaitOutput returns when the command has written the text. The test fails if
// the command ends before, or after a minute.
func (p *Process) WaitOutput(t testing.TB, text string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !strings.Contains(p.Output(), text); {
		select {
		case <-p.done:
			// What came last may have come since the look above.
			if !strings.Contains(p.Output(), text) {
				t.Fatalf("the command ended (%v) without %q:\n%s", p.err, text, p.Output())
			}
			return
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %q in a minute:\n%s", text, p.Output())
		}
	}
}

// Load opens n new connections from a namespace to an address and returns
// what became of them. args are further flags of `lab load`.
func (l *Lab) Load(from, to string, n int, args ...string) Result {
	l.t.Helper()
	full := append([]string{"load", "--from", from, "--to", to, "-n", strconv.Itoa(n), "-o", "json"}, args...)
	var r Result
	if err := json.Unmarshal([]byte(l.Run(full...)), &r); err != nil {
		l.t.Fatalf("lab load: %v", err)
	}
	return r
}

// StartLoad goes on opening new connections, 40,000 at most. args are further
// flags of `lab load`, such as "--rate=10".
func (l *Lab) StartLoad(from, to string, args ...string) *Process {
	l.t.Helper()
	return l.start(append([]string{"load", "--from", from, "--to", to, "-n", "40000"}, args...))
}

// Service is what became of an Expose.
type Service struct{ cluster.Exposed }

// VIP4 and VIP6 return the Service's cluster address and port, ready for
// Load; empty where it has none of that family.
func (s Service) VIP4() string { return s.vip(false) }

// VIP6 is described at VIP4.
func (s Service) VIP6() string { return s.vip(true) }

func (s Service) vip(v6 bool) string {
	for _, ip := range s.ClusterIPs {
		if strings.Contains(ip, ":") == v6 {
			return net.JoinHostPort(ip, strconv.Itoa(s.Port))
		}
	}
	return ""
}

// Expose makes or changes a Service with its EndpointSlices and returns when
// kube-proxy has written the rules. args are flags of `lab expose`.
func (l *Lab) Expose(name string, args ...string) Service {
	l.t.Helper()
	var s Service
	out := l.Run(append([]string{"expose", name, "-o", "json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &s.Exposed); err != nil {
		l.t.Fatalf("lab expose %s: %v", name, err)
	}
	return s
}

// Unexpose removes a Service and returns when kube-proxy has removed its
// rules. args are flags of `lab unexpose`.
func (l *Lab) Unexpose(name string, args ...string) {
	l.t.Helper()
	l.Run(append([]string{"unexpose", name}, args...)...)
}

// Forward opens a port of a namespace, such as "node1:9090", on this machine
// until the test ends, and returns the address.
func (l *Lab) Forward(to string) string {
	l.t.Helper()
	p := l.start([]string{"forward", "127.0.0.1:0", to})
	p.WaitOutput(l.t, " leads to ")
	address, _, _ := strings.Cut(p.Output(), " ")
	return address
}

// NodePort returns node1's address with a port, in IPv4 or IPv6.
func (l *Lab) NodePort(port int, v6 bool) string {
	ip := l.Info.Nodes[0].IPv4[0]
	if v6 {
		ip = l.Info.Nodes[0].IPv6[0]
	}
	return net.JoinHostPort(ip, strconv.Itoa(port))
}
