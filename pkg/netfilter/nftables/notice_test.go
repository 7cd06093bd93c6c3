// SPDX-License-Identifier: Apache-2.0

package nftables

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// TestNoticesOfARule holds notices against the whole decoder: the payload of
// a rule's notice is that of a dump.
func TestNoticesOfARule(t *testing.T) {
	kinds := map[uint16]NoticeKind{0xa06: NewRule, 0xa08: DelRule, 0xa1c: DelRule}
	for typ, kind := range kinds {
		var d NoticeDecoder
		for _, b := range payloads(t, "kube-proxy", "rules.bin") {
			r, err := DecodeRule(b)
			if err != nil {
				t.Fatal(err)
			}
			h, _, _ := netfilter.DecodeGenMsg(b)
			want := Notice{
				Kind: kind, Type: typ, Family: r.Family, ResID: h.ResID,
				Table: r.Table, Chain: r.Chain, Handle: r.Handle, Payload: b,
			}
			want.Counter, want.HasCounter = r.Counter()
			got, err := d.Decode(&nlattr.Message{Type: typ, Payload: b})
			if d := cmp.Diff(want, got); d != "" || err != nil {
				t.Fatalf("%v (-want +got):\n%s", err, d)
			}
		}
	}
}
