// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/conntrack"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
	"github.com/svcscope/svcscope/pkg/service"
)

// ipvsCatalog is what hack/capture/ipvs has virtual servers for; the silent pod is on
// another node.
func ipvsCatalog() *service.Catalog {
	name := func(n string, p service.Protocol) service.PortName {
		return service.PortName{Name: service.Name{Namespace: "shop", Name: n}, Port: strings.ToLower(string(p)), Protocol: p}
	}
	pods := func(node string, as ...string) (out []service.Endpoint) {
		for _, a := range as {
			out = append(out, service.Endpoint{Addr: netip.MustParseAddrPort(a), NodeName: node, Ready: true, Serving: true})
		}
		return out
	}
	svc := func(n string, ips []netip.Addr, ports ...service.Port) *service.Service {
		return &service.Service{Name: name(n, "").Name, ClusterIPs: ips, Ports: ports}
	}
	ips := func(as ...string) (out []netip.Addr) {
		for _, a := range as {
			out = append(out, netip.MustParseAddr(a))
		}
		return out
	}
	return &service.Catalog{
		Synced: true,
		Services: []*service.Service{
			svc("dns", ips("10.96.0.11", "fd96::b"), service.Port{Name: "udp", Protocol: service.UDP, Port: 53}),
			svc("silent", ips("10.96.0.12", "fd96::c"), service.Port{Name: "tcp", Protocol: service.TCP, Port: 80}, service.Port{Name: "udp", Protocol: service.UDP, Port: 53}),
			svc("web", ips("10.96.0.10", "fd96::a"), service.Port{Name: "tcp", Protocol: service.TCP, Port: 80, NodePort: 30080}),
		},
		Endpoints: map[service.PortName][]service.Endpoint{
			name("web", service.TCP):    pods("node1", "10.77.1.2:8080", "10.77.2.2:8080", "[fd77:1::2]:8080", "[fd77:2::2]:8080"),
			name("dns", service.UDP):    pods("node1", "10.77.1.2:8080", "[fd77:1::2]:8080"),
			name("silent", service.TCP): pods("node2", "10.77.3.2:8080"),
			name("silent", service.UDP): pods("node2", "10.77.3.2:8080", "[fd77:3::2]:8080"),
		},
		Node: service.Node{Name: "node1"},
	}
}

const ipvsCapture = "../netfilter/conntrack/testdata/ipvs"

// ipvsByConntrack counts what conntrack printed of the same table, by the address
// and port that each entry was sent to.
func ipvsByConntrack(t *testing.T) []ServiceFlows {
	t.Helper()
	frontends := map[string]string{
		"tcp 10.96.0.10 80": "web", "tcp 10.77.5.1 30080": "web", "tcp fd96::a 80": "web", "tcp fd77:5::1 30080": "web",
		"udp 10.96.0.11 53": "dns", "udp fd96::b 53": "dns",
		"tcp 10.96.0.12 80": "silent", "udp 10.96.0.12 53": "silent", "udp fd96::c 53": "silent",
	}
	var out []ServiceFlows
	for _, f := range []Family{netfilter.IPv4, netfilter.IPv6} {
		file := map[Family]string{netfilter.IPv4: "flows.txt", netfilter.IPv6: "flows6.txt"}[f]
		text, err := os.ReadFile(filepath.Join(ipvsCapture, file))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			words := strings.Fields(line)
			value := func(key string) string { // of the original direction, which comes first
				i := slices.IndexFunc(words, func(w string) bool { return strings.HasPrefix(w, key) })
				return strings.TrimPrefix(words[i], key)
			}
			name := frontends[words[2]+" "+value("dst=")+" "+value("dport=")]
			if name == "" {
				continue
			}
			port := service.PortName{Name: service.Name{Namespace: "shop", Name: name}, Port: words[2], Protocol: service.Protocol(strings.ToUpper(words[2]))}
			i := slices.IndexFunc(out, func(s ServiceFlows) bool { return s.Port == port && s.Family == f })
			if i < 0 {
				i, out = len(out), append(out, ServiceFlows{Port: port, Family: f})
			}
			switch row := &out[i]; {
			case strings.Contains(line, "TIME_WAIT"):
				row.Closing++
			case strings.Contains(line, "[UNREPLIED]"):
				row.Unreplied++
				row.UnansweredRemote++
			default:
				row.Replied++
			}
		}
	}
	return out
}

// TestFlowsOfIPVS holds the entries of a kernel with IPVS against conntrack's text.
func TestFlowsOfIPVS(t *testing.T) {
	c := &FlowCounter{}
	// All addresses of Services are the node's own, too: on kube-ipvs0.
	local := []netip.Addr{netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("10.77.5.1"), netip.MustParseAddr("fd77:5::1")}
	c.Begin(FlowInputs{Catalog: ipvsCatalog(), Local: local}, time.Unix(1e9, 0))
	for _, file := range []string{"flows.bin", "flows6.bin"} {
		b, err := os.ReadFile(filepath.Join(ipvsCapture, file))
		if err != nil {
			t.Fatal(err)
		}
		for it := nlattr.Messages(b); it.Next(); {
			var f conntrack.Flow
			if err := f.Decode(it.Message().Payload); err != nil {
				t.Fatal(err)
			}
			c.Add(&f)
		}
	}
	got, want := c.End(), ipvsByConntrack(t)
	byName := cmp.Transformer("byName", func(rows []ServiceFlows) map[string]ServiceFlows {
		m := make(map[string]ServiceFlows)
		for _, r := range rows {
			m[r.Port.String()+" "+r.Family.String()] = r
		}
		return m
	})
	if d := cmp.Diff(want, got.Services, byName); d != "" || len(want) != 7 {
		t.Errorf("%d Services' ports (-conntrack +counted):\n%s", len(want), d)
	}
	if all := got.Owners[OwnerService] + got.Owners[OwnerEndpoint]; got.Entries != 27 || all != 27 || got.Owners[OwnerEndpoint] != 1 {
		t.Errorf("%d entries, owners %v; want 27, one of which to an endpoint without a Service", got.Entries, got.Owners)
	}
}
