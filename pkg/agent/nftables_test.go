// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
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
