// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"fmt"
	"net/netip"
	"testing"
)

// many makes the counters of n ports: three endpoints and two External rules
// each.
func many(n int) (ports []Port, counters []Counter) {
	handle := uint64(1)
	add := func(c Counter) {
		c.ID = ID{Table: "nat", TableHandle: 1, RuleHandle: handle}
		handle++
		counters = append(counters, c)
	}
	for i := range n {
		p := svcPort(fmt.Sprintf("svc-%d", i))
		ports = append(ports, p)
		for e := range 3 {
			addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), byte(e)}), 8080)
			add(Counter{Kind: Connection, Port: p, Chain: fmt.Sprintf("KUBE-SVC-%016d", i), Endpoint: addr})
		}
		for range 2 {
			add(Counter{Kind: External, Port: p, Chain: fmt.Sprintf("KUBE-EXT-%016d", i)})
		}
	}
	return ports, counters
}

// benchLedger is a ledger that has read 50,000 counters.
func benchLedger() (*Ledger, []Counter) {
	ports, counters := many(10000)
	l := New(len(ports))
	l.Know(Known{Ports: ports, Complete: true}, start)
	for range 3 {
		l.Apply(reading(nft, counters...), start)
	}
	return l, counters
}

func BenchmarkApply(b *testing.B) {
	b.Run("whole 50000", func(b *testing.B) {
		l, counters := benchLedger()
		rd := reading(nft, counters...)
		b.ReportAllocs()
		for b.Loop() {
			for i := 0; i < len(counters); i += 5 {
				counters[i].Packets++
			}
			l.Apply(rd, start)
		}
	})
	b.Run("partial 10 of 50000", func(b *testing.B) {
		l, counters := benchLedger()
		rd := reading(nft, counters[:10]...)
		rd.Cover = make(Cover)
		for _, k := range rd.Counters {
			rd.Cover[ChainName{k.ID.Table, k.Chain}] = struct{}{}
		}
		b.ReportAllocs()
		for b.Loop() {
			counters[0].Packets++
			l.Apply(rd, start)
		}
	})
}

func BenchmarkCommit10(b *testing.B) {
	l, counters := benchLedger()
	c := Commit{Source: nft, Ended: counters[:10:10], Begun: append([]Counter(nil), counters[:10]...)}
	b.ReportAllocs()
	for b.Loop() {
		for i := range c.Begun {
			c.Ended[i].ID = c.Begun[i].ID
			c.Begun[i].ID.RuleHandle += 100000
		}
		l.Commit(c, start)
	}
}

func BenchmarkKnow10000(b *testing.B) {
	l, _ := benchLedger()
	ports, _ := many(10000)
	b.ReportAllocs()
	for b.Loop() {
		l.Know(Known{Ports: ports, Complete: true}, start)
	}
}
