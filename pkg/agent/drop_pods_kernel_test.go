// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/service"
)

// calicoInterface is what Calico calls that of shop/web-0.
const calicoInterface = "calia4fc3c48bd8"

// podOf are the pods of a node with one, which has an address.
func podOf(name string, addr netip.Addr) *service.Pods {
	return service.NewPods([]*service.Pod{{Name: service.Name{Namespace: "shop", Name: name}, UID: "uid-" + name, IPs: []netip.Addr{addr}}})
}

// TestDropsOfPods: what Calico's rules before a pod refuse is counted by its name, from
// when it is known, and an Event of the pod tells of it.
func TestDropsOfPods(t *testing.T) {
	for _, backend := range []string{"nft", "legacy"} {
		for _, f := range []family{ipv4(), ipv6()} {
			t.Run(backend+" "+f.name, func(t *testing.T) {
				kerneltest.Run(t, func(t *testing.T) { dropsOfPods(t, f, backend) })
			})
		}
	}
}

func dropsOfPods(t *testing.T, f family, backend string) {
	f.load(t, backend)
	f.restore(t, backend, fmt.Sprintf(`*filter
:cali-tw-%[1]s - [0:0]
-A OUTPUT -p udp -m udp --dport %[2]d -j cali-tw-%[1]s
-A cali-tw-%[1]s -m comment --comment "cali:abcdefghijklmnow" -m comment --comment "End of tier default. Drop if no policies passed packet" -j DROP
COMMIT
`, calicoInterface, calicoPort))
	cfg := testConfig()
	cfg.Kube, cfg.Policies, cfg.KubePods, cfg.KubeEvents = KubeAuto, true, true, true
	api := chaosAPI(&f)
	s := apiSampler(t, cfg, api)
	judge := func(when string, all, pod float64) {
		t.Helper()
		s.pass(t.Context())
		m := page(t, s)
		if got := m.sum("svcscope_drop_packets_total", "owner=calico", "reason=policy_default"); got != all {
			t.Errorf("%s: %v packets, want %v", when, got, all)
		}
		if got := m.sum("svcscope_policy_drop_packets_total", "owner=calico", "pod_namespace=shop", "pod_name=web-0", "direction=ingress"); got != pod {
			t.Errorf("%s: %v packets of the pod, want %v", when, got, pod)
		}
	}
	for range 3 {
		s.pass(t.Context())
	}
	send(t, &f, calicoPort, 3)
	judge("before the pod is known", 3, 0)
	api.pods = podOf("web-0", f.endpoints[0].Addr())
	judge("when it is", 3, 0)
	send(t, &f, calicoPort, 5)
	judge("of the pod", 8, 5)
	send(t, &f, calicoPort, 2)
	judge("and more of it", 10, 7)
	want := []string{"uid-web-0 shop/web-0: Packets to this pod dropped by network policies (calico): 5"}
	if d := cmp.Diff(want, api.lost); d != "" {
		t.Errorf("Events (-want +got):\n%s", d)
	}
}
