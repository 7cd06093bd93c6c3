// SPDX-License-Identifier: Apache-2.0

package nftables

import (
	"fmt"
	"testing"
)

// TestRuleCounterAgrees holds the cheap path against the whole decoder, and
// to its promise not to allocate.
func TestRuleCounterAgrees(t *testing.T) {
	for _, scene := range scenes {
		for _, b := range payloads(t, scene, "rules.bin") {
			r, err := DecodeRule(b)
			if err != nil {
				t.Fatal(err)
			}
			want := RuleCounter{Handle: r.Handle}
			want.Counter, want.HasCounter = r.Counter()
			if got, err := DecodeRuleCounter(b); got != want || err != nil {
				t.Errorf("got %+v, %v; want %+v", got, err, want)
			}
		}
	}
	b := payloads(t, "kube-proxy", "rules.bin")[0]
	if n := testing.AllocsPerRun(100, func() { _, _ = DecodeRuleCounter(b) }); n != 0 {
		t.Errorf("DecodeRuleCounter: %v allocations, want 0", n)
	}
}

func BenchmarkRules(b *testing.B) {
	msgs := payloads(b, "kube-proxy", "rules.bin")
	for _, n := range []int{10, 1000, 50000} {
		b.Run(fmt.Sprint("Decode/", n), func(b *testing.B) {
			b.ReportAllocs()
			var d RuleDecoder
			for b.Loop() {
				for i := range n {
					if _, err := d.Decode(msgs[i%len(msgs)]); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
		b.Run(fmt.Sprint("Counter/", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				for i := range n {
					if _, err := DecodeRuleCounter(msgs[i%len(msgs)]); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

func BenchmarkChains(b *testing.B) {
	msgs := payloads(b, "kube-proxy", "chains.bin")
	for _, n := range []int{10, 1000, 50000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				for i := range n {
					if _, err := DecodeChain(msgs[i%len(msgs)]); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
