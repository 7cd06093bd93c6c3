// SPDX-License-Identifier: Apache-2.0

// Probe tells, as JSON, what a process in a container is and may.
package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// report is what the test reads.
type report struct {
	Pid    int
	Status map[string]string // of /proc/self/status
	Errno  map[string]string // what attempts gave
	Env    []string
	Args   []string
	Dir    string
	Net    string // the network namespace
	Kcore  int    // bytes that can be read of it
	Init   string // the command of PID 1
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "wait" {
		term := make(chan os.Signal, 1)
		signal.Notify(term, syscall.SIGTERM)
		os.Stdout.WriteString("waiting\n")
		<-term
		os.Exit(3)
	}
	r := report{Pid: os.Getpid(), Status: map[string]string{}, Errno: map[string]string{}, Env: os.Environ(), Args: os.Args}
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		k, v, _ := strings.Cut(line, ":")
		r.Status[k] = strings.TrimSpace(v)
	}
	r.Dir, _ = os.Getwd()
	r.Net, _ = os.Readlink("/proc/self/ns/net")
	kcore, _ := os.ReadFile("/proc/kcore")
	r.Kcore = len(kcore)
	init, _ := os.ReadFile("/proc/1/cmdline")
	r.Init = string(init)
	note := func(name string, err error) {
		var errno unix.Errno
		switch {
		case err == nil:
			r.Errno[name] = ""
		case errors.As(err, &errno):
			r.Errno[name] = unix.ErrnoName(errno)
		default:
			r.Errno[name] = err.Error()
		}
	}
	for _, p := range []string{"/new", "/proc/sys/kernel/domainname", "/proc/sys/net/ipv4/ip_forward", "/sys/new", "/ro/new", "/rw/new", "/dev/null"} {
		f, err := os.OpenFile(p, os.O_CREATE|os.O_WRONLY, 0o644)
		if err == nil {
			f.Close()
		}
		note("write "+p, err)
	}
	calls(note)
	json.NewEncoder(os.Stdout).Encode(r)
}

// calls tries what a seccomp filter lets through or not.
func calls(note func(string, error)) {
	raw := func(name string, nr uintptr, args ...uintptr) {
		var a [3]uintptr
		copy(a[:], args)
		_, _, e := unix.Syscall(nr, a[0], a[1], a[2])
		var err error
		if e != 0 {
			err = e
		}
		note(name, err)
	}
	note("mount", unix.Mount("none", "/", "tmpfs", 0, ""))
	note("unshare user", unix.Unshare(unix.CLONE_NEWUSER))
	raw("clone3", unix.SYS_CLONE3)
	raw("clone user", unix.SYS_CLONE, unix.CLONE_NEWUSER|unix.CLONE_VM|unix.CLONE_THREAD)
	note("ptrace", unix.PtraceAttach(1))
	raw("bpf", unix.SYS_BPF)
	raw("kexec_load", unix.SYS_KEXEC_LOAD)
	raw("keyctl", unix.SYS_KEYCTL, 99)
	persona := uintptr(0x0040000)
	raw("personality", unix.SYS_PERSONALITY, persona)
	for name, domain := range map[string]int{"vsock": unix.AF_VSOCK, "netlink": unix.AF_NETLINK} {
		fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		if err == nil {
			unix.Close(fd)
		}
		note(name, err)
	}
}
