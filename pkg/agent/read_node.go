// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/svcscope/svcscope/pkg/capture"
	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/conntrack"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// ReadNode reads this node once and keeps all of it: the rules of both backends
// with those of endpoints' chains, the API, the connections that were sent on, the
// sysctls that decide on Services. Of cfg it takes the fields from Kube to NodeName,
// and Logger; the API is waited for as in ReadOnce. What cannot be read is left out
// and said in the Node; it is an error where no rules could be read at all.
func ReadNode(ctx context.Context, cfg Config) (*capture.Node, error) {
	if err := cfg.validateSampling(); err != nil {
		return nil, err
	}
	cfg.StartJitter, cfg.KubePods, cfg.KubePolicies, cfg.KubeEvents = 0, false, false, false
	cfg.MaxRules, cfg.LockFile, cfg.NFLOGGroup, cfg.Tap = 0, "", groupsNone, false // one look
	routeLogs(cfg.logger())
	k := newKube(cfg, openWatcher(cfg))
	if err := k.check(); err != nil {
		return nil, err
	}
	return readNode(ctx, newSampler(cfg, thisHost(), k))
}

// readNode closes s.
func readNode(ctx context.Context, s *sampler) (n *capture.Node, err error) {
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.awaitAPI(ctx); err != nil {
		return nil, err
	}
	defer s.kube.stop()
	s.nft.keep = true
	n = &capture.Node{
		Name: s.cfg.NodeName, Time: time.Now(), Kernel: s.host.kernel,
		Unread: make(map[ruleset.Backend]string), IPVS: s.host.ipvs(), Sysctls: s.host.sysctls(),
	}
	// Entries before rules: one that is there now and is younger than the rule by which it
	// was sent on, that rule has counted by the time that it is read.
	if n.Flows, err = s.nodeFlows(ctx); err != nil {
		n.Flows, n.FlowsError = nil, err.Error()
	}
	unread := s.nodeRules(ctx, n)
	// Of the API what it says now that the rules were read: what kube-proxy may know of.
	s.nodeAPI(n)
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("read rules of this node: %w", err)
	}
	if len(n.Rules) == 0 {
		return nil, fmt.Errorf("read rules of this node: %w", unread)
	}
	return n, ctx.Err()
}

// nodeRules reads both backends. A backend of which one family cannot be read has
// the rules of the other one and an error.
func (s *sampler) nodeRules(ctx context.Context, n *capture.Node) error {
	var errs []error
	var native [2]bool // by family: a table of kube-proxy's nftables mode
	for _, src := range s.sources {
		if _, err := src.backend.read(ctx); err != nil {
			n.Unread[backendOf(src)] = err.Error()
			errs = append(errs, err)
		}
		for _, f := range slices.Concat(src.families(), src.refusers()) {
			if !f.read {
				continue
			}
			set := withoutTap(f.set)
			// Tables that packets of both families pass are told of where there are any.
			if set.Family == netfilter.FamilyINet && len(set.Tables) == 0 {
				continue
			}
			n.Rules = append(n.Rules, capture.Rules{Set: set})
			if i := slices.Index(families(), f.set.Family); i >= 0 {
				native[i] = native[i] || f.set.Backend == ruleset.NFT && f.set.Table(kubeproxy.NativeTable) != nil
			}
		}
	}
	for i := range n.Rules {
		if at := slices.Index(families(), n.Rules[i].Set.Family); at >= 0 {
			n.Rules[i].NFTablesMode = native[at]
		}
	}
	slices.SortStableFunc(n.Rules, func(a, b capture.Rules) int { return rank(a.Set.Family) - rank(b.Set.Family) })
	return errors.Join(errs...)
}

// withoutTap leaves out the table of an agent, of which nothing is read.
func withoutTap(rs *ruleset.Ruleset) *ruleset.Ruleset {
	if rs.Backend != ruleset.NFT || rs.Table(kernel.TapTable) == nil {
		return rs
	}
	rest := *rs
	rest.Tables = slices.DeleteFunc(slices.Clone(rs.Tables), func(t *ruleset.Table) bool { return isTap(rs.Family, t.Name) })
	return &rest
}

func backendOf(src *ruleSource) ruleset.Backend { return src.families()[0].set.Backend }

// rank orders families as they are told.
func rank(f netfilter.Family) int { return slices.Index(tableFamilies(), f) }

// nodeAPI adds what the API wants.
func (s *sampler) nodeAPI(n *capture.Node) {
	state := s.kube.state()
	if !state.enabled {
		return
	}
	n.KubeError, n.NodeMissing = state.err, state.noNode
	if c := s.kube.catalog(); c != nil && c.Synced {
		n.Catalog = c
	} else {
		n.KubeError = cmp.Or(n.KubeError, fmt.Sprintf("no answer in %v", onceWait))
	}
}

// flowTries is how often the entries are read where a reading does not come to its
// end.
const flowTries = 3

// nodeFlows sums the entries whose destination was translated.
func (s *sampler) nodeFlows(ctx context.Context) (tallies []capture.FlowTally, err error) {
	r, err := s.flows.reader.get()
	if err != nil {
		return nil, err
	}
	for range flowTries {
		if tallies, err = tallyFlows(ctx, r); !errors.Is(err, kernel.ErrInterrupted) && !errors.Is(err, kernel.ErrOverrun) {
			break
		}
	}
	return tallies, err
}

// tallyKey is which entries are summed.
type tallyKey struct {
	protocol uint8
	to, from netip.AddrPort
}

// tallyFlows reads the entries once.
func tallyFlows(ctx context.Context, r conntrackReader) ([]capture.FlowTally, error) {
	sums := make(map[tallyKey]*capture.FlowTally)
	_, err := r.Flows(ctx, kernel.FlowFilter{DstNAT: true}, func(f *conntrack.Flow) {
		key := tallyKey{f.Protocol, f.Orig.Dst, f.Reply.Src}
		sum := sums[key]
		if sum == nil {
			sum = &capture.FlowTally{Protocol: key.protocol, To: key.to, From: key.from}
			sums[key] = sum
		}
		sum.Entries++
		switch {
		case f.Closing():
			sum.Closing++
		case !f.Status.Has(conntrack.SeenReply):
			sum.Unreplied++
		}
	})
	if err != nil {
		return nil, err
	}
	all := make([]capture.FlowTally, 0, len(sums))
	for _, sum := range sums {
		all = append(all, *sum)
	}
	slices.SortFunc(all, capture.FlowTally.Compare)
	return all, nil
}
