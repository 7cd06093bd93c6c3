// SPDX-License-Identifier: Apache-2.0

package nftables

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
)

// TestRuleScanAgrees holds the cheap path against the whole decoder, and to
// its promise not to allocate.
func TestRuleScanAgrees(t *testing.T) {
	scanner := NewRuleScanner()
	for _, scene := range scenes {
		for _, b := range payloads(t, scene, "rules.bin") {
			r, err := DecodeRule(b)
			if err != nil {
				t.Fatal(err)
			}
			want := RuleCounter{Handle: r.Handle}
			want.Counter, want.HasCounter = r.Counter()
			got, err := scanner.Scan(b)
			got.Sum = 0
			if got != want || err != nil {
				t.Errorf("got %+v, %v; want %+v", got, err, want)
			}
		}
	}
	b := payloads(t, "kube-proxy", "rules.bin")[0]
	if n := testing.AllocsPerRun(100, func() { _, _ = scanner.Scan(b) }); n != 0 {
		t.Errorf("Scan: %v allocations, want 0", n)
	}
}

// TestRuleSum changes one byte after another: in the counter, the handle or
// the position it must leave the sum alone, and elsewhere change it.
func TestRuleSum(t *testing.T) {
	scanner := NewRuleScanner()
	same, other := 0, 0
	for _, b := range payloads(t, "kube-proxy", "rules.bin") {
		r, err := DecodeRule(b)
		if err != nil {
			t.Fatal(err)
		}
		was, err := scanner.Scan(b)
		if err != nil {
			t.Fatal(err)
		}
		for i := range b {
			c := slices.Clone(b)
			c[i] ^= 0x40
			now, err := scanner.Scan(c)
			if err != nil {
				continue
			}
			changed, err := DecodeRule(c)
			if err != nil {
				continue
			}
			content := !reflect.DeepEqual(withoutCounter(r), withoutCounter(changed))
			if content && now.Sum == was.Sum {
				t.Errorf("byte %d of rule %d: another content, the same sum", i, r.Handle)
			}
			if now.Sum == was.Sum {
				same++
			} else {
				other++
			}
			if !content && now.HasCounter && now.Counter != was.Counter && now.Sum != was.Sum {
				t.Errorf("byte %d of rule %d: the counter is in the sum", i, r.Handle)
			}
		}
	}
	if same == 0 || other == 0 {
		t.Errorf("%d bytes leave the sum alone, %d do not", same, other)
	}
}

// withoutCounter is a rule's expressions and user data.
func withoutCounter(r Rule) []any {
	out := []any{string(r.UserData)}
	for _, e := range r.Exprs {
		if _, ok := e.(Counter); !ok {
			out = append(out, e)
		}
	}
	return out
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
		b.Run(fmt.Sprint("Scan/", n), func(b *testing.B) {
			b.ReportAllocs()
			scanner := NewRuleScanner()
			for b.Loop() {
				for i := range n {
					if _, err := scanner.Scan(msgs[i%len(msgs)]); err != nil {
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
