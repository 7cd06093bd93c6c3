// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/svcscope/svcscope/hack/lab/labtest"
)

// opened is what was really opened in one family.
type opened struct {
	cluster, external int // connections to web
	udp               int // flows to dns
	refused           int // packets to broken
}

func (o *opened) String() string {
	return fmt.Sprintf("%d by cluster address, %d by node port, %d UDP flows, %d packets refused", o.cluster, o.external, o.udp, o.refused)
}

var families = []struct {
	name, save string
	v6         bool
}{
	{"IPv4", "iptables-save", false},
	{"IPv6", "ip6tables-save", true},
}

// scene is a node with an agent, a Service with three endpoints and a node
// port, a UDP Service, and one without endpoints.
type scene struct {
	t                *testing.T
	lab              *labtest.Lab
	agent            *agent
	web, dns, broken labtest.Service
	total            map[string]*opened // by family
}

func newScene(t *testing.T, backend string, args ...string) *scene {
	t.Helper()
	lab := labtest.Start(t, labtest.Options{Backend: backend, Args: args})
	s := &scene{t: t, lab: lab, total: map[string]*opened{"IPv4": {}, "IPv6": {}}}
	s.web = lab.Expose("web", "--port=80", "--type=NodePort", "--node-port=30080", "--pods=pod1,pod2,pod3")
	s.dns = lab.Expose("dns", "--port=53", "--protocol=UDP", "--pods=pod1,pod2")
	s.broken = lab.Expose("broken", "--port=80", "--pods=none")
	return s
}

// start starts the agent; with these flags it knows the API, or not.
func (s *scene) start(kube bool) {
	s.t.Helper()
	flag := "--kube=never"
	if kube {
		flag = "--kubeconfig=" + s.lab.Info.Kubeconfig
	}
	s.agent = startAgent(s.t, s.lab, "--metrics.endpoints", flag)
	s.settled("the first reading is the baseline")
}

// open opens connections in both families: n or more by cluster address, half
// as many by node port, a few to nowhere.
func (s *scene) open(n int) {
	s.t.Helper()
	for _, f := range families {
		vip, dns, none := s.web.VIP4(), s.dns.VIP4(), s.broken.VIP4()
		if f.v6 {
			vip, dns, none = s.web.VIP6(), s.dns.VIP6(), s.broken.VIP6()
		}
		cluster, external, udp, refused := n+rand.IntN(100), n/2+rand.IntN(100), n/5+rand.IntN(100), 3+rand.IntN(10)
		if r := s.lab.Load("client", vip, cluster); r.Succeeded != cluster {
			s.t.Fatalf("%s: %d of %d connections to %s succeeded: %v", f.name, r.Succeeded, cluster, vip, r.Errors)
		}
		np := s.lab.NodePort(30080, f.v6)
		if r := s.lab.Load("client", np, external); r.Succeeded != external {
			s.t.Fatalf("%s: %d of %d connections to %s succeeded: %v", f.name, r.Succeeded, external, np, r.Errors)
		}
		if r := s.lab.Load("client", dns, udp, "--proto=udp"); r.Succeeded != udp {
			s.t.Fatalf("%s: %d of %d datagrams to %s were answered: %v", f.name, r.Succeeded, udp, dns, r.Errors)
		}
		// A refused client may try again: packets are what the rule counts.
		before := s.refusals(f.save)
		if r := s.lab.Load("client", none, refused); r.Refused != refused {
			s.t.Fatalf("%s: %d of %d connections to %s refused: %v", f.name, r.Refused, refused, none, r.Errors)
		}
		packets := s.refusals(f.save) - before
		if packets < refused {
			s.t.Fatalf("%s: the rule counts %d packets of %d refused connections", f.name, packets, refused)
		}
		o := s.total[f.name]
		o.cluster, o.external, o.udp, o.refused = o.cluster+cluster, o.external+external, o.udp+udp, o.refused+packets
	}
}

// compare says where the agent's numbers differ from what was opened.
func (s *scene) compare() error {
	m := s.agent.metrics()
	for _, f := range families {
		o := s.total[f.name]
		service := func(name string, more ...string) map[string]string {
			l := map[string]string{"service_namespace": "default", "service_name": name, "ip_family": f.name}
			for i := 0; i < len(more); i += 2 {
				l[more[i]] = more[i+1]
			}
			return l
		}
		for _, c := range []struct {
			metric string
			labels map[string]string
			series int
			want   int
		}{
			{"svcscope_service_connections_total", service("web", "via", "cluster"), 1, o.cluster},
			{"svcscope_service_connections_total", service("web", "via", "external"), 1, o.external},
			{"svcscope_service_endpoint_connections_total", service("web"), 3, o.cluster + o.external},
			{"svcscope_service_connections_total", service("dns", "protocol", "UDP", "via", "cluster"), 1, o.udp},
			{"svcscope_service_rejected_packets_total", service("broken", "reason", "no_endpoints"), 1, o.refused},
			{"svcscope_service_connections_total", service("broken"), 0, 0},
		} {
			got, n := m.sum(c.metric, c.labels)
			if n != c.series && c.want > 0 || int(got) != c.want {
				return fmt.Errorf("%s%v is %v in %d series, want %d in %d", c.metric, c.labels, got, n, c.want, c.series)
			}
		}
	}
	return nil
}

// settled waits until the agent has counted all, then sees that it does not
// count on.
func (s *scene) settled(what string) {
	s.t.Helper()
	eventually(s.t, what, s.compare)
	s.agent.samplings(2)
	if err := s.compare(); err != nil {
		s.t.Fatalf("%s: two readings later: %v", what, err)
	}
}

// TestConnections is the main job: the agent's numbers equal what happened.
func TestConnections(t *testing.T) {
	n := 500
	if long() {
		n = 10000
	}
	for _, backend := range []string{"nft", "legacy"} {
		t.Run(backend, func(t *testing.T) {
			s := newScene(t, backend)
			s.start(true)
			prom := startPrometheus(t, s.lab, scraping{})
			s.open(n)
			s.settled("counts equal what was opened")
			s.checkSizes()
			s.checkExposition()
			s.checkAgent(backend)

			s.rewriteDispatch()
			s.settled("counts stand after KUBE-SERVICES was rewritten")
			s.open(n / 5)
			s.settled("and go on from there")

			before := s.total
			s.restart()
			s.open(n / 5)
			s.settled("a new agent counts from 0")
			s.checkIncrease(prom, before)
			result(t, "IPv4 %v, IPv6 %v before the agent's restart, %v and %v after it: every one counted, none twice",
				before["IPv4"], before["IPv6"], s.total["IPv4"], s.total["IPv6"])
		})
	}
}

// refusals is what the rule that refuses broken counts.
func (s *scene) refusals(save string) int {
	s.t.Helper()
	return packets(s.t, s.lab.Exec("node1", save, "-c", "-t", "filter"), `"default/broken has no endpoints"`)
}

// packets adds the packet counters of the rules of iptables-save -c that
// contain a text.
func packets(t *testing.T, rules, text string) int {
	t.Helper()
	total, found := 0, false
	for line := range strings.Lines(rules) {
		if !strings.Contains(line, text) {
			continue
		}
		found = true
		var p, b int
		if _, err := fmt.Sscanf(line, "[%d:%d]", &p, &b); err != nil {
			t.Fatalf("rule %q: %v", line, err)
		}
		total += p
	}
	if !found {
		t.Fatalf("no rule with %q in:\n%s", text, rules)
	}
	return total
}
