// SPDX-License-Identifier: Apache-2.0

package kerneltest

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// DropCapabilities leaves the calling goroutine with only the capabilities in
// keep (unix.CAP_NET_ADMIN, ...) and UID 0, as a container with "drop: [ALL],
// add: [...]" has it: bounding, inheritable, permitted, effective and ambient
// sets, and no_new_privs. Nothing can give them back; programs that the
// goroutine executes have no more either.
//
// Capabilities belong to a thread. The goroutine stays locked to its thread,
// which ends with it: call this in the test or subtest that needs it, inside
// Run, and do the work in that same goroutine.
func DropCapabilities(tb testing.TB, keep ...int) {
	tb.Helper()
	if _, ok := os.LookupEnv(childEnv); !ok {
		tb.Fatal("DropCapabilities: only inside Run")
	}
	runtime.LockOSThread() // never unlocked
	kept := make(map[int]bool, len(keep))
	for _, c := range keep {
		kept[c] = true
	}
	for c := 0; c <= unix.CAP_LAST_CAP; c++ {
		if kept[c] {
			continue
		}
		// EINVAL: the kernel does not know so high a number.
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil && err != unix.EINVAL {
			tb.Fatalf("drop capability %d from the bounding set: %v", c, err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		tb.Fatalf("clear ambient capabilities: %v", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		tb.Fatalf("set no_new_privs: %v", err)
	}
	var data [2]unix.CapUserData
	for c := range kept {
		data[c/32].Effective |= 1 << (c % 32)
		data[c/32].Permitted |= 1 << (c % 32)
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		tb.Fatalf("capset: %v", err)
	}
}
