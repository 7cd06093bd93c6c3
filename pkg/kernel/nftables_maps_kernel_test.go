// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/netfilter"
)

// TestVerdictMaps of a table with many elements, which are read up to a limit.
func TestVerdictMaps(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		var b strings.Builder
		b.WriteString("table inet t {\n set s { type ipv4_addr; elements = { 10.0.0.1 } }\n map m { type ipv4_addr : verdict; elements = { 10.0.0.1 : drop")
		for i := range 700 {
			fmt.Fprintf(&b, ", 10.1.%d.%d : goto c%d", i/250, i%250, i%2)
		}
		b.WriteString(" } }\n chain c0 { }\n chain c1 { }\n chain c {\n  tcp dport vmap { 22 : jump c1, 23 : accept }\n }\n}\n")
		b.WriteString("table ip t {\n map m { type ipv4_addr : verdict; elements = { 10.0.0.1 : goto other } }\n chain other { }\n}\n")
		kerneltest.Exec(t, b.String(), "nft", "-f", "-")
		n := open(t)
		read := func(f netfilter.Family, table string, limit int) (maps map[string][]string, whole bool, err error) {
			err = n.Try(t.Context(), func(ctx context.Context, a *Attempt) (err error) {
				maps, whole, err = a.VerdictMaps(ctx, f, table, limit)
				return err
			})
			return maps, whole, err
		}
		all := map[string][]string{"m": {"c0", "c1"}, "__map0": {"c1"}}
		for _, limit := range []int{703, 10_000} {
			maps, whole, err := read(netfilter.FamilyINet, "t", limit)
			if d := cmp.Diff(all, maps); d != "" || !whole || err != nil {
				t.Errorf("limit %d: whole %v, %v (-want +got):\n%s", limit, whole, err, d)
			}
		}
		for _, limit := range []int{702, 100, 0} {
			if _, whole, err := read(netfilter.FamilyINet, "t", limit); whole || err != nil {
				t.Errorf("limit %d: whole %v, %v", limit, whole, err)
			}
			if maps, _, err := read(netfilter.IPv4, "t", 10); len(maps) != 1 || err != nil { // over another socket, maybe
				t.Errorf("then %v, %v", maps, err)
			}
		}
		if _, _, err := read(netfilter.IPv6, "t", 10); !errors.Is(err, ErrInterrupted) {
			t.Errorf("a table that is not there: %v", err)
		}
	})
}
