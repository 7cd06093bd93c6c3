// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"fmt"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// Stat names one statistic, enum ctattr_stats_cpu.
type Stat uint8

// The statistics that kernels since Linux 4.9 send. The others of the enum
// (searched, new, ignore, delete, delete_list) are not sent any more.
const (
	Found         Stat = 2  // CTA_STATS_FOUND: NAT found a tuple taken
	Invalid       Stat = 4  // CTA_STATS_INVALID
	Insert        Stat = 8  // CTA_STATS_INSERT: by ctnetlink only
	InsertFailed  Stat = 9  // CTA_STATS_INSERT_FAILED
	Drop          Stat = 10 // CTA_STATS_DROP
	EarlyDrop     Stat = 11 // CTA_STATS_EARLY_DROP
	Error         Stat = 12 // CTA_STATS_ERROR
	SearchRestart Stat = 13 // CTA_STATS_SEARCH_RESTART
	ClashResolve  Stat = 14 // CTA_STATS_CLASH_RESOLVE, Linux 5.10
	ChainTooLong  Stat = 15 // CTA_STATS_CHAIN_TOOLONG, Linux 5.15
	NumStats           = 16 // one more than the highest
)

// CPUStats are the statistics of one CPU, an answer to
// IPCTNL_MSG_CT_GET_STATS_CPU. They count since the namespace was made and
// wrap at 2^32.
type CPUStats struct {
	CPU    uint16
	values [NumStats]uint32
	known  uint16 // bit n: the kernel sent statistic n
}

// Get returns a statistic; false when the kernel did not send it.
func (c *CPUStats) Get(s Stat) (uint32, bool) {
	if s >= NumStats || c.known&(1<<s) == 0 {
		return 0, false
	}
	return c.values[s], true
}

// DecodeCPUStats decodes the payload of one message of a dump of
// IPCTNL_MSG_CT_GET_STATS_CPU. The CPU is in the header's res_id.
func DecodeCPUStats(b []byte) (CPUStats, error) {
	h, attrs, err := netfilter.DecodeGenMsg(b)
	if err != nil {
		return CPUStats{}, fmt.Errorf("conntrack statistics: %w", err)
	}
	c := CPUStats{CPU: h.ResID}
	a := nlattr.Attrs(attrs)
	for a.Next() {
		if t := a.Type(); t > 0 && t < NumStats {
			c.values[t] = a.Uint32("CTA_STATS_*")
			c.known |= 1 << t
		}
	}
	if err := a.Err(); err != nil {
		return CPUStats{}, fmt.Errorf("conntrack statistics of CPU %d: %w", c.CPU, err)
	}
	return c, nil
}

// GlobalStats answer IPCTNL_MSG_CT_GET_STATS.
type GlobalStats struct {
	// Entries is the number of entries in this network namespace.
	Entries uint32
	// MaxEntries is how many one namespace may hold; 0 where the kernel
	// does not say.
	MaxEntries uint32
}

// DecodeGlobalStats decodes the payload of the answer to
// IPCTNL_MSG_CT_GET_STATS.
func DecodeGlobalStats(b []byte) (GlobalStats, error) {
	_, attrs, err := netfilter.DecodeGenMsg(b)
	if err != nil {
		return GlobalStats{}, fmt.Errorf("conntrack entries: %w", err)
	}
	var g GlobalStats
	a := nlattr.Attrs(attrs)
	for a.Next() {
		switch a.Type() {
		case 1:
			g.Entries = a.Uint32("CTA_STATS_GLOBAL_ENTRIES")
		case 2:
			g.MaxEntries = a.Uint32("CTA_STATS_GLOBAL_MAX_ENTRIES")
		}
	}
	a.Require(1, "CTA_STATS_GLOBAL_ENTRIES")
	if err := a.Err(); err != nil {
		return GlobalStats{}, fmt.Errorf("conntrack entries: %w", err)
	}
	return g, nil
}
