// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"testing"

	"github.com/svcscope/svcscope/hack/lab/labtest"
)

// TestNativeMode follows the real kube-proxy in its nftables mode: each Service's endpoints in
// the kernel are those of the API as they come and go. What is refused is TestDrops'.
func TestNativeMode(t *testing.T) {
	t.Parallel()
	l := labtest.Start(t, labtest.Options{ProxyMode: "nftables", Scene: "demo"})
	a := startAgent(t, l, "--tap", "--kubeconfig="+l.Info.Kubeconfig)
	endpoints := func(name, family, source string) float64 {
		n, _ := a.metrics().sum("svcscope_service_endpoints", map[string]string{"service_name": name, "ip_family": family, "source": source})
		return n
	}
	await := func(name string, want float64) {
		t.Helper()
		for _, family := range []string{"IPv4", "IPv6"} {
			eventually(t, fmt.Sprintf("%s has %v endpoints of %s in the kernel", name, want, family), func() error {
				if kernel, api := endpoints(name, family, "kernel"), endpoints(name, family, "api"); kernel != want || api != want {
					return fmt.Errorf("%v in the kernel, %v in the API", kernel, api)
				}
				return nil
			})
		}
	}
	changes := 0
	for _, pods := range []string{"pod1,pod2,pod3", "pod2", "pod1,pod3", "pod3,pod2"} {
		l.Expose("web", "--port=80", "--port-name=http", "--pods="+pods, "--type=NodePort")
		await("web", float64(1+(len(pods)-len("pod1"))/len(",pod1")))
		changes++
	}
	m := a.metrics()
	for _, w := range []struct {
		name   string
		labels map[string]string
	}{
		{"svcscope_node_info", map[string]string{"proxy_mode": "nftables"}},
		{"svcscope_counting_method", map[string]string{"what": "refusals", "method": "tap"}},
		{"svcscope_counting_method", map[string]string{"what": "connections", "method": "none"}},
	} {
		if n, _ := m.sum(w.name, w.labels); n != 1 {
			t.Errorf("%s%v: %v", w.name, w.labels, n)
		}
	}
	if n, _ := m.sum("svcscope_undecoded_total", nil); n != 0 {
		t.Errorf("svcscope_undecoded_total: %v, want nothing", n)
	}
	result(t, "kube-proxy's nftables mode: endpoints in the kernel as the API wants them after each of %d changes in both families", changes)
}
