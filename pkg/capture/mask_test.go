// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/drift"
	"github.com/svcscope/svcscope/pkg/internal/iptsave"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

var testKey = []byte("a key of a test, which chance would not be")

func testMasker(t testing.TB) *masker {
	t.Helper()
	m, err := newMasker(testKey)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func mustMask(t testing.TB, s *Snapshot) *Snapshot {
	t.Helper()
	out, err := Mask(s, testKey)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// kinds are what a comparison with the API finds, without what tells addresses.
func kinds(s *Snapshot) []string {
	in := &drift.Input{Catalog: s.Node.Catalog, NodeMissing: s.Node.NodeMissing, IPVS: s.Node.IPVS}
	for i := range s.Node.Rules {
		r := &s.Node.Rules[i]
		in.Rules = append(in.Rules, drift.Rules{View: kubeproxy.NewView(r.Set), Set: r.Set, NFTablesMode: r.NFTablesMode})
	}
	var all []string
	for _, d := range drift.Compare(in).Differences {
		all = append(all, fmt.Sprintf("%s %s %s %s %s %v", d.Port, d.Port.Protocol, d.Family, d.Frontend, d.Kind, d.InFlight))
	}
	slices.Sort(all)
	return all
}

// TestNodeNames: names of nodes may be addresses.
func TestNodeNames(t *testing.T) {
	s := smallSnapshot(t)
	web := s.Node.Catalog.Services[0]
	p := web.PortName(&web.Ports[0])
	s.Node.Name, s.Node.Catalog.Node.Name = "ip-10-0-1-5.ec2.internal", "ip-10-0-1-5.ec2.internal"
	s.Node.Catalog.Endpoints[p][0].NodeName = "ip-10-0-1-50.ec2.internal"
	s.Node.Catalog.Endpoints[p][0].ForNodes = []string{"10.0.1.7"}
	s.Reports["services"] = json.RawMessage(`{"node":"ip-10-0-1-5.ec2.internal","pod":"kube-proxy-ip-10-0-1-50.ec2.internal"}`)
	got := mustMask(t, s)
	m := testMasker(t)
	dashed := func(a string) string {
		return "ip-" + strings.ReplaceAll(m.addr(netip.MustParseAddr(a)).String(), ".", "-") + ".ec2.internal"
	}
	e := got.Node.Catalog.EndpointsOf(p, false)[0]
	want := []string{dashed("10.0.1.5"), dashed("10.0.1.5"), dashed("10.0.1.50"), m.addr(netip.MustParseAddr("10.0.1.7")).String()}
	if d := cmp.Diff(want, []string{got.Node.Name, got.Node.Catalog.Node.Name, e.NodeName, e.ForNodes[0]}); d != "" {
		t.Errorf("names (-want +got):\n%s", d)
	}
	if report := string(got.Reports["services"]); !strings.Contains(report, `"kube-proxy-`+dashed("10.0.1.50")+`"`) || !strings.Contains(report, `"node":"`+dashed("10.0.1.5")+`"`) {
		t.Errorf("the report has %s", report)
	}
}

// original are all addresses in a snapshot that are no special ones.
func original(t *testing.T, s *Snapshot) map[netip.Addr]bool {
	t.Helper()
	found := make(map[netip.Addr]bool)
	for _, e := range unpacked(t, written(t, s)) {
		for _, word := range regexp.MustCompile(`[0-9a-fA-F:.]{3,}`).FindAllString(e.text, -1) {
			for _, try := range []string{word, strings.Trim(word, ".:")} {
				a, err := netip.ParseAddr(try)
				if at, err2 := netip.ParseAddrPort(try); err != nil && err2 == nil {
					a, err = at.Addr(), nil
				}
				if err == nil && !within(wholeNetworks, a) {
					found[a] = true
				}
			}
		}
	}
	return found
}

// TestNoAddressIsLeft looks for every address of the original in all that the masked
// file has: as text, as a number, in names.
func TestNoAddressIsLeft(t *testing.T) {
	s := realSnapshot(t, ruleset.NFT)
	nat := s.Node.Rules[0].Set.Table("nat")
	nat.Chains[0].Rules = append(nat.Chains[0].Rules, ruleset.Rule{
		Comment: "from 203.0.113.7", Matches: []ruleset.Match{ruleset.Unknown{Name: "iprange", Data: netip.MustParseAddr("203.0.113.8").AsSlice()}},
		Action: ruleset.Action{Kind: ruleset.OtherKind, More: &ruleset.Details{Name: "SAME", Args: "[rev 1 unsupported: cb007109]"}},
	})
	s.Reports["drops"] = json.RawMessage(`{"node":"node1","source":"agent","events":[{"from":"203.0.113.10:4711","to":"10.96.0.1:443"}],"203.0.113.11":1}`)
	s.Node.KubeError, s.Node.FlowsError = "dial tcp 10.96.0.1:443: refused", "203.0.113.12 is wrong"
	s.Node.Unread = map[ruleset.Backend]string{ruleset.Legacy: "203.0.113.13"}
	s.Unreported = map[string]string{"drift": `Get "http://203.0.113.14:10988"`}
	addresses := original(t, s)
	if len(addresses) < 50 {
		t.Fatalf("the original has %d addresses", len(addresses))
	}
	for _, a := range []string{"203.0.113.8", "203.0.113.9"} { // in bytes alone
		addresses[netip.MustParseAddr(a)] = true
	}
	masked := mustMask(t, s)
	m := testMasker(t)
	image := make(map[netip.Addr]bool)
	for a := range addresses {
		image[m.addr(a)] = true
	}
	chains := regexp.MustCompile(`KUBE-SEP-[A-Z2-7]{16}`)
	var old []string
	for _, e := range unpacked(t, written(t, s)) {
		old = append(old, chains.FindAllString(e.text, -1)...)
	}
	for _, e := range unpacked(t, written(t, masked)) {
		for a := range addresses {
			if image[a] {
				t.Fatalf("%s is the address that another one became: take another key for this test", a)
			}
			if regexp.MustCompile(`(^|[^0-9a-fA-F.:])` + regexp.QuoteMeta(a.String()) + `($|[^0-9a-fA-F.])`).MatchString(e.text) {
				t.Errorf("%s has %s", e.name, a)
			}
			if strings.Contains(e.text, hex.EncodeToString(a.AsSlice())) {
				t.Errorf("%s has %s as a number", e.name, a)
			}
		}
		for _, name := range chains.FindAllString(e.text, -1) {
			if slices.Contains(old, name) {
				t.Errorf("%s has the name %s", e.name, name)
			}
		}
	}
	if got, err := Read(bytes.NewReader(written(t, masked))); err != nil || cmp.Diff(masked, got, comparison()) != "" {
		t.Errorf("the masked one does not come back: %v", err)
	}
}

// TestMaskedSaysTheSame: what is wrong on the node is wrong in the masked copy, and
// nothing else; rules, Services and endpoints belong to each other as before.
func TestMaskedSaysTheSame(t *testing.T) {
	for _, b := range []ruleset.Backend{ruleset.NFT, ruleset.Legacy} {
		s := realSnapshot(t, b)
		if got := kinds(s); len(got) > 0 {
			t.Fatalf("the original has drift: %q", got)
		}
		compareMasked(t, s)
		damage(t, s)
		if got := kinds(s); len(got) < 5 {
			t.Errorf("only this is wrong: %q", got)
		}
		compareMasked(t, s)
	}
}

// damage makes rules of each kind wrong.
func damage(t *testing.T, s *Snapshot) {
	t.Helper()
	for i := range s.Node.Rules {
		set := s.Node.Rules[i].Set
		nat := set.Table("nat")
		n := 0
		for _, c := range nat.Chains {
			kind, _ := kubeproxy.ParseChain(c.Name)
			if len(c.Rules) == 0 {
				continue
			}
			n++
			last := &c.Rules[len(c.Rules)-1]
			switch {
			case kind == kubeproxy.KindEndpoint && n%3 == 0: // to another address
				d := last.Action.Details()
				d.To = netip.AddrPortFrom(d.To.Addr().Next(), d.To.Port())
				last.Action.SetDetails(d)
			case kind == kubeproxy.KindEndpoint && n%3 == 1:
				c.Rules = c.Rules[:len(c.Rules)-1]
			case kind == kubeproxy.KindService && n%2 == 0: // an endpoint of nobody
				last.Action.Chain = "KUBE-SEP-AAAAAAAAAAAAAAAA"
			case kind == kubeproxy.KindServices:
				c.Rules = c.Rules[1:]
			case c.Base != nil && c.Base.Hook == netfilter.HookOutput: // above the jump, for all Services
				prefix := netip.MustParsePrefix("0.0.0.0/0")
				if set.Family == netfilter.IPv6 {
					prefix = netip.MustParsePrefix("::/0")
				}
				c.Rules = append([]ruleset.Rule{{Matches: []ruleset.Match{ruleset.Destination{Prefix: prefix}}, Action: ruleset.Action{Kind: ruleset.Accept}}}, c.Rules...)
			}
		}
	}
}

func compareMasked(t *testing.T, s *Snapshot) {
	t.Helper()
	masked := mustMask(t, s)
	if d := cmp.Diff(kinds(s), kinds(masked)); d != "" {
		t.Errorf("what is wrong (-original +masked):\n%s", d)
	}
	m := testMasker(t)
	for i := range s.Node.Rules {
		was, is := kubeproxy.NewView(s.Node.Rules[i].Set), kubeproxy.NewView(masked.Node.Rules[i].Set)
		for hash, p := range was.Ports {
			q := is.Ports[hash]
			if q == nil || q.Name != p.Name || q.Named != p.Named || len(q.Endpoints) != len(p.Endpoints) {
				t.Errorf("port %s has become %+v", p.Name, q)
				continue
			}
			for j := range p.Endpoints {
				if q.Endpoints[j].Addr != m.addrPort(p.Endpoints[j].Addr) || (q.Endpoints[j].SEP == nil) != (p.Endpoints[j].SEP == nil) {
					t.Errorf("port %s: endpoint %s has become %s", p.Name, p.Endpoints[j].Addr, q.Endpoints[j].Addr)
				}
			}
		}
		if len(is.Ports) != len(was.Ports) || len(is.Dispatch) != len(was.Dispatch) || len(is.Refusals) != len(was.Refusals) {
			t.Error("the masked one has other rules")
		}
	}
}

// TestMaskRefuses: keys that can be guessed, and what is masked already.
func TestMaskRefuses(t *testing.T) {
	s := smallSnapshot(t)
	if _, err := Mask(s, []byte("too short")); err == nil || !strings.Contains(err.Error(), "the key has 9 bytes") {
		t.Errorf("a short key: %v", err)
	}
	masked := mustMask(t, s)
	if _, err := Mask(masked, testKey); err == nil || !strings.Contains(err.Error(), "masked already") {
		t.Errorf("masked twice: %v", err)
	}
	other, err := Mask(s, []byte("another key, which is as long"))
	if err != nil || other.Mask == masked.Mask || len(masked.Mask) != 8 {
		t.Errorf("masks %s and %s, %v", masked.Mask, other.Mask, err)
	}
	if s.Reports["services"] = json.RawMessage("{"); s.Mask != "" {
		t.Error("the original is said to be masked")
	}
	if _, err := Mask(s, testKey); err == nil || !strings.Contains(err.Error(), "report services") {
		t.Errorf("a report that is no JSON: %v", err)
	}
}

// TestMaskedEveryCondition masks what only rules of others have.
func TestMaskedEveryCondition(t *testing.T) {
	set, err := iptsave.Parse(netfilter.IPv4, ruleset.Legacy, `*filter
:INPUT DROP [0:0]
:X - [0:0]
[0:0] -A X -s 203.0.113.7/32 -d 203.0.113.0/24 -i eth0 -m comment --comment "for 203.0.113.9" -j X
[0:0] -A X -m recent --set --name KUBE-SEP-SEIWYUIBVSVWXBOW --mask 255.255.255.255 --rsource -j DROP
COMMIT
`)
	if err != nil {
		t.Fatal(err)
	}
	s := smallSnapshot(t)
	s.Node.Rules = []Rules{{Set: set}}
	m := testMasker(t)
	at := func(s string) string { return m.addr(netip.MustParseAddr(s)).String() }
	got := mustMask(t, s).Node.Rules[0].Set.Table("filter").Chain("X").Rules
	want := "-s " + at("203.0.113.7") + "/32 -d " + m.prefix(netip.MustParsePrefix("203.0.113.0/24")).String() + ` -i eth0 -m comment --comment "for ` + at("203.0.113.9") + `" -j X`
	if is := got[0].Spec(netfilter.IPv4); is != want {
		t.Errorf("got  %s\nwant %s", is, want)
	}
	// The list is that of the chain of an endpoint that the API knows.
	p := s.Node.Catalog.Services[0].PortName(&s.Node.Catalog.Services[0].Ports[0])
	name := kubeproxy.EndpointChain(p, m.addrPort(netip.MustParseAddrPort("10.77.0.2:8080")))
	if is := got[1].Spec(netfilter.IPv4); !strings.Contains(is, "--name "+name+" --mask 255.255.255.255") {
		t.Errorf("got %s, want the list %s", is, name)
	}
}
