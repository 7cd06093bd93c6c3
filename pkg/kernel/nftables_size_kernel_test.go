// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/netfilter"
)

// TestSizeOfAllTables counts rules and elements of families that are not read.
func TestSizeOfAllTables(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		n := open(t)
		size := func(limit int) (rules, elements int) {
			rules, elements, err := n.Size(t.Context(), limit)
			if err != nil {
				t.Fatal(err)
			}
			return rules, elements
		}
		if rules, elements := size(1000); rules != 0 || elements != 0 {
			t.Errorf("nothing: %d and %d", rules, elements)
		}
		var b strings.Builder
		b.WriteString("table inet other {\n set s { type ipv4_addr; elements = { ")
		for i := range 700 {
			fmt.Fprintf(&b, "10.1.%d.%d, ", i/250, i%250)
		}
		b.WriteString("} }\n set none { type ipv4_addr; }\n chain c {\n")
		for range 30 {
			b.WriteString("  counter accept\n")
		}
		b.WriteString(" }\n}\ntable bridge b {\n map m { type inet_service : verdict; elements = { 1 : accept, 2 : drop } }\n chain c {\n  counter\n }\n}\n")
		kerneltest.Exec(t, b.String(), "nft", "-f", "-")
		if rules, elements := size(10_000); rules != 31 || elements != 702 {
			t.Errorf("%d rules and %d elements, want 31 and 702", rules, elements)
		}
		if rules, _ := size(30); rules != 31 {
			t.Errorf("above the limit: %d rules, want 31", rules)
		}

		// As on a kernel that does not tell the number of elements.
		set := sized{family: netfilter.Family(1), table: "other", name: "s"}
		for limit, more := range map[int]bool{10_000: false, 100: true} {
			var got int
			err := n.Try(t.Context(), func(ctx context.Context, a *Attempt) (err error) {
				got, err = a.count(ctx, set, limit)
				return err
			})
			if err != nil || !more && got != 700 || more && got <= limit {
				t.Errorf("elements with limit %d: %d, %v", limit, got, err)
			}
			if rules, _ := size(10_000); rules != 31 { // the socket is another one
				t.Errorf("then %d rules", rules)
			}
		}
	})
}
