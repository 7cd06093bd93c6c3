// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"testing"

	"github.com/svcscope/svcscope/pkg/ledger"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

func TestProxyMode(t *testing.T) {
	iptables := NewRules(parse(t, ruleset.NFT, save(0, 0, 0, 0)))
	bare := NewRules(parse(t, ruleset.NFT, "*nat\n:OUTPUT ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n[0:0] -A OUTPUT -j KUBE-SERVICES\nCOMMIT\n"))
	empty := NewRules(&ruleset.Ruleset{Backend: ruleset.NFT, Family: netfilter.IPv4})
	native := NewRules(&ruleset.Ruleset{
		Backend: ruleset.NFT, Family: netfilter.IPv4, Tables: []*ruleset.Table{ruleset.NewTable("kube-proxy", 1, nil)},
	})
	tests := []struct {
		name string
		in   Inputs
		want string
	}{
		{"nothing was read", Inputs{Unread: bothFamilies()}, "unknown"},
		{"what was read is empty", Inputs{Unread: bothFamilies(), Rules: []Rules{empty}}, "unknown"},
		{"KUBE-SERVICES in one family, the other was not read", Inputs{Unread: bothFamilies()[1:], Rules: []Rules{iptables}}, "iptables"},
		{"no rules", Inputs{Rules: []Rules{empty}}, "none"},
		{"KUBE-SERVICES", Inputs{Rules: []Rules{empty, iptables}}, "iptables"},
		{"another's virtual servers", Inputs{Rules: []Rules{iptables}, IPVS: true}, "iptables"},
		{"virtual servers beside a KUBE-SERVICES without Services' chains", Inputs{Rules: []Rules{bare}, IPVS: true}, "ipvs"},
		{"virtual servers, and nothing was read", Inputs{Unread: bothFamilies(), IPVS: true}, "unknown"},
		{"virtual servers beside a table of the nftables mode", Inputs{Rules: []Rules{native}, IPVS: true}, "nftables"},
		{"a table of the nftables mode", Inputs{Rules: []Rules{native}}, "nftables"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.in.Names, tt.in.Ledger = NewNames(nil), ledger.New(1)
			s := Build(tt.in, at)
			if s.Node.ProxyMode != tt.want {
				t.Errorf("mode %s, want %s", s.Node.ProxyMode, tt.want)
			}
			if s.Counting[0].Method != "none" {
				t.Errorf("counting by %s before any baseline", s.Counting[0].Method)
			}
		})
	}
}

func bothFamilies() []Family { return []Family{netfilter.IPv4, netfilter.IPv6} }

// TestUnreadRulesAreNotCountedAsZero has a catalog of IPv4 Services.
func TestUnreadRulesAreNotCountedAsZero(t *testing.T) {
	l := ledger.New(10)
	names := NewNames(catalog())
	l.Know(KnownPorts(nil, names), at)
	for range 2 {
		l.Apply(ledger.Reading{Source: LedgerSource(ruleset.Legacy, netfilter.IPv4)}, at)
	}
	iptables := NewRules(parse(t, ruleset.NFT, save(0, 0, 0, 0)))
	tests := []struct {
		name   string
		unread []Family
		rules  []Rules
		want   bool // uncounted
	}{
		{"no family is known", bothFamilies(), nil, true},
		{"its family is not known, and none has rules", bothFamilies()[:1], nil, true},
		{"its family is not known", bothFamilies()[:1], []Rules{iptables}, true},
		{"the other family is not known", bothFamilies()[1:], []Rules{iptables}, false},
		{"all is known", nil, nil, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := Build(Inputs{Names: names, Ledger: l, Rules: tt.rules, Unread: tt.unread}, at)
			for _, p := range s.Services {
				if !p.Exposed || p.Uncounted != tt.want || (p.KernelCount == -1) != tt.want {
					t.Errorf("%v: exposed %v uncounted %v, %d endpoints in the kernel", p.Port, p.Exposed, p.Uncounted, p.KernelCount)
				}
			}
		})
	}
}

func TestOtherModesAreNotCountedAsZero(t *testing.T) {
	l := ledger.New(10)
	names := NewNames(catalog())
	l.Know(KnownPorts(nil, names), at)
	for range 2 {
		l.Apply(ledger.Reading{Source: LedgerSource(ruleset.NFT, netfilter.IPv4)}, at)
	}
	for _, ipvs := range []bool{false, true} {
		s := Build(Inputs{Names: names, Ledger: l, IPVS: ipvs}, at)
		for _, p := range s.Services {
			if !p.Exposed || p.Uncounted != ipvs {
				t.Errorf("mode %s: %v exposed %v uncounted %v", s.Node.ProxyMode, p.Port, p.Exposed, p.Uncounted)
			}
		}
		for _, item := range NewServicesReport(s).Items {
			if (item.Connections == nil) != ipvs {
				t.Errorf("mode %s: report says %+v", s.Node.ProxyMode, item.Connections)
			}
		}
	}
}
