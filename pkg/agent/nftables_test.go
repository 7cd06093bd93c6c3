// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// fakeNFTables answers with one state of web's rules after another; the last
// stays.
type fakeNFTables struct {
	states []nftState
	reads  int
	asked  []string // chains of the last reading
}

type nftState struct {
	connections uint64
	generation  uint32
	err         error
}

func (f *fakeNFTables) Close() error { return nil }

func (f *fakeNFTables) Read(_ context.Context, sel kernel.Selector) (*kernel.NFTablesReading, error) {
	s := f.states[min(f.reads, len(f.states)-1)]
	f.reads++
	if s.err != nil {
		return nil, s.err
	}
	out := &kernel.NFTablesReading{Ruleset: nftables.Ruleset{
		Generation: s.generation, Tables: []nftables.TableContent{webTable(s.connections)},
	}}
	t := &out.Tables[0]
	var chains []nftables.Chain
	for _, c := range t.Chains {
		chains = append(chains, c.Chain)
	}
	f.asked = nil
	for _, c := range sel(t.Table, chains) {
		f.asked = append(f.asked, c.Name)
	}
	for i := range t.Chains {
		c := &t.Chains[i]
		if c.Read = slices.Contains(f.asked, c.Name); !c.Read {
			c.Rules = nil
		}
	}
	return out, nil
}

// webTable is nat with web and its first endpoint.
func webTable(connections uint64) nftables.TableContent {
	t := nftables.TableContent{Table: nftables.Table{Family: netfilter.IPv4, Name: "nat", Handle: 1}}
	chain := func(name string, base *nftables.Base, rules ...nftables.Rule) {
		t.Chains = append(t.Chains, nftables.ChainContent{
			Chain: nftables.Chain{Family: netfilter.IPv4, Table: "nat", Name: name, Base: base}, Rules: rules,
		})
	}
	handle := uint64(0)
	jump := func(to, comment string, packets uint64) nftables.Rule {
		handle++
		r := nftables.Rule{Family: netfilter.IPv4, Table: "nat", Handle: handle}
		if comment != "" {
			text := make([]byte, 256)
			copy(text, comment)
			r.Exprs = append(r.Exprs, nftables.CompatMatch{Name: "comment", Data: text})
		}
		r.Exprs = append(r.Exprs, nftables.Counter{Packets: packets},
			nftables.Immediate{Verdict: &nftables.Verdict{Code: nftables.Jump, Chain: to}})
		return r
	}
	endpoint := ipv4().endpoints[0]
	svc, sep := kubeproxy.ServiceChain(webPort), kubeproxy.EndpointChain(webPort, endpoint)
	chain("OUTPUT", &nftables.Base{Hook: netfilter.HookOutput}, jump("KUBE-SERVICES", "", connections))
	chain("KUBE-SERVICES", nil, jump(svc, "", 0))
	chain(svc, nil, jump(sep, webPort.String()+" -> "+endpoint.String(), connections))
	chain(sep, nil)
	return t
}

// nftSampler reads nf_tables from f, and finds no tables in legacy.
func nftSampler(f *fakeNFTables, l *logs) *sampler {
	s := fakeSampler(&fakeBackend{answers: []answer{{set: emptyRules()}}}, nil, l)
	s.nft.open = func() (nftablesReader, error) { return f, nil }
	s.sources[0].backend = s.nft
	return s
}

// TestDamagedReadingsCountNothing has a rule that cannot be decoded in one
// reading: it is not a rule that was away and came back with all its packets.
func TestDamagedReadingsCountNothing(t *testing.T) {
	damaged := nftState{err: &kernel.DamagedError{
		Skipped: map[string]uint64{"rule": 1},
		Err:     errors.New("read rules of chain KUBE-SVC-X of table nat (IPv4): truncated"),
	}}
	whole := nftState{connections: 1000, generation: 7}
	l := &logs{}
	s := nftSampler(&fakeNFTables{states: []nftState{whole, whole, damaged, damaged, whole}}, l)
	s.pass(t.Context())
	for range 2 {
		s.pass(t.Context())
		if c := s.latest.Load().Self.Collectors[0]; c.Success || c.Err != "read rules of chain KUBE-SVC-X of table nat (IPv4): truncated" {
			t.Errorf("collector %+v, want the damage", c)
		}
	}
	if got := l.count("of chain KUBE-SVC-X of table nat"); got != 1 {
		t.Errorf("logged %d times, want once:\n%s", got, l.b.String())
	}
	if got := s.latest.Load().Self.Undecoded; len(got) != 1 || got["message/rule"] != 1 {
		t.Errorf("undecoded %v, want one rule, once", got)
	}
	s.pass(t.Context())
	if got, _ := totals(s); got != 0 || !s.latest.Load().Self.Collectors[0].Success {
		t.Errorf("%d connections, want 0: nothing has happened", got)
	}
}

// changes is what the sampler's newest snapshot says of nf_tables' commits.
func changes(s *sampler) uint64 {
	for _, c := range s.latest.Load().Changes {
		if c.Backend == ruleset.NFT {
			return c.Total
		}
	}
	return 0
}

func TestEveryCommitIsAChange(t *testing.T) {
	s := nftSampler(&fakeNFTables{states: []nftState{
		{generation: 1<<32 - 2}, {generation: 1<<32 - 2}, {generation: 3}, // it wraps around
	}}, nil)
	s.pass(t.Context())
	s.pass(t.Context())
	if got := changes(s); got != 5 {
		t.Errorf("%d changes, want 5 commits", got)
	}
}

func TestAbsenceAfterRulesIsAFailure(t *testing.T) {
	whole := nftState{connections: 1000, generation: 7}
	absent := nftState{err: fmt.Errorf("read nf_tables rules: %w", kernel.ErrAbsent)}
	s := nftSampler(&fakeNFTables{states: []nftState{whole, whole, absent, {connections: 1003, generation: 8}}}, nil)
	s.pass(t.Context())
	s.pass(t.Context())
	got := s.latest.Load()
	if got.Self.Collectors[0].Success || len(got.Services) != 1 || got.Node.ProxyMode != "iptables" {
		t.Errorf("collector %+v, node %+v, %d Services: what was read last is gone", got.Self.Collectors[0], got.Node, len(got.Services))
	}
	s.pass(t.Context())
	if c, _ := totals(s); c != 3 || changes(s) != 1 {
		t.Errorf("%d connections and %d changes, want 3 and 1", c, changes(s))
	}
}

func TestNFTablesThatComesLater(t *testing.T) {
	absent := nftState{err: fmt.Errorf("open nf_tables: %w", kernel.ErrAbsent)}
	s := nftSampler(&fakeNFTables{states: []nftState{absent, absent, {connections: 4, generation: 9}}}, nil)
	s.pass(t.Context())
	if c := s.latest.Load().Self.Collectors[0]; !c.Success {
		t.Errorf("absence is a failure: %+v", c)
	}
	s.pass(t.Context())
	if c, _ := totals(s); c != 4 || changes(s) != 0 {
		t.Errorf("%d connections and %d changes, want 4 and 0", c, changes(s))
	}
}

// TestWhichChainsAreRead: an endpoint's chain tells its address once.
func TestWhichChainsAreRead(t *testing.T) {
	f := &fakeNFTables{states: []nftState{{generation: 7}}}
	s := nftSampler(f, nil)
	svc, sep := kubeproxy.ServiceChain(webPort), kubeproxy.EndpointChain(webPort, ipv4().endpoints[0])
	s.read(t.Context(), s.sources[0])
	if !slices.Contains(f.asked, sep) {
		t.Errorf("first reading asks for %v, want %s too", f.asked, sep)
	}
	s.apply()
	s.read(t.Context(), s.sources[0])
	if slices.Contains(f.asked, sep) || !slices.Contains(f.asked, svc) {
		t.Errorf("second reading asks for %v, want all but %s", f.asked, sep)
	}
	s.apply()
	s.pass(t.Context())
	if slices.Contains(f.asked, sep) {
		t.Errorf("a later reading asks for %v, want all but %s", f.asked, sep)
	}
}
