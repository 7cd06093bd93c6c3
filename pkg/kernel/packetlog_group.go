// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// LogGroup is a group of nfnetlink_log that a process has bound. There is one
// reader a group and network namespace.
type LogGroup struct {
	Group  uint16
	PortID uint32 // the holder's netlink port, mostly its process ID
}

// LogGroupHeldError says that a group is somebody else's.
type LogGroupHeldError struct {
	LogGroup
	Err error // the errno of the bind; nil where it was seen before
}

// Error names the group and its holder.
func (e *LogGroupHeldError) Error() string {
	return fmt.Sprintf("NFLOG group %d is held by netlink port %d", e.Group, e.PortID)
}

// Unwrap makes the errno reachable by errors.Is.
func (e *LogGroupHeldError) Unwrap() error { return e.Err }

// LogGroups returns the groups that are bound in the calling thread's network
// namespace, in order, and the calling process's own among them:
// /proc/thread-self/net/netfilter/nfnetlink_log (seq_show in
// net/netfilter/nfnetlink_log.c; mode 0440). It returns an error that wraps
// ErrAbsent where the module is not loaded, without which no rule logs to a group.
func LogGroups() ([]LogGroup, error) {
	return readHolders("read bound groups of NFLOG", "nfnetlink_log")
}

// PacketQueues returns the queues of nfnetlink_queue (NFQUEUE) that a process of the
// calling thread's network namespace reads, in order:
// /proc/thread-self/net/netfilter/nfnetlink_queue (seq_show in
// net/netfilter/nfnetlink_queue.c; mode 0440). None where the module is not loaded.
func PacketQueues() ([]uint16, error) {
	all, err := readHolders("read queues of NFQUEUE", "nfnetlink_queue")
	if errors.Is(err, ErrAbsent) {
		err = nil
	}
	var queues []uint16
	for _, q := range all {
		queues = append(queues, q.Group)
	}
	return queues, err
}

// readHolders reads who holds what, from a file of nfnetlink's.
func readHolders(op, file string) ([]LogGroup, error) {
	f, err := os.Open("/proc/thread-self/net/netfilter/" + file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s: %w", op, ErrAbsent)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	defer f.Close()
	groups, err := parseLogGroups(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	return groups, nil
}

// parseLogGroups reads lines of which the first two numbers are a group, or a queue, and
// its holder's port.
func parseLogGroups(r io.Reader) ([]LogGroup, error) {
	var all []LogGroup
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var g LogGroup
		if _, err := fmt.Sscan(lines.Text(), &g.Group, &g.PortID); err != nil {
			return nil, fmt.Errorf("line %q: %w", lines.Text(), err)
		}
		all = append(all, g)
	}
	return all, lines.Err()
}
