// SPDX-License-Identifier: Apache-2.0

// Package nsexec runs a command in one of the lab's network namespaces, with
// a chosen set of capabilities. A namespace and a capability set belong to a
// thread, so the work is done in a process of its own that then becomes the
// command: `lab __ns [flags] -- COMMAND`.
package nsexec

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir is where the lab's network namespaces have their names, as with
// `ip netns`. It lies in a tmpfs that only the lab's processes see.
const Dir = "/run/netns/"

// Subcommand is the first argument that makes the lab program call Main.
const Subcommand = "__ns"

// Options says how a command runs.
type Options struct {
	// Netns is the name of the network namespace; empty keeps the caller's.
	Netns string
	// Hostname is set in a new UTS namespace; empty keeps the caller's.
	Hostname string
	// Caps names the capabilities that are kept ("net_admin"). It has an
	// effect only with DropCaps.
	Caps []string
	// DropCaps takes all capabilities but Caps away, from the bounding set
	// too, and sets no_new_privs.
	DropCaps bool
}

// Argv returns the argument vector that runs argv under the options. exe is
// the path of the lab program.
func Argv(exe string, o Options, argv []string) []string {
	out := []string{exe, Subcommand}
	if o.Netns != "" {
		out = append(out, "-net="+o.Netns)
	}
	if o.Hostname != "" {
		out = append(out, "-hostname="+o.Hostname)
	}
	if o.DropCaps {
		out = append(out, "-drop", "-caps="+strings.Join(o.Caps, ","))
	}
	return append(append(out, "--"), argv...)
}

// Main parses what Argv wrote (without the program and Subcommand) and
// becomes the command. It returns only with an error.
func Main(args []string) error {
	o, argv, err := parse(args)
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	if o.Netns != "" {
		if err := Enter(o.Netns); err != nil {
			return err
		}
	}
	if o.Hostname != "" {
		if err := unix.Unshare(unix.CLONE_NEWUTS); err != nil {
			return fmt.Errorf("new UTS namespace: %w", err)
		}
		if err := unix.Sethostname([]byte(o.Hostname)); err != nil {
			return fmt.Errorf("set host name %s: %w", o.Hostname, err)
		}
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return fmt.Errorf("run %s: %w", argv[0], err)
	}
	if o.DropCaps {
		if err := keepOnly(o.Caps); err != nil {
			return err
		}
	}
	if err := unix.Exec(path, argv, os.Environ()); err != nil {
		return fmt.Errorf("run %s: %w", path, err)
	}
	return nil
}

func parse(args []string) (o Options, argv []string, err error) {
	fs := flag.NewFlagSet(Subcommand, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&o.Netns, "net", "", "")
	fs.StringVar(&o.Hostname, "hostname", "", "")
	fs.BoolVar(&o.DropCaps, "drop", false, "")
	caps := fs.String("caps", "", "")
	if err := fs.Parse(args); err != nil {
		return o, nil, fmt.Errorf("parse %s arguments: %w", Subcommand, err)
	}
	if *caps != "" {
		o.Caps = strings.Split(*caps, ",")
	}
	if fs.NArg() == 0 {
		return o, nil, errors.New("no command to run")
	}
	return o, fs.Args(), nil
}

// Enter moves the calling thread into the named network namespace. The
// caller has locked its goroutine to the thread.
func Enter(name string) error {
	f, err := os.Open(Dir + name)
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", name, err)
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", name, err)
	}
	return nil
}

// Do calls f on a thread in the named network namespace and waits for it.
// Sockets that f opens stay in that namespace, and /proc/sys/net is its own.
func Do(name string, f func() error) error {
	done := make(chan error)
	go func() {
		// The thread is never unlocked: it ends with the goroutine and
		// takes the foreign namespace with it.
		runtime.LockOSThread()
		if err := Enter(name); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

func keepOnly(names []string) error {
	var keep uint64
	for _, n := range names {
		c, ok := Capability(n)
		if !ok {
			return fmt.Errorf("unknown capability %q", n)
		}
		keep |= 1 << c
	}
	for c := 0; c <= lastCap(); c++ {
		if keep&(1<<c) != 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil {
			return fmt.Errorf("drop capability %d from the bounding set: %w", c, err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	lo, hi := uint32(keep), uint32(keep>>32)
	data := [2]unix.CapUserData{{Effective: lo, Permitted: lo}, {Effective: hi, Permitted: hi}}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	return nil
}

func lastCap() int {
	b, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			return n
		}
	}
	return unix.CAP_LAST_CAP
}

// Capability returns the number of a capability of linux/capability.h that
// the lab's users have asked for so far, by its name with or without "cap_"
// in any case.
func Capability(name string) (int, bool) {
	n := strings.TrimPrefix(strings.ToLower(name), "cap_")
	c, ok := map[string]int{
		"chown": unix.CAP_CHOWN, "dac_override": unix.CAP_DAC_OVERRIDE,
		"dac_read_search": unix.CAP_DAC_READ_SEARCH, "kill": unix.CAP_KILL,
		"net_bind_service": unix.CAP_NET_BIND_SERVICE, "net_admin": unix.CAP_NET_ADMIN,
		"net_raw": unix.CAP_NET_RAW, "sys_ptrace": unix.CAP_SYS_PTRACE,
		"sys_admin": unix.CAP_SYS_ADMIN, "bpf": unix.CAP_BPF, "perfmon": unix.CAP_PERFMON,
	}[n]
	return c, ok
}
