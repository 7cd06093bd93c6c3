// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
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

func (f *fakeNFTables) Stats() kernel.ReadStats { return kernel.ReadStats{} }

func (f *fakeNFTables) Size(context.Context, int) (rules, elements int, err error) { return 0, 0, nil }

func (f *fakeNFTables) Try(ctx context.Context, read func(context.Context, rulesAttempt) error) error {
	s := f.states[min(f.reads, len(f.states)-1)]
	f.reads++
	f.asked = nil
	if s.err != nil {
		return s.err
	}
	return read(ctx, &fakeAttempt{f, s})
}

// fakeAttempt is one state of web's rules.
type fakeAttempt struct {
	*fakeNFTables
	state nftState
}

func (a *fakeAttempt) Generation() uint32 { return a.state.generation }

func (a *fakeAttempt) Tables(_ context.Context, f netfilter.Family, visit func(nftables.Table)) error {
	if f == netfilter.IPv4 {
		visit(nftables.Table{Family: f, Name: "nat", Handle: 1})
	}
	return nil
}

func (a *fakeAttempt) Sets(context.Context, netfilter.Family, string, func(*nftables.Set)) error {
	return nil
}

func (a *fakeAttempt) Elements(context.Context, *nftables.Set, func(*nftables.Elements) bool) error {
	return nil
}

func (a *fakeAttempt) VerdictMaps(context.Context, netfilter.Family, string, int) (map[string][]string, bool, error) {
	return nil, true, nil
}

func (a *fakeAttempt) Heads(context.Context, []netfilter.Family, []nftables.TableContent) ([]nftables.TableContent, error) {
	t := nftables.TableContent{Table: nftables.Table{Family: netfilter.IPv4, Name: "nat", Handle: 1}}
	for _, c := range webChains(0) {
		t.Chains = append(t.Chains, nftables.ChainContent{Chain: nftables.Chain{
			Family: netfilter.IPv4, Table: "nat", Name: c.name, Base: c.base, Use: uint32(len(c.rules)),
		}})
	}
	return []nftables.TableContent{t}, nil
}

func (a *fakeAttempt) Rules(_ context.Context, of *nftables.Chain, visit func([]byte) error) error {
	a.asked = append(a.asked, of.Name)
	for _, c := range webChains(a.state.connections) {
		for i, r := range c.rules {
			if c.name != of.Name || of.Family != netfilter.IPv4 {
				continue
			}
			if err := visit(r.message(c.name, uint64(i+1))); err != nil {
				return err
			}
		}
	}
	return nil
}

// fakeRule jumps to a chain, or sends to an endpoint.
type fakeRule struct {
	to, comment string
	packets     uint64
	dnat        netip.AddrPort // instead of a jump
}

// message is the rule as the kernel sends it, nested as NFTA_LIST_ELEM.
func (r fakeRule) message(chain string, handle uint64) []byte {
	expr := func(list []byte, name string, data []byte) []byte {
		e := nlattr.AppendString(nil, unix.NFTA_EXPR_NAME, name)
		return nlattr.AppendNested(list, unix.NFTA_LIST_ELEM, nlattr.AppendNested(e, unix.NFTA_EXPR_DATA, data))
	}
	u64 := func(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }
	var list []byte
	if r.comment != "" {
		text := make([]byte, 256)
		copy(text, r.comment)
		match := nlattr.AppendString(nil, unix.NFTA_MATCH_NAME, "comment")
		match = nlattr.AppendUint32(match, unix.NFTA_MATCH_REV, 0)
		list = expr(list, "match", nlattr.Append(match, unix.NFTA_MATCH_INFO, text))
	}
	counter := nlattr.Append(nil, unix.NFTA_COUNTER_BYTES, u64(60*r.packets))
	list = expr(list, "counter", nlattr.Append(counter, unix.NFTA_COUNTER_PACKETS, u64(r.packets)))
	load := func(register uint32, data []byte) {
		immediate := nlattr.AppendUint32(nil, unix.NFTA_IMMEDIATE_DREG, register)
		list = expr(list, "immediate", nlattr.AppendNested(immediate, unix.NFTA_IMMEDIATE_DATA, data))
	}
	if r.to != "" {
		verdict := nlattr.AppendUint32(nil, unix.NFTA_VERDICT_CODE, uint32(1<<32-3)) // NFT_JUMP
		verdict = nlattr.AppendString(verdict, unix.NFTA_VERDICT_CHAIN, r.to)
		load(unix.NFT_REG_VERDICT, nlattr.AppendNested(nil, unix.NFTA_DATA_VERDICT, verdict))
	} else {
		load(1, nlattr.Append(nil, unix.NFTA_DATA_VALUE, r.dnat.Addr().AsSlice()))
		load(2, nlattr.Append(nil, unix.NFTA_DATA_VALUE, binary.BigEndian.AppendUint16(nil, r.dnat.Port())))
		nat := nlattr.AppendUint32(nil, unix.NFTA_NAT_TYPE, unix.NFT_NAT_DNAT)
		nat = nlattr.AppendUint32(nat, unix.NFTA_NAT_FAMILY, uint32(netfilter.IPv4))
		nat = nlattr.AppendUint32(nat, unix.NFTA_NAT_REG_ADDR_MIN, 1)
		list = expr(list, "nat", nlattr.AppendUint32(nat, unix.NFTA_NAT_REG_PROTO_MIN, 2))
	}

	b := netfilter.AppendGenMsg(nil, netfilter.GenMsg{Family: netfilter.IPv4})
	b = nlattr.AppendString(b, unix.NFTA_RULE_TABLE, "nat")
	b = nlattr.AppendString(b, unix.NFTA_RULE_CHAIN, chain)
	b = nlattr.Append(b, unix.NFTA_RULE_HANDLE, u64(handle))
	return nlattr.AppendNested(b, unix.NFTA_RULE_EXPRESSIONS, list)
}

type fakeChain struct {
	name  string
	base  *nftables.Base
	rules []fakeRule
}

// webChains is nat with web and its first endpoint.
func webChains(connections uint64) []fakeChain {
	endpoint := ipv4().endpoints[0]
	svc, sep := kubeproxy.ServiceChain(webPort), kubeproxy.EndpointChain(webPort, endpoint)
	return []fakeChain{
		{"OUTPUT", &nftables.Base{Hook: netfilter.HookOutput}, []fakeRule{{to: "KUBE-SERVICES", packets: connections}}},
		{"KUBE-SERVICES", nil, []fakeRule{{to: svc, packets: connections}}},
		{svc, nil, []fakeRule{{to: sep, comment: webPort.String() + " -> " + endpoint.String(), packets: connections}}},
		{sep, nil, []fakeRule{{dnat: endpoint}}},
	}
}

// nftSampler reads nf_tables from f, and finds no tables in legacy.
func nftSampler(f *fakeNFTables, l *logs) *sampler {
	s := fakeSampler(&fakeBackend{answers: []answer{{set: emptyRules()}}}, nil, l)
	s.sources[0].backend = newNFTablesBackend(func() (nftablesReader, error) { return f, nil }, nil)
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

// TestWhichChainsAreRead: where the rules stand, the reading follows the
// packets, and it looks again at what moved; an endpoint's chain tells its
// address once.
func TestWhichChainsAreRead(t *testing.T) {
	svc, sep := kubeproxy.ServiceChain(webPort), kubeproxy.EndpointChain(webPort, ipv4().endpoints[0])
	readings := []struct {
		state nftState
		want  []string
	}{
		{nftState{generation: 7}, []string{"OUTPUT", "KUBE-SERVICES", sep, svc}},
		{nftState{generation: 7}, []string{"OUTPUT"}},
		{nftState{generation: 7, connections: 1}, []string{"OUTPUT", "KUBE-SERVICES", svc}},
		{nftState{generation: 7, connections: 1}, []string{"OUTPUT", "KUBE-SERVICES", svc}},
		{nftState{generation: 7, connections: 1}, []string{"OUTPUT"}},
		{nftState{generation: 8, connections: 1}, []string{"OUTPUT", "KUBE-SERVICES", svc}},
	}
	f := &fakeNFTables{}
	for _, r := range readings {
		f.states = append(f.states, r.state)
	}
	s := nftSampler(f, nil)
	for i, r := range readings {
		s.read(t.Context(), s.sources[0])
		s.apply(t.Context())
		if d := cmp.Diff(r.want, f.asked); d != "" {
			t.Errorf("chains of reading %d (-want +got):\n%s", i, d)
		}
	}
}
