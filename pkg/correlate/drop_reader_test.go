// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nflog"
	"github.com/svcscope/svcscope/pkg/policy"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// payload is the headers of a packet.
func payload(protocol uint8, src, dst string) []byte {
	from, to := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	var b []byte
	if from.Addr().Is4() {
		b = append([]byte{0x45, 0, 0, 60, 0, 0, 0, 0, 64, protocol, 0, 0}, from.Addr().AsSlice()...)
	} else {
		b = append([]byte{0x60, 0, 0, 0, 0, 20, protocol, 64}, from.Addr().AsSlice()...)
	}
	b = append(b, to.Addr().AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, from.Port())
	b = binary.BigEndian.AppendUint16(b, to.Port())
	return append(b, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0, 0)
}

func logger(group uint16, prefix, chain string, hooks ruleset.Hooks, f *policy.Refuser) FamilyLogger {
	l := FamilyLogger{Family: netfilter.IPv4, Logger: policy.Logger{Group: group, Prefix: prefix, Table: "filter", Chain: chain, Hooks: hooks}}
	if f != nil {
		l.Refuses, l.Refuser = true, *f
	}
	return l
}

// TestDropReader reads what is known of packets from their prefix, from the rules
// that may have logged them, and from their addresses.
func TestDropReader(t *testing.T) {
	const forward, input = ruleset.Hooks(1 << netfilter.HookForward), ruleset.Hooks(1 << netfilter.HookInput)
	pod := func(name string) *policy.Refuser {
		return &policy.Refuser{Owner: policy.KubeRouter, Reason: policy.DefaultDeny, Pod: policy.Object{Namespace: "shop", Name: name}}
	}
	mine := &policy.Refuser{Owner: policy.Other, Reason: policy.ByRule}
	loggers := []FamilyLogger{
		logger(100, "", "KUBE-POD-FW-A", forward, pod("web-0")),
		logger(101, "", "KUBE-POD-FW-A", forward, pod("web-0")), logger(101, "", "KUBE-POD-FW-B", forward, pod("web-1")),
		logger(102, "", "KUBE-POD-FW-A", forward, pod("web-0")), logger(102, "", "mine", forward, mine), logger(102, "", "mine", input, mine),
		logger(103, "", "mine", forward, nil), logger(103, "", "KUBE-POD-FW-A", forward, pod("web-0")),
	}
	r := NewDropReader(loggers, FlowInputs{Catalog: demoCatalog("10.244.1.5:8080")})
	packet := func(group uint16, hook netfilter.Hook, prefix string, b []byte) *nflog.Packet {
		f := netfilter.IPv4
		if len(b) > 0 && b[0]>>4 == 6 {
			f = netfilter.IPv6
		}
		return &nflog.Packet{Family: f, Group: group, Hook: hook, Prefix: []byte(prefix), Payload: b}
	}
	toPod := payload(tcp, "10.244.2.9:40000", "10.244.1.5:8080")
	toVIP := payload(udp, "10.244.2.9:40000", "10.96.0.11:53")
	withFlow := packet(100, netfilter.HookForward, "", toPod)
	withFlow.HasFlow, withFlow.Flow = true, *flow(t, tcp, "10.244.2.9:40000", "10.96.0.10:80", "10.244.1.5:8080", "", 0, 0)
	reply := packet(100, netfilter.HookForward, "", payload(tcp, "10.244.1.5:8080", "10.244.2.9:40000"))
	reply.HasFlow, reply.Flow = true, withFlow.Flow
	tests := []struct {
		name string
		p    *nflog.Packet
		want string
	}{
		{"one rule", packet(100, netfilter.HookForward, "", toPod), "forward refused kube-router policy_default pod {shop web-0} policy { } of KUBE-POD-FW-A; no Service"},
		{"one of two pods", packet(101, netfilter.HookForward, "", toPod), "forward refused kube-router policy_default pod { } policy { } of ; no Service"},
		{"one of two owners", packet(102, netfilter.HookForward, "", toPod), "forward refused other rule pod { } policy { } of ; no Service"},
		{"by the hook", packet(102, netfilter.HookInput, "", toPod), "input refused other rule pod { } policy { } of mine; no Service"},
		{"perhaps refused", packet(103, netfilter.HookForward, "", toPod), "forward logged other rule pod { } policy { } of ; no Service"},
		{"no rule is known", packet(104, netfilter.HookForward, "x", toPod), "forward logged other rule pod { } policy { } of ; no Service"},
		{"k3s", packet(100, netfilter.HookForward, "DROP by policy shop/strict", toPod), "forward refused kube-router policy_default pod { } policy {shop strict} of ; no Service"},
		{"Calico, a policy", packet(1, netfilter.HookForward, "DPI0|knp/shop/knp.default.strict", toPod), "forward refused calico policy_rule ingress pod { } policy {shop strict} of ; no Service"},
		{"Calico, end of tier", packet(2, netfilter.HookForward, "DPE|default", toPod), "forward refused calico policy_default egress pod { } policy { } of ; no Service"},
		{"Calico, no profile", packet(1, netfilter.HookForward, "DRI", toPod), "forward refused calico no_profile ingress pod { } policy { } of ; no Service"},
		{"Calico lets it pass", packet(1, netfilter.HookForward, "API0|knp/shop/knp.default.strict", toPod), "left"},
		{"Calico, the next tier", packet(1, netfilter.HookForward, "PPI|security", toPod), "left"},
		{"own words", packet(9, netfilter.HookInput, "svcscope:deny:no telnet", toPod), "input refused other rule pod { } policy { no telnet} of ; no Service"},
		{"own words, a policy", packet(9, netfilter.HookInput, "svcscope:deny:ingress:shop/strict", toPod), "input refused other policy_rule ingress pod { } policy {shop strict} of ; no Service"},
		{"to a Service's address", packet(100, netfilter.HookForward, "", toVIP), "forward refused kube-router policy_default pod {shop web-0} policy { } of KUBE-POD-FW-A; kube-system/dns by 10.96.0.11:53"},
		{"the Service by connection tracking", withFlow, "forward refused kube-router policy_default pod {shop web-0} policy { } of KUBE-POD-FW-A; shop/web:http by 10.96.0.10:80"},
		{"and of the answer", reply, "forward refused kube-router policy_default pod {shop web-0} policy { } of KUBE-POD-FW-A; shop/web:http by 10.96.0.10:80"},
		{"IPv6", packet(9, netfilter.HookInput, "svcscope:deny", payload(tcp, "[fd00::9]:40000", "[fd00:10:96::a]:80")), "input refused other rule pod { } policy { } of ; shop/web:http by [fd00:10:96::a]:80"},
		{"node port", packet(9, netfilter.HookInput, "svcscope:deny", payload(tcp, "10.0.0.9:40000", "192.168.50.1:30080")), "input refused other rule pod { } policy { } of ; shop/web:http by 192.168.50.1:30080"},
		{"another host's port of that number", packet(9, netfilter.HookInput, "svcscope:deny", payload(tcp, "10.0.0.9:40000", "10.0.0.8:30080")), "input refused other rule pod { } policy { } of ; no Service"},
		{"no header", packet(9, netfilter.HookInput, "svcscope:deny", nil), "input refused other rule pod { } policy { } of ; no Service"},
	}
	now := time.Unix(1000, 0)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for range 2 { // the second time from memory
				var e DropEvent
				got := "left"
				if r.Read(tt.p, now, &e) {
					got = e.brief()
				}
				if d := cmp.Diff(tt.want, got); d != "" {
					t.Errorf("(-want +got):\n%s", d)
				}
				if got != "left" && !e.Time.Equal(now) {
					t.Errorf("at %v, want %v", e.Time, now)
				}
			}
		})
	}
	withFlow.Time = 5e6
	var e DropEvent
	if r.Read(withFlow, now, &e); e.Time.Unix() != 5 || e.Src.String() != "10.244.2.9:40000" || e.Dst.String() != "10.244.1.5:8080" {
		t.Errorf("got %+v", e)
	}
	if n := testing.AllocsPerRun(100, func() { r.Read(withFlow, now, &e) }); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

// TestDropReaderWithoutNodeAddresses: where it is not known which addresses are the node's, a port
// of a pod that has the number of a node port is not one.
func TestDropReaderWithoutNodeAddresses(t *testing.T) {
	c := demoCatalog("10.244.1.5:8080")
	c.Node.IPs = nil
	r := NewDropReader(nil, FlowInputs{Catalog: c})
	for _, tt := range []struct{ to, want string }{
		{"10.244.1.5:30080", ""},
		{"192.168.50.1:30080", ""},
		{"127.0.0.1:30080", "shop/web"},
		{"10.96.0.10:80", "shop/web"},
	} {
		p := &nflog.Packet{Family: netfilter.IPv4, Group: 9, Hook: netfilter.HookForward, Prefix: []byte("svcscope:deny"), Payload: payload(tcp, "10.0.0.9:40000", tt.to)}
		var e DropEvent
		if !r.Read(p, time.Unix(1000, 0), &e) {
			t.Fatalf("%s is left", tt.to)
		}
		if got := e.HasService(); got != (tt.want != "") || got && e.Service.Name.String() != tt.want {
			t.Errorf("%s: Service %q, want %q", tt.to, e.Service.Name, tt.want)
		}
	}
}

// brief is what a test compares.
func (e *DropEvent) brief() string {
	s := e.Hook + " logged"
	if e.Refused {
		s = e.Hook + " refused"
	}
	s += fmt.Sprintf(" %s %s", e.Owner, e.Reason)
	if e.Direction != "" {
		s += " " + string(e.Direction)
	}
	s += fmt.Sprintf(" pod %v policy %v of %s; ", e.Pod, e.Policy, e.Chain)
	if !e.HasService() {
		return s + "no Service"
	}
	s += e.Service.Name.String()
	if e.Service.Port != "" {
		s += ":" + e.Service.Port
	}
	return s + " by " + e.Frontend.String()
}

// TestDropReaderIsBounded reads packets of prefixes without end.
func TestDropReaderIsBounded(t *testing.T) {
	r := NewDropReader(nil, FlowInputs{})
	var e DropEvent
	for i := range 2 * maxShapes {
		if !r.Read(&nflog.Packet{Prefix: fmt.Appendf(nil, "p%d", i)}, time.Time{}, &e) || e.Prefix != fmt.Sprintf("p%d", i) {
			t.Fatalf("got %+v", e)
		}
	}
	if len(r.shapes) != maxShapes {
		t.Errorf("%d shapes are remembered", len(r.shapes))
	}
}
