// SPDX-License-Identifier: Apache-2.0

package kubeproxy_test

import (
	"os"
	"slices"
	"testing"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// messages decodes the kernel's messages of a file, which it had sent on a node where the
// real kube-proxy 1.37.2 was in its nftables mode.
func messages[T any](t *testing.T, file string, decode func([]byte) (T, error)) (all []T) {
	t.Helper()
	b, err := os.ReadFile("../netfilter/nftables/testdata/kube-proxy-1.37.2/" + file)
	if err != nil {
		t.Fatal(err)
	}
	it := nlattr.Messages(b)
	for it.Next() {
		v, err := decode(it.Message().Payload)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all = append(all, v)
	}
	if it.Err() != nil {
		t.Fatal(it.Err())
	}
	return all
}

// messageSet is the rules of one family that the messages tell of.
func messageSet(t *testing.T, f netfilter.Family) *ruleset.Ruleset {
	t.Helper()
	var reading nftables.Ruleset
	for _, table := range messages(t, "tables.bin", nftables.DecodeTable) {
		content := nftables.TableContent{Table: table}
		for _, c := range messages(t, "chains.bin", nftables.DecodeChain) {
			if c.Family != table.Family || c.Table != table.Name {
				continue
			}
			rules := messages(t, "rules.bin", nftables.DecodeRule)
			rules = slices.DeleteFunc(rules, func(r nftables.Rule) bool {
				return r.Family != c.Family || r.Table != c.Table || r.Chain != c.Name
			})
			content.Chains = append(content.Chains, nftables.ChainContent{Chain: c, Read: true, Rules: rules})
		}
		reading.Tables = append(reading.Tables, content)
	}
	rs, undecoded := ruleset.FromNFTables(f, &reading)
	if len(undecoded) != 0 {
		t.Errorf("not understood: %v", undecoded)
	}
	all := rs.Table(kubeproxy.NativeTable)
	all.Sets, all.Maps = make(map[string]*ruleset.Set), make(map[string][]string)
	for _, head := range messages(t, "sets.bin", nftables.DecodeSet) {
		if head.Family != f {
			continue
		}
		s := ruleset.NewSet(&head)
		for _, es := range messages(t, "elements.bin", nftables.DecodeElements) {
			if es.Family == f && es.Set == head.Name {
				s.Add(&es)
			}
		}
		s.Done()
		all.Sets[s.Name] = s
	}
	return rs
}

// TestNativeViewOfMessages: what the real kube-proxy had written says the same as the text
// that nft printed of it in another run, loaded again.
func TestNativeViewOfMessages(t *testing.T) {
	for file, f := range map[string]netfilter.Family{"nftables/captured.ipv4.view": netfilter.IPv4, "nftables/captured.ipv6.view": netfilter.IPv6} {
		v := kubeproxy.NewNativeView(messageSet(t, f))
		if len(v.Native.Undecoded) != 0 || !v.Recognised() {
			t.Errorf("%v: recognised %v, not understood: %v", f, v.Recognised(), v.Native.Undecoded)
		}
		goldenNative(t, file, describeNative(v))
	}
}
