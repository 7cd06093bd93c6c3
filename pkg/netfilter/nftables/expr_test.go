// SPDX-License-Identifier: Apache-2.0

package nftables

import (
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

func findRule(t *testing.T, scene string, match func(Rule) bool) Rule {
	t.Helper()
	rules := decodeAll(t, scene, "rules.bin", DecodeRule)
	i := slices.IndexFunc(rules, match)
	if i < 0 {
		t.Fatal("no such rule")
	}
	return rules[i]
}

func hasExpr[E Expr](r Rule) bool {
	return slices.ContainsFunc(r.Exprs, func(e Expr) bool { _, ok := e.(E); return ok })
}

func has(chain string, f netfilter.Family) func(Rule) bool {
	return func(r Rule) bool { return strings.HasPrefix(r.Chain, chain) && r.Family == f }
}

// l4proto is how nft and iptables-nft write "-p".
func l4proto(n byte) []Expr {
	return []Expr{Meta{Key: MetaL4Proto, DReg: Reg1}, Cmp{SReg: Reg1, Op: Equal, Data: []byte{n}}}
}

func TestExpressions(t *testing.T) {
	tests := []struct {
		name  string
		scene string
		match func(Rule) bool
		want  []Expr
	}{
		{
			"endpoints chosen at random by kube-proxy's nftables mode", "kube-proxy-nftables",
			has("service-ULMVA6XW", netfilter.IPv4),
			append(l4proto(6),
				Numgen{DReg: Reg1, Modulus: 3, Random: true},
				Lookup{Set: "__map0", SReg: Reg1, DReg: Reg1, Map: true},
				NAT{
					Dest: true, Family: netfilter.IPv4, AddrMin: Reg1, AddrMax: Reg1, ProtoMin: 9, ProtoMax: 9,
					Flags: NATMapIPs | NATProtoSpecified,
				}),
		},
		{
			"verdict map of the Services", "kube-proxy-nftables",
			func(r Rule) bool {
				return r.Chain == "services" && r.Family == netfilter.IPv4 && r.Comment == "" && !hasExpr[FIB](r)
			},
			[]Expr{
				Payload{Base: Network, Offset: 16, Len: 4, DReg: Reg1},
				Meta{Key: MetaL4Proto, DReg: Reg32 + 1},
				Payload{Base: Transport, Offset: 2, Len: 2, DReg: Reg32 + 2},
				Lookup{Set: "service-ips", SReg: Reg1, Map: true},
			},
		},
		{
			"mark test with a mask by iptables-nft", "kube-proxy",
			func(r Rule) bool { return r.Chain == "KUBE-POSTROUTING" && hasExpr[Bitwise](r) },
			[]Expr{
				Meta{Key: MetaMark, DReg: Reg1},
				Bitwise{
					SReg: Reg1, DReg: Reg1, Len: 4, Mask: []byte{0, 0x40, 0, 0}, Xor: []byte{0, 0, 0, 0},
				},
				Cmp{SReg: Reg1, Op: NotEqual, Data: []byte{0, 0x40, 0, 0}},
				Counter{Packets: 19, Bytes: 1140},
				Immediate{Verdict: &Verdict{Code: Return}},
			},
		},
		{
			"range of ports and a jump", "plain",
			func(r Rule) bool { return hasExpr[Range](r) },
			append(l4proto(17),
				Payload{Base: Transport, Offset: 0, Len: 2, DReg: Reg1},
				Cmp{SReg: Reg1, Op: NotEqual, Data: []byte{0, 53}},
				Payload{Base: Transport, Offset: 2, Len: 2, DReg: Reg1},
				Range{SReg: Reg1, From: []byte{3, 0xe8}, To: []byte{7, 0xd0}},
				Counter{Packets: 4, Bytes: 240},
				Immediate{Verdict: &Verdict{Code: Jump, Chain: "LOGS"}}),
		},
		{
			"update of a set and translation to one endpoint", "kube-proxy-nftables",
			func(r Rule) bool { return hasExpr[DynSet](r) },
			[]Expr{
				Payload{Base: Network, Offset: 12, Len: 4, DReg: Reg1},
				DynSet{Set: "affinity-5FJ2CRIF-default/sticky/tcp/__10.180.0.6/8080", Op: 1, Key: Reg1},
			},
		},
		{
			"an unknown expression is kept", "native",
			func(r Rule) bool { return hasExpr[Opaque](r) && r.Chain == "other" },
			[]Expr{
				Opaque{Name: "connlimit", Data: connlimit(10, 1)},
				Immediate{Verdict: &Verdict{Code: Drop}},
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := findRule(t, tt.scene, tt.match)
			if d := gocmp.Diff(tt.want, got.Exprs); d != "" {
				t.Errorf("rule %d (-want +got):\n%s", got.Handle, d)
			}
		})
	}
}

func connlimit(count, flags uint32) []byte {
	b := nlattr.AppendUint32(nil, 1, count) // NFTA_CONNLIMIT_COUNT
	return nlattr.AppendUint32(b, 2, flags) // NFTA_CONNLIMIT_FLAGS
}

func TestUnknownAttributeMakesOpaque(t *testing.T) {
	data := nlattr.AppendUint32(nil, 1, 1) // NFTA_META_DREG
	data = nlattr.AppendUint32(data, 2, 3) // NFTA_META_KEY
	data = nlattr.AppendUint32(data, 9, 7) // of a later kernel
	r, err := DecodeRule(ruleWith("meta", data))
	want := []Expr{Opaque{Name: "meta", Data: data}}
	if d := gocmp.Diff(want, r.Exprs); d != "" || err != nil {
		t.Errorf("error %v, expressions (-want +got):\n%s", err, d)
	}
}

func TestErrorNamesExpressionAndAttribute(t *testing.T) {
	_, err := DecodeRule(ruleWith("cmp", nlattr.Append(nil, 1, []byte{1, 2})))
	const want = "rule 5: expression cmp: NFTA_CMP_SREG: 2 bytes, want 4"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	_, err = DecodeRule(ruleWith("cmp", nlattr.AppendUint32(nil, 1, 1)))
	if err == nil || !strings.HasSuffix(err.Error(), "NFTA_CMP_OP: missing") {
		t.Errorf("got %v, want NFTA_CMP_OP: missing", err)
	}
}

// ruleWith is a rule with handle 5 and one expression.
func ruleWith(name string, data []byte) []byte {
	e := nlattr.AppendNested(nlattr.AppendString(nil, attrExprName, name), attrExprData, data)
	b := netfilter.AppendGenMsg(nil, netfilter.GenMsg{Family: netfilter.IPv4})
	b = nlattr.AppendString(b, attrRuleTable, "t")
	b = nlattr.AppendString(b, attrRuleChain, "c")
	b = nlattr.Append(b, attrRuleHandle, []byte{0, 0, 0, 0, 0, 0, 0, 5})
	return nlattr.AppendNested(b, attrRuleExpressions, nlattr.AppendNested(nil, attrListElem, e))
}

func TestGen(t *testing.T) {
	g := decodeAll(t, "plain", "gen.bin", DecodeGen)
	if len(g) != 1 || g[0].ID == 0 || g[0].ProcPID == 0 || g[0].ProcName != "nft" {
		t.Errorf("got %+v, want the generation with the asking process", g)
	}
}

func TestComments(t *testing.T) {
	tables := decodeAll(t, "kube-proxy-nftables", "tables.bin", DecodeTable)
	sets := decodeAll(t, "kube-proxy-nftables", "sets.bin", DecodeSet)
	elements := decodeAll(t, "kube-proxy-nftables", "elements.bin", DecodeElements)
	var got []string
	got = append(got, tables[0].Comment)
	for _, s := range sets {
		if s.Name == "cluster-ips" {
			got = append(got, s.Comment)
		}
	}
	for _, es := range elements {
		for _, e := range es.Elements {
			if e.Comment != "" {
				got = append(got, e.Comment)
			}
		}
	}
	want := []string{"rules for kube-proxy", "Active ClusterIPs", "ns4/empty:http", "ns5/itp"}
	slices.Sort(got[2:])
	if d := gocmp.Diff(want, got); d != "" {
		t.Errorf("comments (-want +got):\n%s", d)
	}
}

func TestRegisterWords(t *testing.T) {
	tests := []struct {
		reg  Register
		word int
		ok   bool
	}{{RegVerdict, 0, false}, {1, 0, true}, {2, 4, true}, {8, 0, true}, {9, 1, true}, {23, 15, true}, {5, 0, false}, {24, 0, false}}
	for _, tt := range tests {
		if w, ok := tt.reg.Word(); w != tt.word || ok != tt.ok {
			t.Errorf("register %d: got word %d, %v; want %d, %v", tt.reg, w, ok, tt.word, tt.ok)
		}
	}
}
