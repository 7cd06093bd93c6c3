// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/netfilter/conntrack"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// Conntrack reads the size, the statistics and the entries of the
// connection-tracking table of the network namespace it was opened in. Its methods may be called
// from several goroutines.
type Conntrack struct {
	modules *modules
	conn    conn // of statistics: a dump of all entries takes seconds
	flows   conn
	// interrupted counts the dumps of entries that did not come to their end.
	interrupted atomic.Uint64

	// mu is held through a reading of the statistics, so that two readings
	// are added in the order in which they were made, and guards what follows.
	mu   sync.Mutex
	cpus map[uint16]*widened
}

// widened is what one CPU has counted, beyond the kernel's 32 bits.
type widened struct {
	last  conntrack.CPUStats
	total [conntrack.NumStats]uint64
}

// OpenConntrack opens the reader of connection tracking. It opens no socket
// before Stats needs one, so it never fails for lack of a capability; it
// returns an error that wraps ErrAbsent where the kernel has no conntrack
// or its module is not loaded.
func OpenConntrack() (*Conntrack, error) { return openConntrack(running, dialNetfilter) }

func openConntrack(m *modules, dial func() (transport, error)) (*Conntrack, error) {
	c := &Conntrack{modules: m, conn: conn{dial: dial}, flows: conn{dial: dial, timeout: dumpTime}, cpus: map[uint16]*widened{}}
	if _, err := c.Count(context.Background()); err != nil {
		return nil, fmt.Errorf("open conntrack: %w", err)
	}
	return c, nil
}

// Close closes the sockets.
func (c *Conntrack) Close() error { return errors.Join(c.conn.close(), c.flows.close()) }

// Count returns the number of entries of the namespace, from
// nf_conntrack_count below /proc/sys/net/netfilter. It takes 45 µs (measured
// on Linux 6.18), needs no capability, and the kernel takes no lock for it.
func (c *Conntrack) Count(ctx context.Context) (uint64, error) {
	return c.sysctl(ctx, "nf_conntrack_count")
}

// Limit returns how many entries one namespace may have, nf_conntrack_max.
func (c *Conntrack) Limit(ctx context.Context) (uint64, error) {
	return c.sysctl(ctx, "nf_conntrack_max")
}

// Buckets returns the size of the hash table, which all namespaces share.
func (c *Conntrack) Buckets(ctx context.Context) (uint64, error) {
	return c.sysctl(ctx, "nf_conntrack_buckets")
}

// sysctl reads one number of the namespace of this process. Errors begin with
// the name of the file and wrap ErrAbsent where it does not exist.
func (c *Conntrack) sysctl(ctx context.Context, name string) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	b, err := readFile(filepath.Join(c.modules.root, "proc/sys/net/netfilter", name))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("read %s: %w: %w", name, ErrAbsent, err)
	}
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", name, err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", name, err)
	}
	return n, nil
}

// ConntrackStats are the statistics of a namespace, summed over the CPUs and
// widened to 64 bits. A nil pointer is one that the kernel does not send. They
// count since the namespace was made, modulo 2^32 a CPU at the first reading.
type ConntrackStats struct {
	Found         *uint64 // NAT looked for a free tuple and found it taken
	Invalid       *uint64 // packets that no entry could be made of
	Insert        *uint64 // entries that a program inserted
	InsertFailed  *uint64 // entries that could not be confirmed
	Drop          *uint64 // packets dropped: no entry to be had, a clash, or by a tracker
	EarlyDrop     *uint64 // entries evicted to make room
	Error         *uint64 // ICMP errors that could not be tracked
	SearchRestart *uint64 // look-ups begun anew because of a resize
	ClashResolve  *uint64 // packets that raced and were merged; Linux 5.10
	ChainTooLong  *uint64 // packets dropped for a chain too long; Linux 5.15
}

// Stats reads the statistics of every possible CPU in one dump. Read at least
// once in the time that any of them takes for 2^32 events. It returns a
// *CapabilityError without CAP_NET_ADMIN, and an error that wraps ErrAbsent
// where the kernel has no ctnetlink or its module is not loaded.
func (c *Conntrack) Stats(ctx context.Context) (ConntrackStats, error) {
	const op = "read conntrack statistics"
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.modules.loadable(ctnetlinkModule) {
		return ConntrackStats{}, fmt.Errorf("%s: %w: its module is not loaded", op, ErrAbsent)
	}
	ctx, cancel := c.conn.limit(ctx)
	defer cancel()
	var cpus []conntrack.CPUStats
	err := c.conn.exchange(ctx, request{typ: getStatsCPU, dump: true}, func(m *nlattr.Message) error {
		s, err := conntrack.DecodeCPUStats(m.Payload)
		cpus = append(cpus, s)
		return err
	})
	if errors.Is(err, unix.EINVAL) { // nfnetlink_rcv_msg: no such subsystem
		err = fmt.Errorf("%w: %w", ErrAbsent, err)
	}
	if err != nil {
		return ConntrackStats{}, meaning(op, err)
	}
	return c.widen(cpus), nil
}

// widen adds what each CPU counted since the reading before. The difference
// of 32-bit numbers is right across one wrap. c.mu is held.
func (c *Conntrack) widen(cpus []conntrack.CPUStats) ConntrackStats {
	for _, now := range cpus {
		w := c.cpus[now.CPU]
		if w == nil {
			w = &widened{}
			c.cpus[now.CPU] = w
		}
		for s := range conntrack.Stat(conntrack.NumStats) {
			if v, ok := now.Get(s); ok {
				before, _ := w.last.Get(s)
				w.total[s] += uint64(v - before)
			}
		}
		w.last = now
	}
	return ConntrackStats{
		Found: c.sum(conntrack.Found), Invalid: c.sum(conntrack.Invalid), Insert: c.sum(conntrack.Insert),
		InsertFailed: c.sum(conntrack.InsertFailed), Drop: c.sum(conntrack.Drop),
		EarlyDrop: c.sum(conntrack.EarlyDrop), Error: c.sum(conntrack.Error),
		SearchRestart: c.sum(conntrack.SearchRestart), ClashResolve: c.sum(conntrack.ClashResolve),
		ChainTooLong: c.sum(conntrack.ChainTooLong),
	}
}

// sum adds up one statistic; c.mu is held.
func (c *Conntrack) sum(s conntrack.Stat) *uint64 {
	var total *uint64
	for _, w := range c.cpus {
		if _, ok := w.last.Get(s); !ok {
			continue
		}
		if total == nil {
			total = new(uint64)
		}
		*total += w.total[s]
	}
	return total
}
