// SPDX-License-Identifier: Apache-2.0

package nftables

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/netfilter"
)

// nftFamily is nft's spelling of a family.
func nftFamily(f netfilter.Family) string {
	switch f {
	case netfilter.IPv4:
		return "ip"
	case netfilter.IPv6:
		return "ip6"
	}
	return f.String()
}

func str(m map[string]any, key string) string {
	if v, ok := m[key]; ok {
		return fmt.Sprint(v)
	}
	return ""
}

func num(m map[string]any, key string) uint64 {
	f, _ := m[key].(float64)
	return uint64(f)
}

func sorted(s []string) []string {
	slices.SortStableFunc(s, cmp.Compare)
	return s
}

func TestTablesAsNFTListsThem(t *testing.T) {
	for _, scene := range scenes {
		t.Run(scene, func(t *testing.T) {
			var got, want []string
			for _, v := range decodeAll(t, scene, "tables.bin", DecodeTable) {
				got = append(got, fmt.Sprint(nftFamily(v.Family), v.Name, v.Handle))
			}
			for _, v := range readListing(t, scene).tables {
				want = append(want, fmt.Sprint(str(v, "family"), str(v, "name"), num(v, "handle")))
			}
			if d := gocmp.Diff(sorted(want), sorted(got)); d != "" || len(got) == 0 {
				t.Errorf("tables (-want +got):\n%s", d)
			}
		})
	}
}

func TestChainsAsNFTListsThem(t *testing.T) {
	policy := map[Code]string{Accept: "accept", Drop: "drop"}
	for _, scene := range scenes {
		t.Run(scene, func(t *testing.T) {
			var got, want []string
			for _, c := range decodeAll(t, scene, "chains.bin", DecodeChain) {
				s := fmt.Sprint(nftFamily(c.Family), " ", c.Table, " ", c.Name, " ", c.Handle)
				if b := c.Base; b != nil {
					s += fmt.Sprint(" ", b.Type, " ", strings.ToLower(b.Hook.String()), " ", b.Priority, " ", policy[b.Policy])
				}
				got = append(got, s)
			}
			for _, v := range readListing(t, scene).chains {
				s := fmt.Sprint(str(v, "family"), " ", str(v, "table"), " ", str(v, "name"), " ", num(v, "handle"))
				if v["type"] != nil {
					s += fmt.Sprint(" ", v["type"], " ", v["hook"], " ", int32(v["prio"].(float64)), " ", v["policy"])
				}
				want = append(want, s)
			}
			if d := gocmp.Diff(sorted(want), sorted(got)); d != "" || len(got) == 0 {
				t.Errorf("chains (-want +got):\n%s", d)
			}
		})
	}
}

func TestRulesAsNFTListsThem(t *testing.T) {
	for _, scene := range scenes {
		t.Run(scene, func(t *testing.T) {
			rules := decodeAll(t, scene, "rules.bin", DecodeRule)
			listed := readListing(t, scene).rules
			key := func(family, table string, handle uint64) string { return fmt.Sprint(family, " ", table, " ", handle) }
			byKey := map[string]Rule{}
			for _, r := range rules {
				byKey[key(nftFamily(r.Family), r.Table, r.Handle)] = r
			}
			if len(byKey) != len(listed) || len(listed) == 0 {
				t.Errorf("got %d rules, nft lists %d", len(byKey), len(listed))
			}
			for _, v := range listed {
				k := key(str(v, "family"), str(v, "table"), num(v, "handle"))
				r, ok := byKey[k]
				if !ok || r.Chain != str(v, "chain") {
					t.Errorf("rule %s: got chain %q, want %q", k, r.Chain, str(v, "chain"))
				}
				if c := str(v, "comment"); r.Comment != c && r.UserData != nil {
					t.Errorf("rule %s: got comment %q, want %q", k, r.Comment, c)
				}
				stmts, _ := v["expr"].([]any)
				if d := gocmp.Diff(statements(stmts), described(r.Exprs)); d != "" {
					t.Errorf("rule %s (-want +got):\n%s", k, d)
				}
			}
		})
	}
}

// statements writes those statements of nft's JSON that described can say
// from the kernel's expressions too.
func statements(stmts []any) (out []string) {
	for _, s := range stmts {
		for name, body := range s.(map[string]any) {
			v, _ := body.(map[string]any)
			switch name {
			case "counter":
				if v == nil {
					out = append(out, "counter "+fmt.Sprint(body))
					continue
				}
				out = append(out, fmt.Sprint("counter ", num(v, "packets"), " ", num(v, "bytes")))
			case "accept", "drop", "return", "continue", "notrack":
				out = append(out, name)
			case "jump", "goto":
				out = append(out, name+" "+str(v, "target"))
			case "log":
				out = append(out, fmt.Sprint("log ", str(v, "prefix"), " ", num(v, "group"), " ", num(v, "snaplen")))
			case "limit":
				out = append(out, fmt.Sprint("limit ", num(v, "rate"), "/", v["per"], " ", num(v, "burst"), " ", v["inv"] == true))
			case "masquerade", "redirect", "snat", "dnat", "reject":
				out = append(out, name)
			}
		}
	}
	return out
}

// described is statements from the expressions.
func described(exprs []Expr) (out []string) {
	verdicts := map[Code]string{Accept: "accept", Drop: "drop", Return: "return", Continue: "continue"}
	units := map[uint64]string{1: "second", 60: "minute", 3600: "hour"}
	for _, e := range exprs {
		switch e := e.(type) {
		case Counter:
			out = append(out, fmt.Sprint("counter ", e.Packets, " ", e.Bytes))
		case ObjRef:
			if e.Type == 1 { // NFT_OBJECT_COUNTER
				out = append(out, "counter "+e.Object)
			}
		case Immediate:
			switch {
			case e.Verdict == nil:
			case e.Verdict.Code == Jump:
				out = append(out, "jump "+e.Verdict.Chain)
			case e.Verdict.Code == Goto:
				out = append(out, "goto "+e.Verdict.Chain)
			default:
				out = append(out, verdicts[e.Verdict.Code])
			}
		case Log:
			out = append(out, fmt.Sprint("log ", e.Prefix, " ", e.Group, " ", e.SnapLen))
		case Limit:
			out = append(out, fmt.Sprint("limit ", e.Rate, "/", units[e.Unit], " ", e.Burst, " ", e.Not))
		case NAT:
			out = append(out, map[bool]string{true: "dnat", false: "snat"}[e.Dest])
		case Masq:
			out = append(out, "masquerade")
		case Redir:
			out = append(out, "redirect")
		case Reject:
			out = append(out, "reject")
		case Notrack:
			out = append(out, "notrack")
		}
	}
	return out
}

func TestSetsAsNFTListsThem(t *testing.T) {
	for _, scene := range []string{"kube-proxy-nftables", "kube-proxy-1.37.2", "native"} {
		t.Run(scene, func(t *testing.T) {
			handles, elements := map[string]uint64{}, map[string]int{}
			for _, s := range decodeAll(t, scene, "sets.bin", DecodeSet) {
				if s.Flags&SetAnonymous == 0 {
					handles[nftFamily(s.Family)+" "+s.Table+" "+s.Name] = s.Handle
				}
				if s.KeyLen == 0 || (s.Flags&SetMap != 0) != (s.DataType != 0) {
					t.Errorf("set %s: %+v", s.Name, s)
				}
			}
			for _, es := range decodeAll(t, scene, "elements.bin", DecodeElements) {
				for _, e := range es.Elements {
					// The end of an interval is an element of its own.
					if e.Flags&ElementIntervalEnd == 0 {
						elements[nftFamily(es.Family)+" "+es.Table+" "+es.Set]++
					}
				}
			}
			listed := readListing(t, scene).sets
			if len(listed) != len(handles) || len(listed) == 0 {
				t.Errorf("got %d sets, nft lists %d", len(handles), len(listed))
			}
			for _, v := range listed {
				k := str(v, "family") + " " + str(v, "table") + " " + str(v, "name")
				elem, _ := v["elem"].([]any)
				if handles[k] != num(v, "handle") || elements[k] != len(elem) {
					t.Errorf("set %s: got handle %d, %d elements; want %d, %d",
						k, handles[k], elements[k], num(v, "handle"), len(elem))
				}
			}
		})
	}
}
