// SPDX-License-Identifier: Apache-2.0

package container

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// DefaultCaps returns the capabilities that container runtimes give where a
// pod's spec neither adds nor drops any.
func DefaultCaps() []string {
	return []string{
		"CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID",
		"SETFCAP", "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
	}
}

// capNames returns the names of all capabilities, by number.
func capNames() []string {
	return []string{
		"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID",
		"SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW",
		"IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT",
		"SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD",
		"LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG",
		"WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
	}
}

// Caps applies a pod's add and drop to the runtimes' default. "ALL" stands for
// all of them, and a prefix "CAP_" is taken off, as runtimes do.
func Caps(add, drop []string) ([]string, error) {
	all := capNames()
	names := func(in []string) ([]string, error) {
		var out []string
		for _, n := range in {
			n = strings.TrimPrefix(strings.ToUpper(n), "CAP_")
			if n != "ALL" && !slices.Contains(all, n) {
				return nil, fmt.Errorf("no capability is named %s", n)
			}
			out = append(out, n)
		}
		return out, nil
	}
	add, err := names(add)
	if err != nil {
		return nil, err
	}
	if drop, err = names(drop); err != nil {
		return nil, err
	}
	have := DefaultCaps()
	if slices.Contains(add, "ALL") {
		have = slices.Clone(all)
	}
	if slices.Contains(drop, "ALL") {
		have = nil
	}
	have = slices.DeleteFunc(have, func(n string) bool { return slices.Contains(drop, n) })
	for _, n := range add {
		if n != "ALL" && !slices.Contains(have, n) {
			have = append(have, n)
		}
	}
	return have, nil
}

// mask returns the set as bits.
func mask(names []string) (uint64, error) {
	var m uint64
	for _, n := range names {
		i := slices.Index(capNames(), n)
		if i < 0 {
			return 0, fmt.Errorf("no capability is named %s", n)
		}
		m |= 1 << i
	}
	return m, nil
}

// become gives the calling thread the process's user, capabilities,
// no_new_privs and seccomp filter. It is the last step before execve.
func (p *Process) become() error {
	keep, err := mask(p.Caps)
	if err != nil {
		return err
	}
	for c := range lastCap() + 1 {
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
	// Without no_new_privs only CAP_SYS_ADMIN may add a filter, which is
	// still there now.
	if p.Seccomp && !p.NoNewPrivs {
		if err := loadFilter(p.Caps); err != nil {
			return err
		}
	}
	if err := p.setUser(); err != nil {
		return err
	}
	// For another user than 0 execve clears these two, as it should.
	lo, hi := uint32(keep), uint32(keep>>32)
	data := [2]unix.CapUserData{{Effective: lo, Permitted: lo}, {Effective: hi, Permitted: hi}}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	if !p.NoNewPrivs {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	if p.Seccomp {
		return loadFilter(p.Caps)
	}
	return nil
}

func (p *Process) setUser() error {
	if int(p.UID) == os.Getuid() && int(p.GID) == os.Getgid() {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("keep capabilities: %w", err)
	}
	if err := unix.Setgroups(nil); err != nil {
		return fmt.Errorf("drop groups: %w", err)
	}
	gid, uid := int(p.GID), int(p.UID)
	if err := unix.Setresgid(gid, gid, gid); err != nil {
		return fmt.Errorf("become group %d: %w", gid, err)
	}
	if err := unix.Setresuid(uid, uid, uid); err != nil {
		return fmt.Errorf("become user %d: %w", uid, err)
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
