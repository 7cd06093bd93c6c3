// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/netfilter/nflog"
	"github.com/svcscope/svcscope/pkg/policy"
)

func testMask() *Mask {
	return NewMask(FlowInputs{
		Catalog: demoCatalog("10.244.1.5:8080"), Pods: somePods(),
		Local: []netip.Addr{netip.MustParseAddr("192.168.50.2")}, Routed: []netip.Addr{netip.MustParseAddr("172.20.1.7")},
	})
}

// TestMask hides the host in addresses of others, in both families.
func TestMask(t *testing.T) {
	m := testMask()
	for _, tt := range []struct{ what, addr, want string }{
		{"a client", "203.0.113.77", "203.0.113.x"},
		{"a client of IPv6", "2001:db8:1:2:3:4:5:6", "2001:db8:1::x"},
		{"with zeros", "2001:db8::5", "2001:db8::x"},
		{"of one group", "2001::5:6", "2001::x"},
		{"IPv4 in IPv6", "::ffff:203.0.113.77", "203.0.113.x"},
		{"with a zone", "fe80::1%eth0", "fe80::x"},
		{"a pod elsewhere", "10.244.7.3", "10.244.7.x"},
		{"another node", "192.168.50.9", "192.168.50.x"},
		{"a pod", "10.244.1.9", "10.244.1.9"},
		{"a pod outside of the range", "172.21.0.9", "172.21.0.9"},
		{"a pod of IPv6", "fd00:10:244:1::5", "fd00:10:244:1::5"},
		{"in the node's range", "10.244.1.200", "10.244.1.200"},
		{"with a route of its own", "172.20.1.7", "172.20.1.7"},
		{"an endpoint elsewhere", "10.244.2.6", "10.244.2.6"},
		{"the node", "192.168.50.1", "192.168.50.1"},
		{"the node's other address", "192.168.50.2", "192.168.50.2"},
		{"loopback", "127.0.0.53", "127.0.0.53"},
		{"a cluster address", "10.96.0.10", "10.96.0.10"},
		{"of IPv6", "fd00:10:96::a", "fd00:10:96::a"},
		{"an external address", "203.0.113.9", "203.0.113.9"},
		{"a load balancer's", "198.51.100.9", "198.51.100.9"},
	} {
		a := netip.MustParseAddr(tt.addr)
		if got := m.addr(a); got != tt.want {
			t.Errorf("%s: %s is told as %q, want %q", tt.what, a, got, tt.want)
		}
		want := tt.want + ":443"
		if strings.Contains(tt.want, ":") {
			want = "[" + tt.want + "]:443"
		}
		if got := m.addrPort(netip.AddrPortFrom(a, 443)); got != want {
			t.Errorf("%s: with a port it is told as %q, want %q", tt.what, got, want)
		}
		if got := (*Mask)(nil).addr(a); got != tt.addr {
			t.Errorf("%s: without a mask it is told as %q", tt.what, got)
		}
	}
}

// TestDropEventReport has each field, and of other's addresses what the mask leaves.
func TestDropEventReport(t *testing.T) {
	web := demoCatalog("10.244.1.5:8080").Services[1]
	event := func(src, dst string) *DropEvent {
		e := &DropEvent{
			Time: time.Unix(1e9, 5000).In(time.FixedZone("CET", 3600)), In: 3, Out: 7,
			DropRule: &DropRule{
				Source: SourceNFLOG, Group: 100, Hook: "forward", Prefix: "DROP by policy shop/strict", Refused: true, Table: "filter", Chain: "A",
				Refuser: policy.Refuser{Owner: policy.KubeRouter, Reason: policy.DefaultDeny, Direction: policy.Ingress, Policy: policy.Object{Namespace: "shop", Name: "strict"}, Pod: policy.Object{Namespace: "shop", Name: "web-0"}},
			},
			Headers: nflog.Headers{Protocol: tcp, Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst), HasPorts: true},
			Service: web.PortName(&web.Ports[0]), Frontend: netip.MustParseAddrPort("10.96.0.10:80"),
			ToPod: policy.Object{Namespace: "shop", Name: "web-0"},
		}
		return e
	}
	device := func(n uint32) string { return map[uint32]string{3: "eth0", 7: "cali1"}[n] }
	text := func(e *DropEvent, m *Mask) string {
		b, err := json.Marshal(NewDropEventReport(e, device, m))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	want := `{"time":"2001-09-09T01:46:40.000005Z","source":"nflog","group":100,"hook":"forward","refused":true,"reason":"policy_default","owner":"kube-router","direction":"ingress",` +
		`"policy":{"namespace":"shop","name":"strict"},"pod":{"namespace":"shop","name":"web-0"},"table":"filter","chain":"A","prefix":"DROP by policy shop/strict",` +
		`"protocol":"TCP","from":"203.0.113.77:40000","to":"10.244.1.5:8080","toPod":{"namespace":"shop","name":"web-0"},` +
		`"sentTo":"10.96.0.10:80","service":{"namespace":"shop","name":"web"},"portName":"http","in":"eth0","out":"cali1"}`
	if d := cmp.Diff(want, text(event("203.0.113.77:40000", "10.244.1.5:8080"), nil)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	masked := strings.Replace(want, "203.0.113.77:40000", "203.0.113.x:40000", 1)
	if d := cmp.Diff(masked, text(event("203.0.113.77:40000", "10.244.1.5:8080"), testMask())); d != "" {
		t.Errorf("masked (-want +got):\n%s", d)
	}
	e := event("[2001:db8:1::77]:40000", "[fd00:10:244:1::5]:8080")
	e.FromPod, e.ToPod, e.HasPorts = policy.Object{Namespace: "ops", Name: "probe"}, policy.Object{}, false
	e.Frontend = netip.MustParseAddrPort("[2001:db8:7::8]:30080") // a node port, of whose address nothing is known
	r := NewDropEventReport(e, device, testMask())
	got := []string{r.From, r.To, r.SentTo, r.FromPod.Namespace + "/" + r.FromPod.Name}
	if want := []string{"2001:db8:1::x", "fd00:10:244:1::5", "[2001:db8:7::x]:30080", "ops/probe"}; !slices.Equal(got, want) || r.ToPod != nil {
		t.Errorf("got %q, to %v, want %q", got, r.ToPod, want)
	}
}
