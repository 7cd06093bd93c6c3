// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// HasNetAdmin reports whether CAP_NET_ADMIN is among the calling thread's
// effective capabilities: the line CapEff of /proc/thread-self/status. True
// does not say that the kernel will accept it: what counts there is the user
// namespace that owns the network namespace.
func HasNetAdmin() (bool, error) {
	const op = "read effective capabilities"
	status, err := readFile("/proc/thread-self/status")
	if err != nil {
		return false, fmt.Errorf("%s: %w", op, err)
	}
	set, err := effective(string(status))
	if err != nil {
		return false, fmt.Errorf("%s: %w", op, err)
	}
	return set>>unix.CAP_NET_ADMIN&1 == 1, nil
}

// effective finds the set in the text of a status file.
func effective(status string) (uint64, error) {
	for line := range strings.Lines(status) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			return strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		}
	}
	return 0, errors.New("no line CapEff")
}
