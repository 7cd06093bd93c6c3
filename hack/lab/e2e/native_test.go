// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net"
	"regexp"
	"strconv"
	"testing"

	"github.com/svcscope/svcscope/hack/lab/labtest"
)

// TestNativeMode follows the real kube-proxy in its nftables mode: each Service's endpoints in
// the kernel are those of the API as they come and go, and what is refused the tap counts.
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
	none := l.Expose("none", "--port=80", "--pods=none", "--type=NodePort")
	await("none", 0)
	const each = 20
	refused := 0
	eventually(t, "the tap has room for the Service and is asked to count it", func() error {
		for _, to := range []string{none.VIP4(), none.VIP6()} {
			if r := l.Load("client", to, 1); r.Refused != 1 {
				return fmt.Errorf("a connection to no endpoint: %+v", r)
			}
			refused++
		}
		if n, _ := a.metrics().sum("svcscope_drop_packets_total", map[string]string{"service_name": "none"}); n == 0 {
			return fmt.Errorf("none of %d is counted", refused)
		}
		return nil
	})
	counted, since := -1.0, 0.0
	eventually(t, "all of these are counted", func() error {
		m := a.metrics()
		n, _ := m.sum("svcscope_drop_packets_total", map[string]string{"service_name": "none"})
		now, _ := m.sum("svcscope_snapshot_timestamp_seconds", nil)
		if n != counted {
			counted, since = n, now
		}
		if now-since < 3 { // the tap is read every second
			return fmt.Errorf("%v for %v s", n, now-since)
		}
		return nil
	})
	oracle := countSYN(l, none)
	for _, to := range []string{none.VIP4(), none.VIP6(), l.NodePort(none.NodePort, false), l.NodePort(none.NodePort, true)} {
		if r := l.Load("client", to, each); r.Refused != each {
			t.Errorf("%d connections to no endpoint at %s: %+v", each, to, r)
		}
	}
	sent := oracle()
	if sent < 4*each {
		t.Errorf("%d packets were sent, at least %d are wanted", sent, 4*each)
	}
	eventually(t, "each refused packet is counted once", func() error {
		n, _ := a.metrics().sum("svcscope_drop_packets_total", map[string]string{"service_name": "none", "reason": "no_endpoints", "owner": "kube-proxy"})
		if n-counted != float64(sent) {
			return fmt.Errorf("%v, want %d", n-counted, sent)
		}
		return nil
	})
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
	result(t, "kube-proxy's nftables mode: endpoints in the kernel as the API wants them after each of %d changes in both families; "+
		"%d packets refused by cluster address and node port, each counted once by the tap", changes, sent)
}

// countSYN has the node count the first packets of connections to a Service's addresses, of
// which one that is refused may send a second, and returns how to read the count.
func countSYN(l *labtest.Lab, to labtest.Service) func() int {
	host := func(addr string) string { h, _, _ := net.SplitHostPort(addr); return h }
	rules := fmt.Sprintf(`table inet oracle {
	chain c {
		type filter hook prerouting priority -150;
		tcp flags syn / syn,ack ip daddr %s tcp dport 80 counter
		tcp flags syn / syn,ack ip6 daddr %s tcp dport 80 counter
		tcp flags syn / syn,ack tcp dport %d counter
	}
}`, host(to.VIP4()), host(to.VIP6()), to.NodePort)
	l.Exec("node1", "sh", "-c", "echo '"+rules+"' | nft -f -")
	return func() (sum int) {
		for _, m := range regexp.MustCompile(`counter packets (\d+)`).FindAllStringSubmatch(l.Exec("node1", "nft", "list", "table", "inet", "oracle"), -1) {
			n, _ := strconv.Atoi(m[1])
			sum += n
		}
		return sum
	}
}
