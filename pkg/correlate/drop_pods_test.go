// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nflog"
	"github.com/svcscope/svcscope/pkg/policy"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// interfaceWeb is what Calico calls the interface of shop/web-0.
const interfaceWeb = "calia4fc3c48bd8"

// somePods are shop/web-0, ops/probe and one in the node's network.
func somePods() *service.Pods {
	pod := func(namespace, name string, host bool, addrs ...string) *service.Pod {
		p := &service.Pod{Name: service.Name{Namespace: namespace, Name: name}, UID: "uid-" + name, HostNetwork: host}
		for _, a := range addrs {
			p.IPs = append(p.IPs, netip.MustParseAddr(a))
		}
		return p
	}
	return service.NewPods([]*service.Pod{
		pod("shop", "web-0", false, "10.244.1.5", "fd00:10:244:1::5"), pod("ops", "probe", false, "10.244.1.9", "172.21.0.9"),
		pod("kube-system", "proxy", true, "192.168.50.1"),
	})
}

func slashed(o policy.Object) string {
	if o == (policy.Object{}) {
		return "-"
	}
	return o.Namespace + "/" + o.Name
}

// TestDropReaderNamesPods by addresses, by connection tracking, and by the interface that
// a chain is named after; and a policy by its hash.
func TestDropReaderNamesPods(t *testing.T) {
	const name = "allow-from-the-other-side-of-the-river-to-the-web"
	const hashed = "DPI0|knp/s_-babdj7FQ2apdlrqyT0kK0zu5ydR1niGhVbeuORo__to-the-web"
	forward := ruleset.Hooks(1 << netfilter.HookForward)
	calico := func(iface string) *policy.Refuser {
		return &policy.Refuser{Owner: policy.Calico, Reason: policy.DefaultDeny, Direction: policy.Ingress, Interface: iface}
	}
	loggers := []FamilyLogger{
		logger(1, "DPI|default", "cali-tw-"+interfaceWeb, forward, calico(interfaceWeb)),
		logger(2, "DPI|default", "cali-tw-"+interfaceWeb, forward, calico(interfaceWeb)),
		logger(2, "DPI|default", "cali-tw-cali0000000000a", forward, calico("cali0000000000a")),
		logger(3, "", "cali-tw-"+interfaceWeb, forward, calico(interfaceWeb)),
		logger(4, "", "KUBE-POD-FW-A", forward, &policy.Refuser{Owner: policy.KubeRouter, Reason: policy.DefaultDeny, Pod: policy.Object{Namespace: "shop", Name: "told"}, Interface: interfaceWeb}),
	}
	in := FlowInputs{Catalog: demoCatalog("10.244.1.5:8080"), Pods: somePods(), Policies: service.NewPolicies([]service.Name{
		{Namespace: "shop", Name: "other"}, {Namespace: "shop", Name: name},
	})}
	packet := func(group uint16, prefix, src, dst string) *nflog.Packet {
		return &nflog.Packet{Family: netfilter.IPv4, Group: group, Hook: netfilter.HookForward, Prefix: []byte(prefix), Payload: payload(tcp, src, dst)}
	}
	const client, vip, web, probe = "10.0.0.9:40000", "10.96.0.10:80", "10.244.1.5:8080", "10.244.1.9:40000"
	toVIP := packet(9, "svcscope:deny", client, vip)
	toVIP.HasFlow, toVIP.Flow = true, *flow(t, tcp, client, vip, web, "", 0, 0)
	answer := packet(9, "svcscope:deny", vip, client)
	answer.HasFlow, answer.Flow = true, toVIP.Flow
	six := packet(9, "svcscope:deny", "[fd00::9]:1", "[fd00:10:244:1::5]:8080")
	six.Family = netfilter.IPv6
	tests := []struct {
		name string
		p    *nflog.Packet
		want string
	}{
		{"to a pod", packet(9, "svcscope:deny", client, web), "- to shop/web-0, before -, policy -"},
		{"from one to another", packet(9, "svcscope:deny", probe, web), "ops/probe to shop/web-0, before -, policy -"},
		{"IPv6", six, "- to shop/web-0, before -, policy -"},
		{"the node", packet(9, "svcscope:deny", "192.168.50.1:1", client), "- to -, before -, policy -"},
		{"who would have answered", toVIP, "- to shop/web-0, before -, policy -"},
		{"the answer", answer, "- to -, before -, policy -"},
		{"no header", &nflog.Packet{Family: netfilter.IPv4, Group: 9, Prefix: []byte("svcscope:deny")}, "- to -, before -, policy -"},
		{"a chain's interface", packet(1, "DPI|default", client, web), "- to shop/web-0, before shop/web-0, policy -"},
		{"one of two chains", packet(2, "DPI|default", client, web), "- to shop/web-0, before -, policy -"},
		{"without a prefix", packet(3, "", client, client), "- to -, before shop/web-0, policy -"},
		{"what the rule tells goes first", packet(4, "", client, client), "- to -, before shop/told, policy -"},
		{"a hash", packet(1, hashed, client, web), "- to shop/web-0, before -, policy shop/" + name},
		{"the hash of nothing", packet(1, strings.Replace(hashed, "0zu5", "0000", 1), client, web), "- to shop/web-0, before -, policy -"},
	}
	brief := func(e *DropEvent) string {
		return fmt.Sprintf("%s to %s, before %s, policy %s", slashed(e.FromPod), slashed(e.ToPod), slashed(e.Pod), slashed(e.Policy))
	}
	r, blind := NewDropReader(loggers, in), NewDropReader(loggers, FlowInputs{Catalog: in.Catalog})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var e DropEvent
			for range 2 { // the second time from memory
				if !r.Read(tt.p, time.Time{}, &e) {
					t.Fatal("it is left out")
				}
				if d := cmp.Diff(tt.want, brief(&e)); d != "" {
					t.Errorf("(-want +got):\n%s", d)
				}
			}
			if blind.Read(tt.p, time.Time{}, &e); e.FromPod != (policy.Object{}) || e.ToPod != (policy.Object{}) || e.Policy != (policy.Object{}) {
				t.Errorf("%s, and nothing is watched", brief(&e))
			}
		})
	}
	var e DropEvent
	if n := testing.AllocsPerRun(100, func() { r.Read(toVIP, time.Time{}, &e) }); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

// calicoRules are those before shop/web-0.
func calicoRules(denied, invalid int) string {
	return fmt.Sprintf(`:FORWARD ACCEPT [0:0]
:cali-tw-%[1]s - [0:0]
[1000:1000] -A FORWARD -j cali-tw-%[1]s
[%[3]d:0] -A cali-tw-%[1]s -m comment --comment "cali:abcdefghijklmnop" -m conntrack --ctstate INVALID -j DROP
[%[2]d:0] -A cali-tw-%[1]s -m comment --comment "cali:abcdefghijklmnow" -m comment --comment "End of tier default. Drop if no policies passed packet" -j DROP
`, interfaceWeb, denied, invalid)
}

// TestDropsOfPods counts by pod from when it is known, each packet once, and not what is
// not a policy's.
func TestDropsOfPods(t *testing.T) {
	s := newDropScene(t)
	want := func(all int, ofPod string) {
		t.Helper()
		s.want(
			"invalid forward calico / "+fmt.Sprint(all),
			"policy_default forward calico / "+fmt.Sprint(all),
		)
		var got []string
		for _, d := range s.drops.Policies() {
			got = append(got, fmt.Sprintf("%s %s %s %d", d.Owner, d.Direction, slashed(d.Pod), d.Packets))
		}
		if d := cmp.Diff(ofPod, strings.Join(got, ", ")); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	}
	for _, n := range []int{5, 5, 8} {
		s.read(calicoRules(n, n))
	}
	want(3, "")
	s.pods = somePods()
	s.read(calicoRules(9, 9)) // of packets of before, too
	want(4, "calico ingress shop/web-0 0")
	s.read(calicoRules(9, 9))
	s.read(calicoRules(16, 16))
	want(11, "calico ingress shop/web-0 7")
	s.pods = service.NewPods(nil) // the pod ends before its rules
	s.read(calicoRules(18, 18))
	s.read(calicoRules(20, 20))
	want(15, "calico ingress shop/web-0 11")
	s.pods = somePods() // another one of that name, whose rules are written anew
	for range 4 {       // values that fell are believed when they stand
		s.read(calicoRules(2, 2))
	}
	want(17, "calico ingress shop/web-0 13")
}
