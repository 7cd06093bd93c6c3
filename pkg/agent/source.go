// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"

	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/conntrack"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/netfilter/xtables"
)

// nftablesReader is kernel.NFTables.
type nftablesReader interface {
	Try(context.Context, func(context.Context, rulesAttempt) error) error
	// Size counts rules and set elements of all families, up to a limit.
	Size(ctx context.Context, limit int) (rules, elements int, err error)
	Stats() kernel.ReadStats
	Close() error
}

// rulesAttempt is *kernel.Attempt.
type rulesAttempt interface {
	Generation() uint32
	Tables(ctx context.Context, f netfilter.Family, visit func(nftables.Table)) error
	Heads(context.Context, []netfilter.Family, []nftables.TableContent) ([]nftables.TableContent, error)
	Rules(context.Context, *nftables.Chain, func([]byte) error) error
	Sets(ctx context.Context, f netfilter.Family, table string, visit func(*nftables.Set)) error
	Elements(context.Context, *nftables.Set, func(*nftables.Elements) bool) error
	VerdictMaps(ctx context.Context, f netfilter.Family, table string, limit int) (maps map[string][]string, whole bool, err error)
}

// kernelNFTables hands on attempts as what they are used for.
type kernelNFTables struct{ *kernel.NFTables }

func (k kernelNFTables) Try(ctx context.Context, read func(context.Context, rulesAttempt) error) error {
	return k.NFTables.Try(ctx, func(ctx context.Context, a *kernel.Attempt) error { return read(ctx, a) })
}

// legacyReader is kernel.Legacy.
type legacyReader interface {
	Tables(context.Context, netfilter.Family) ([]string, error)
	Read(ctx context.Context, f netfilter.Family, table string, use func(*xtables.Table) error) error
	Stats() kernel.ReadStats
	Close() error
}

// conntrackReader is kernel.Conntrack.
type conntrackReader interface {
	Count(context.Context) (uint64, error)
	Limit(context.Context) (uint64, error)
	Buckets(context.Context) (uint64, error)
	Stats(context.Context) (kernel.ConntrackStats, error)
	Flows(context.Context, kernel.FlowFilter, func(*conntrack.Flow)) (kernel.FlowDump, error)
	FlowStats() kernel.ReadStats
	Close() error
}

// nfacctReader is kernel.NFAcct.
type nfacctReader interface {
	Objects(context.Context) (map[string]netfilter.Counter, error)
	Close() error
}

// host is the node as the agent sees it: the way to each reader. An open that
// fails is tried again at the next sampling.
type host struct {
	nftables  func() (nftablesReader, error)
	notices   func() (noticeSource, error)
	legacy    func() (legacyReader, error)
	lock      func(path string) (lockWatch, error)
	conntrack func() (conntrackReader, error)
	nfacct    func() (nfacctReader, error)
	packetLog func(group uint16) (packetLog, error)
	logGroups func() ([]kernel.LogGroup, error)
	queues    func() ([]uint16, error)
	tap       func(context.Context, kernel.TapConfig) (tapTable, error)
	addresses func() (kernel.Addresses, error)
	ipvs      func() bool
	sysctls   func() map[string]string
	netAdmin  func() (bool, error) // whether this process has CAP_NET_ADMIN
	kernel    string               // uname -r
}

// thisHost is the node that the process runs on.
func thisHost() host {
	return host{
		nftables: func() (nftablesReader, error) {
			r, err := kernel.OpenNFTables()
			if err != nil {
				return nil, err
			}
			return kernelNFTables{r}, nil
		},
		notices: func() (noticeSource, error) {
			n, err := kernel.OpenNotices(kernel.NoticesConfig{})
			if err != nil {
				return nil, err
			}
			return n, nil
		},
		legacy: func() (legacyReader, error) {
			r, err := kernel.OpenLegacy(kernel.LegacyConfig{})
			if err != nil {
				return nil, err
			}
			return r, nil
		},
		lock: func(path string) (lockWatch, error) {
			w, err := kernel.WatchLock(path)
			if err != nil {
				return nil, err
			}
			return w, nil
		},
		conntrack: func() (conntrackReader, error) {
			r, err := kernel.OpenConntrack()
			if err != nil {
				return nil, err
			}
			return r, nil
		},
		nfacct: func() (nfacctReader, error) { return kernel.OpenNFAcct(), nil },
		packetLog: func(group uint16) (packetLog, error) {
			l, err := kernel.OpenPacketLog(group, kernel.PacketLogConfig{})
			if err != nil {
				return nil, err
			}
			return l, nil
		},
		logGroups: kernel.LogGroups,
		queues:    kernel.PacketQueues,
		tap: func(ctx context.Context, cfg kernel.TapConfig) (tapTable, error) {
			t, err := kernel.OpenTap(ctx, cfg)
			if err != nil {
				return nil, err
			}
			return t, nil
		},
		addresses: kernel.LocalAddresses,
		ipvs:      kernel.HasVirtualServers,
		sysctls:   kernel.ServiceSysctls,
		netAdmin:  kernel.HasNetAdmin,
		kernel:    kernel.Release(),
	}
}

// families are those that are read.
func families() []netfilter.Family { return []netfilter.Family{netfilter.IPv4, netfilter.IPv6} }

// tableFamilies are those whose tables of nf_tables are read. Packets of both families
// pass the tables of inet, in which kube-proxy has no rules: of these only what refuses
// packets is told, and what logs them.
func tableFamilies() []netfilter.Family { return append(families(), netfilter.FamilyINet) }
