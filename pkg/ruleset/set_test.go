// SPDX-License-Identifier: Apache-2.0

package ruleset_test

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/internal/kernelrules"
	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// set has elements as the kernel sends them.
func set(head nftables.Set, elements ...nftables.Element) *ruleset.Set {
	s := ruleset.NewSet(&head)
	s.Add(&nftables.Elements{Elements: elements})
	s.Done()
	return s
}

func ip(last byte) []byte { return []byte{10, 0, 0, last} }

// TestRangesOfSets: the kernel has the first key of a range, and the first one after it.
func TestRangesOfSets(t *testing.T) {
	ends := func(key []byte) nftables.Element {
		return nftables.Element{Key: key, Flags: nftables.ElementIntervalEnd}
	}
	begins := func(key []byte) nftables.Element { return nftables.Element{Key: key} }
	tests := []struct {
		name     string
		elements []nftables.Element
		want     []string
	}{
		{"one address", []nftables.Element{begins(ip(1)), ends(ip(2))}, []string{"10.0.0.1-10.0.0.1"}},
		{"in the kernel's order", []nftables.Element{ends(ip(9)), begins(ip(8)), ends(ip(2)), begins(ip(1)), ends([]byte{0, 0, 0, 0})}, []string{"10.0.0.1-10.0.0.1", "10.0.0.8-10.0.0.8"}},
		{"next to each other", []nftables.Element{begins(ip(1)), ends(ip(4)), begins(ip(4)), ends(ip(8))}, []string{"10.0.0.1-10.0.0.3", "10.0.0.4-10.0.0.7"}},
		{"to the last address", []nftables.Element{begins([]byte{224, 0, 0, 0})}, []string{"224.0.0.0-255.255.255.255"}},
		{"over a byte", []nftables.Element{begins([]byte{10, 0, 0, 0}), ends([]byte{10, 1, 0, 0})}, []string{"10.0.0.0-10.0.255.255"}},
		{"nothing but an end", []nftables.Element{ends(ip(1))}, nil},
		{"none", nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := set(nftables.Set{KeyType: uint32(nftables.TypeIPv4), KeyLen: 4, Flags: nftables.SetInterval | nftables.SetAnonymous | nftables.SetConstant}, tt.elements...)
			var got []string
			for i := range s.Elements {
				from, ok := s.Key(&s.Elements[i])
				to, ok2 := s.End(&s.Elements[i])
				if !ok || !ok2 {
					t.Errorf("element %+v is not read", s.Elements[i])
				}
				got = append(got, from.Addr.String()+"-"+to.Addr.String())
			}
			if d := gocmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if !s.Constant || s.Unread {
				t.Errorf("constant %v, unread %v", s.Constant, s.Unread)
			}
		})
	}
}

// TestKeysThatAreNotAsTheirTypesSay are told so.
func TestKeysThatAreNotAsTheirTypesSay(t *testing.T) {
	concat := uint32(nftables.TypeIPv4)<<12 | uint32(nftables.TypeInetProto)<<6 | uint32(nftables.TypeInetService)
	key := []byte{10, 0, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0}
	for n := range len(key) + 5 {
		long := append(slices.Clone(key), 0, 0, 0, 0)[:n]
		s := set(nftables.Set{KeyType: concat}, nftables.Element{Key: long})
		got, ok := s.Key(&s.Elements[0])
		if want := n == len(key); ok != want {
			t.Errorf("%d bytes: %v, %+v", n, ok, got)
		}
	}
	for _, typ := range []uint32{41, 0, 41<<6 | uint32(nftables.TypeInetService)} {
		s := set(nftables.Set{KeyType: typ}, nftables.Element{Key: key[:8]})
		if got, ok := s.Key(&s.Elements[0]); ok {
			t.Errorf("type %d: %+v", typ, got)
		}
	}
	s := set(nftables.Set{KeyType: concat, DataType: nftables.VerdictData, Flags: nftables.SetMap}, nftables.Element{
		Key: key, Verdict: &nftables.Verdict{Code: nftables.Goto, Chain: "service-x"}, Comment: "said so",
	})
	e := &s.Elements[0]
	got, ok := s.Key(e)
	if want := (ruleset.Tuple{Addr: netip.MustParseAddr("10.0.0.1"), Protocol: 6, Port: 80}); !ok || got != want {
		t.Errorf("%v, %+v, want %+v", ok, got, want)
	}
	if e.Verdict != ruleset.Goto || e.Chain != "service-x" || e.Comment != "said so" || !s.Verdicts || s.Values != nil {
		t.Errorf("%+v of %+v", e, s)
	}
	if !s.HasKeys(ruleset.AddressField, ruleset.ProtocolField, ruleset.PortField) || s.HasKeys(ruleset.AddressField) {
		t.Errorf("keys %v", s.Keys)
	}
}

// TestSetsReadFromTheKernel has kube-proxy's of the nftables mode, in both families.
func TestSetsReadFromTheKernel(t *testing.T) {
	text, err := os.ReadFile("../netfilter/nftables/testdata/scenes/kube-proxy-nftables.nft")
	if err != nil {
		t.Fatal(err)
	}
	kerneltest.Run(t, func(t *testing.T) {
		kerneltest.Exec(t, string(text), "nft", "-f", "-")
		for f, want := range map[netfilter.Family]map[string][]string{
			netfilter.IPv4: {
				"__map0":               {"0 10.180.0.1:80", "1 10.180.0.2:80", "2 10.180.0.3:80"},
				"service-nodeports":    {"6 30080 goto external-ULMVA6XW-ns1/svc1/tcp/p80"},
				"no-endpoint-services": {"10.96.0.70 6 80 goto reject-chain", "10.96.0.71 6 80 drop"},
				"nodeport-ips":         {"192.0.2.1"},
			},
			netfilter.IPv6: {
				"__map0":      {"0 [fd00:10:180::1]:80", "1 [fd00:10:180::2]:80"},
				"service-ips": {"fd00:10:96::65 6 80 goto service-ULMVA6XW-ns1/svc1/tcp/p80"},
			},
		} {
			table := kernelrules.Mirrored(t, f).Table("kube-proxy")
			for name, elements := range want {
				if d := gocmp.Diff(elements, inWords(table.Sets[name])); d != "" {
					t.Errorf("%v %s (-want +got):\n%s", f, name, d)
				}
			}
			service := table.Chain("service-ULMVA6XW-ns1/svc1/tcp/p80")
			a := &service.Rules[0].Action
			if a.Kind != ruleset.DNAT || a.Details().Name != "__map0" || int(a.Value) != len(table.Sets["__map0"].Elements) {
				t.Errorf("%v: %s", f, a)
			}
		}
		table := kernelrules.Mirrored(t, netfilter.IPv4).Table("kube-proxy")
		affinity := table.Sets["affinity-5FJ2CRIF-default/sticky/tcp/__10.180.0.6/8080"]
		if affinity.Timeout != 3*time.Hour || !affinity.Dynamic || affinity.Constant {
			t.Errorf("%+v", affinity)
		}
		if d := gocmp.Diff([]string{"reject-chain"}, table.Maps["no-endpoint-services"]); d != "" {
			t.Errorf("maps (-want +got):\n%s", d)
		}
		for c, hooks := range table.Reach() {
			if want := map[string]string{"reject-chain": "input", "service-ULMVA6XW-ns1/svc1/tcp/p80": "prerouting+output"}[c.Name]; want != "" && hooks.String() != want {
				t.Errorf("%s is reached by %s, want %s", c.Name, hooks, want)
			}
		}
	})
}

// inWords are a set's elements.
func inWords(s *ruleset.Set) (out []string) {
	if s == nil {
		return nil
	}
	for i := range s.Elements {
		e := &s.Elements[i]
		key, ok := s.Key(e)
		if !ok {
			out = append(out, "?")
			continue
		}
		text := ""
		for i, f := range s.Keys {
			if i > 0 {
				text += " "
			}
			switch f {
			case ruleset.AddressField:
				text += key.Addr.String()
			case ruleset.ProtocolField:
				text += fmt.Sprint(key.Protocol)
			case ruleset.PortField:
				text += fmt.Sprint(key.Port)
			case ruleset.NumberField:
				text += fmt.Sprint(key.Number)
			}
		}
		switch {
		case e.Chain != "":
			text += " goto " + e.Chain
		case e.Verdict == ruleset.Drop:
			text += " drop"
		case e.Value != "":
			v, _ := s.Value(e)
			text += " " + netip.AddrPortFrom(v.Addr, v.Port).String()
		}
		out = append(out, text)
	}
	return out
}
