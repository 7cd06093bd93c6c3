// SPDX-License-Identifier: Apache-2.0

package xtables

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/svcscope/svcscope/pkg/netfilter"
)

// synthetic builds a table of one rule in PREROUTING and n-1 user chains of
// one rule, each jumping to the next: entries copied from a captured table.
func synthetic(tb testing.TB, n int) (Info, []byte) {
	tb.Helper()
	var f fixture
	for _, f = range fixtures(tb) {
		if f.name == "kube-proxy/ipv4/nat" {
			break
		}
	}
	table, err := decode(f.family, f.info, f.blob)
	if err != nil {
		tb.Fatal(err)
	}
	l := table.layout
	var rule []byte
	for r := range table.Chain("PREROUTING").Rules() {
		rule = r.Bytes()
	}
	user := table.Chain("KUBE-SERVICES")
	end := f.blob[user.end : user.end+l.size+standardLen]
	head := f.blob[user.start-l.size-errorLen : user.start]
	policy := f.blob[f.info.Underflow[0]:][:len(end)]

	info := Info{Name: "nat", ValidHooks: 1, NumEntries: uint32(3*n + 1)}
	info.NumEntries = 2 + uint32(n-1)*3 + 1
	var blob []byte
	jumpTo := func(target int) {
		blob = append(blob, rule...)
		binary.NativeEndian.PutUint32(blob[len(blob)-8:], uint32(target))
	}
	unit := len(head) + len(rule) + len(end)
	start := func(i int) int { return len(rule) + len(policy) + i*unit + len(head) }
	jumpTo(start(0))
	info.Underflow[0] = uint32(len(blob))
	blob = append(blob, policy...)
	for i := range n - 1 {
		name := fmt.Sprintf("KUBE-SVC-%016d", i)
		blob = append(blob, head...)
		copy(blob[len(blob)-32:], append([]byte(name), 0))
		jumpTo(start(min(i+1, n-2)))
		blob = append(blob, end...)
	}
	blob = append(blob, f.blob[len(f.blob)-len(head):]...)
	info.Size = uint32(len(blob))
	return info, blob
}

func BenchmarkDecode(b *testing.B) {
	for _, n := range []int{10, 1000, 50000} {
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			info, blob := synthetic(b, n)
			b.ReportAllocs()
			b.SetBytes(int64(len(blob)))
			for b.Loop() {
				if _, err := decode(netfilter.IPv4, info, blob); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkWalk is what a collection does with a decoded table at least.
func BenchmarkWalk(b *testing.B) {
	for _, n := range []int{10, 1000, 50000} {
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			info, blob := synthetic(b, n)
			table, err := decode(netfilter.IPv4, info, blob)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			var packets uint64
			for b.Loop() {
				for i := range table.Chains {
					for r := range table.Chains[i].Rules() {
						packets += r.Counter().Packets
						if a := r.Action(); a.Kind == Jump {
							packets += uint64(len(a.Chain))
						}
					}
				}
			}
			_ = packets
		})
	}
}
