// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/kernel"
)

// loadLogged adds rules that log what the next one refuses: kube-router's of a pod,
// which names nothing in the log, and one of somebody toward ghost.
func loadLogged(t *testing.T, f *family, backend string) {
	t.Helper()
	f.restore(t, backend, fmt.Sprintf(`*filter
:KUBE-POD-FW-AAAAAAAAAAAAAAAA - [0:0]
-A OUTPUT -p udp -m udp --dport %[1]d -j KUBE-POD-FW-AAAAAAAAAAAAAAAA
-A KUBE-POD-FW-AAAAAAAAAAAAAAAA -m comment --comment "shop/web-0 log-drop" -m mark ! --mark 0x10000/0x10000 -m limit --limit 1000/second --limit-burst 1000 -j NFLOG --nflog-group 100
-A KUBE-POD-FW-AAAAAAAAAAAAAAAA -m comment --comment "shop/web-0 reject" -m mark ! --mark 0x10000/0x10000 -j REJECT
-I OUTPUT -d %[2]s -p udp -m udp --dport %[3]d -j NFLOG --nflog-group 100 --nflog-prefix "svcscope:deny:nobody is there"
COMMIT
`, podPort, f.ghost, vipPort))
}

// TestLoggedDropsAreTold: what rules log of packets that they refuse, toward which
// pod or Service, and the group is free again when the agent has ended.
func TestLoggedDropsAreTold(t *testing.T) {
	for _, backend := range []string{"nft", "legacy"} {
		for _, f := range []family{ipv4(), ipv6()} {
			t.Run(backend+" "+f.name, func(t *testing.T) {
				kerneltest.Run(t, func(t *testing.T) { loggedDrops(t, f, backend) })
			})
		}
	}
}

func loggedDrops(t *testing.T, f family, backend string) {
	f.load(t, backend)
	f.restore(t, backend, f.chaosRules(""))
	loadLogged(t, &f, backend)
	cfg := testConfig()
	cfg.Kube, cfg.NFLOGGroup = KubeAuto, "100"
	api := chaosAPI(&f)
	api.pods = podOf("sender", f.node)
	s := apiSampler(t, cfg, api)
	for range 3 {
		s.pass(t.Context())
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.groups.run(ctx, s.dropInputs)
	}()
	until := func(what string, holds func(correlate.LogGroup) bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			if all := s.groups.states(); len(all) == 1 && holds(all[0]) {
				return
			} else if time.Now().After(end) {
				t.Fatalf("%s: %+v", what, all)
			}
		}
	}
	until("not bound", func(g correlate.LogGroup) bool { return g.Read() })
	const toPod, toGhost = 5, 3
	send(t, &f, podPort, toPod)
	refuse(t, f, toGhost)
	until("not received", func(g correlate.LogGroup) bool { return g.Packets == toPod+toGhost })
	deadline := time.Now().Add(10 * time.Second)
	for s.groups.events.newest(0) < toPod+toGhost && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond) // they are counted before they are kept
	}
	s.pass(t.Context())
	m := page(t, s)
	for _, w := range []struct {
		name   string
		labels []string
		want   float64
	}{
		{"svcscope_drop_witnessed_packets_total", []string{"source=nflog", "reason=policy_default", "service_name="}, toPod},
		{"svcscope_drop_witnessed_packets_total", []string{"source=nflog", "reason=rule", "service_namespace=shop", "service_name=ghost"}, toGhost},
		{"svcscope_drop_witnessed_packets_total", nil, toPod + toGhost},
		{"svcscope_drop_packets_total", nil, toPod + toGhost},
		{"svcscope_nflog_packets_total", []string{"group=100"}, toPod + toGhost},
		{"svcscope_nflog_lost_packets_total", []string{"group=100"}, 0},
		{"svcscope_nflog_group_bound", []string{"group=100"}, 1},
		{"svcscope_collector_success", []string{"collector=nflog"}, 1},
	} {
		if got := m.sum(w.name, w.labels...); got != w.want {
			t.Errorf("%s%v: %v, want %v", w.name, w.labels, got, w.want)
		}
	}
	events, _, _, _ := s.groups.events.after(0, 100)
	of := netip.AddrPortFrom(f.ghost, vipPort).String()
	for i := range events {
		d := s.dropReport(&events[i])
		device := "lo"
		if d.Service != nil { // by the scene's route to Services
			device = "d0"
		}
		switch {
		case d.Hook != "output" || !d.Refused || d.Protocol != "UDP" || d.Out != device:
			t.Errorf("got %+v", d)
		case d.Service != nil:
			if d.Service.Name != "ghost" || d.SentTo != of || d.To != of || d.Prefix != "svcscope:deny:nobody is there" || d.Chain != "OUTPUT" {
				t.Errorf("got %+v toward ghost", d)
			}
		case d.Pod == nil || *d.Pod != (correlate.ObjectReport{Namespace: "shop", Name: "web-0"}) || d.Owner != "kube-router" || d.To != net.JoinHostPort(f.node.String(), fmt.Sprint(podPort)):
			t.Errorf("got %+v toward the pod", d)
		case d.FromPod == nil || d.FromPod.Name != "sender" || d.ToPod == nil || d.ToPod.Name != "sender":
			t.Errorf("from %+v to %+v, want the pod of that address", d.FromPod, d.ToPod)
		}
	}
	stop()
	<-done
	if all, err := kernel.LogGroups(); err != nil || len(all) != 0 {
		t.Errorf("%v, %v: still bound", all, err)
	}
}
