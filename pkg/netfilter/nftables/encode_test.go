// SPDX-License-Identifier: Apache-2.0

package nftables

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// TestEncode decodes what is encoded.
func TestEncode(t *testing.T) {
	rule := Rule{
		Family: netfilter.FamilyINet, Table: "t", Chain: "c", Comment: "a comment",
		Exprs: []Expr{
			Meta{Key: MetaNFProto, DReg: Reg1},
			Cmp{SReg: Reg1, Op: NotEqual, Data: []byte{2}},
			CT{Key: CTStatus, DReg: Reg1},
			CT{Key: CTDstIP, DReg: Reg1, HasDirection: true, Direction: 1},
			Bitwise{SReg: Reg1, DReg: Reg1, Len: 4, Mask: []byte{1, 2, 3, 4}, Xor: make([]byte, 4)},
			Payload{Base: Transport, Offset: 2, Len: 2, DReg: 9},
			FIB{DReg: Reg1, Result: FIBAddrType, Flags: FIBDest},
			Lookup{Set: "s", SReg: Reg1},
			Lookup{Set: "s", SReg: Reg1, Not: true},
			Counter{Packets: 3, Bytes: 99},
			Limit{Rate: 10, Unit: 60, Burst: 5},
			Log{ToGroup: true, Group: 100, Prefix: "p", SnapLen: 64, QThreshold: 8},
			Immediate{Verdict: &Verdict{Code: Return}},
		},
	}
	// The kernel adds the handle.
	got, err := DecodeRule(nlattr.Append(rule.Append(nil), attrRuleHandle, []byte{0, 0, 0, 0, 0, 0, 0, 7}))
	rule.Handle = 7
	got.UserData = nil
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(rule, got); d != "" {
		t.Errorf("rule (-want +got):\n%s", d)
	}
	table := Table{Family: netfilter.FamilyINet, Name: "t", Flags: TableOwned, Comment: "x"}
	if got, err := DecodeTable(table.Append(nil)); err != nil || got != table {
		t.Errorf("%v: got %+v, want %+v", err, got, table)
	}
	chain := Chain{
		Family: netfilter.FamilyINet, Table: "t", Name: "c",
		Base: &Base{Hook: netfilter.HookOutput, Priority: -101, Type: "nat", Policy: Accept},
	}
	if got, err := DecodeChain(chain.Append(nil)); err != nil || !cmp.Equal(got, chain) {
		t.Errorf("%v: chain (-want +got):\n%s", err, cmp.Diff(chain, got))
	}
	set := NewSet{Set: Set{Family: netfilter.FamilyINet, Table: "t", Name: "s", KeyType: 7, KeyLen: 4, Size: 8, Comment: "y"}, ID: 1, Expr: Counter{}}
	if got, err := DecodeSet(set.Append(nil)); err != nil || got != set.Set {
		t.Errorf("%v: set (-want +got):\n%s", err, cmp.Diff(set.Set, got))
	}
	elements := Elements{Family: netfilter.FamilyINet, Table: "t", Set: "s", Elements: []Element{{Key: []byte{1, 2, 3, 4}}, {Key: []byte{5, 6, 7, 8}}}}
	if got, err := DecodeElements(elements.Append(nil)); err != nil || !cmp.Equal(got, elements) {
		t.Errorf("%v: elements (-want +got):\n%s", err, cmp.Diff(elements, got))
	}
	ranges := NewSet{Set: Set{Family: netfilter.FamilyINet, Table: "t", Name: "r", Flags: SetInterval | SetConcat, KeyType: 7<<6 | 13, KeyLen: 8, Size: 9}, Fields: []uint32{4, 2}}
	if got, err := DecodeSet(ranges.Append(nil)); err != nil || got != ranges.Set {
		t.Errorf("%v: set of ranges (-want +got):\n%s", err, cmp.Diff(ranges.Set, got))
	}
	elements.Elements = []Element{{Key: []byte{1, 2, 3, 4, 0, 0, 0, 0}, KeyEnd: []byte{1, 2, 3, 5, 255, 255, 0, 0}}}
	if got, err := DecodeElements(elements.Append(nil)); err != nil || !cmp.Equal(got, elements) {
		t.Errorf("%v: ranges (-want +got):\n%s", err, cmp.Diff(elements, got))
	}
}
