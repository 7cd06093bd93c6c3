// SPDX-License-Identifier: Apache-2.0

package kubeproxy_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// manyNative is a table with n Services of three endpoints.
func manyNative(n int) *ruleset.Ruleset {
	var elements []nftables.Element
	var chains []*ruleset.Chain
	sets := make(map[string]*ruleset.Set, n)
	for i := range n {
		p := service.PortName{Name: service.Name{Namespace: "ns", Name: fmt.Sprintf("svc-%05d", i)}, Port: "http", Protocol: service.TCP}
		chain, name := kubeproxy.NativeChain(kubeproxy.KindService, p), fmt.Sprintf("__map%d", i)
		key := append([]byte{10, 96, byte(i >> 8), byte(i)}, 6, 0, 0, 0, 0, 80, 0, 0)
		elements = append(elements, nftables.Element{Key: key, Verdict: &nftables.Verdict{Code: nftables.Goto, Chain: chain}})
		chains = append(chains, &ruleset.Chain{Name: chain, Rules: []ruleset.Rule{
			{Action: ruleset.Action{Kind: ruleset.DNAT, Value: 3, More: &ruleset.Details{Name: name}}},
		}})
		s := ruleset.NewSet(&nftables.Set{
			Name: name, KeyType: uint32(nftables.TypeInteger), DataType: uint32(nftables.TypeIPv4)<<6 | uint32(nftables.TypeInetService),
			Flags: nftables.SetMap | nftables.SetAnonymous | nftables.SetConstant,
		})
		for e := range 3 {
			s.Add(&nftables.Elements{Elements: []nftables.Element{{
				Key: binary.NativeEndian.AppendUint32(nil, uint32(e)), Value: append(netip.AddrFrom4([4]byte{10, byte(e), byte(i >> 8), byte(i)}).AsSlice(), 0x1f, 0x90, 0, 0),
			}}})
		}
		s.Done()
		sets[name] = s
	}
	rs := native(serviceKeys, nftables.VerdictData, elements, chains...)
	for name, s := range sets {
		rs.Tables[0].Sets[name] = s
	}
	return rs
}

// BenchmarkUpdateNative is what a change of the nftables mode's table costs once it is read.
func BenchmarkUpdateNative(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) {
			rs := manyNative(n)
			v := kubeproxy.NewNativeView(rs)
			if len(v.Ports) != n || len(v.Dispatch) != n || len(v.Native.Undecoded) != 0 {
				b.Fatalf("%d ports, %d dispatched, not understood: %v", len(v.Ports), len(v.Dispatch), v.Native.Undecoded)
			}
			b.ReportAllocs()
			for b.Loop() {
				v.UpdateNative(rs)
			}
		})
	}
}
