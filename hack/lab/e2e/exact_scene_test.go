// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/svcscope/svcscope/hack/lab/labtest"
)

// needRoot skips what only the host's root can do: kube-proxy's iptables-nft
// writes more than a few hundred Services at once only outside of user
// namespaces.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	const why = "labs with thousands of Services need root"
	if os.Getenv("SVCSCOPE_REQUIRE_LAB") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// churned is a node on which endpoints of one Service change every second,
// and those of a Service without traffic too, while connections are opened at
// constant rates to it, to another Service and to one without endpoints.
type churned struct {
	t                       *testing.T
	lab                     *labtest.Lab
	fillers                 int
	changing, other, broken labtest.Service
	churn                   *labtest.Process
	loads                   []*flow
	most                    int // connections of each load
}

// flow is one constant load, and what became of it.
type flow struct {
	service, family, via, to string
	rate                     int
	process                  *labtest.Process
	// opened were answered; syn left the client, as a rule there counts.
	opened, syn int
}

// newChurned brings the node up. With many fillers it is one of the host's root:
// in a user namespace kube-proxy's socket has too little memory to write them, in
// nf_tables in one message a table.
func newChurned(t *testing.T, backend string, fillers int, proxyArgs ...string) *churned {
	t.Helper()
	most := 100
	if backend == "nft" {
		most = 50
	}
	args := []string{fmt.Sprintf("--services=%d", fillers)}
	if fillers > most {
		needRoot(t)
		args = append(args, "--userns=false")
	}
	for _, a := range proxyArgs {
		args = append(args, "--proxy-arg="+a)
	}
	s := &churned{t: t, fillers: fillers, lab: labtest.Start(t, labtest.Options{Backend: backend, Pods: 4, Args: args})}
	s.changing = s.lab.Expose("changing", "--port=80", "--type=NodePort", "--node-port=30081", "--pods=pod1,pod2,pod3")
	s.other = s.lab.Expose("other", "--port=80", "--type=NodePort", "--node-port=30082", "--pods=pod2,pod3,pod4")
	s.broken = s.lab.Expose("broken", "--port=80", "--pods=none")
	return s
}

// startChurn changes the endpoints of changing and of a filler every second.
func (s *churned) startChurn() {
	s.t.Helper()
	s.churn = s.lab.StartChurn("changing", "--pods=pod1,pod2,pod3", fmt.Sprintf("--fillers=%d", s.fillers))
}

func (s *churned) stopChurn() {
	s.t.Helper()
	if err := s.churn.Stop(); err != nil {
		s.t.Fatalf("lab churn: %v: %s", err, s.churn.Output())
	}
}

// startLoads opens rate connections a second to each address of changing and
// other, and a tenth of it to broken, after rules in the client's namespace
// that count the SYNs. Each load opens at most so many: it holds that many source
// ports until then, of some 79,000 that the client has.
func (s *churned) startLoads(rate, most int) {
	s.t.Helper()
	s.loads, s.most = nil, most
	for _, f := range families {
		for name, svc := range map[string]labtest.Service{"changing": s.changing, "other": s.other} {
			vip := svc.VIP4()
			if f.v6 {
				vip = svc.VIP6()
			}
			s.loads = append(s.loads,
				&flow{service: name, family: f.name, via: "cluster", to: vip, rate: rate},
				&flow{service: name, family: f.name, via: "external", to: s.lab.NodePort(svc.NodePort, f.v6), rate: max(1, rate/2)})
		}
		to := s.broken.VIP4()
		if f.v6 {
			to = s.broken.VIP6()
		}
		s.loads = append(s.loads, &flow{service: "broken", family: f.name, via: "refused", to: to, rate: max(1, rate/5)})
	}
	var rules strings.Builder
	rules.WriteString("table inet sent {\nchain output { type filter hook output priority 0;\n")
	for i, l := range s.loads {
		host, port, v6 := splitAddress(s.t, l.to)
		family := "ip"
		if v6 {
			family = "ip6"
		}
		fmt.Fprintf(&rules, "%s daddr %s tcp dport %s tcp flags & (syn | ack) == syn counter comment \"%d\"\n", family, host, port, i)
	}
	s.lab.Exec("client", "nft", rules.String()+"}\n}\n")
	for _, l := range s.loads {
		l.process = s.lab.StartConstantLoad("client", l.to, l.rate, "-n", strconv.Itoa(most))
	}
}

func splitAddress(t *testing.T, to string) (host, port string, v6 bool) {
	t.Helper()
	i := strings.LastIndexByte(to, ':')
	if i < 0 {
		t.Fatalf("address %q", to)
	}
	return strings.Trim(to[:i], "[]"), to[i+1:], to[0] == '['
}

// stopLoads ends the loads and says of each what was opened.
func (s *churned) stopLoads() {
	s.t.Helper()
	done := make([]labtest.Result, len(s.loads))
	for i, l := range s.loads {
		done[i] = l.process.Finish(s.t)
	}
	syn := s.syns()
	for i, l := range s.loads {
		r := done[i]
		l.opened, l.syn = r.Succeeded, syn[i]
		if l.via == "refused" {
			l.opened = r.Refused
		}
		if l.opened != r.Connections || r.Connections == 0 {
			s.t.Errorf("%s %s %s: of %d connections %d became what they should: %v", l.service, l.family, l.via, r.Connections, l.opened, r.Errors)
		}
		if r.Connections >= s.most {
			s.t.Errorf("%s %s %s: the load ended before the changes did", l.service, l.family, l.via)
		}
		if l.via != "refused" && l.syn != l.opened {
			s.t.Logf("%s %s %s: %d connections with %d SYNs", l.service, l.family, l.via, l.opened, l.syn)
		}
	}
	s.lab.Exec("client", "nft", "delete table inet sent")
}

// syns reads the client's counters, by load.
func (s *churned) syns() map[int]int {
	s.t.Helper()
	var listing struct {
		Nftables []struct {
			Rule *struct {
				Comment string
				Expr    []struct{ Counter *struct{ Packets int } }
			}
		}
	}
	if err := json.Unmarshal([]byte(s.lab.Exec("client", "nft", "-j", "list", "table", "inet", "sent")), &listing); err != nil {
		s.t.Fatal(err)
	}
	out := map[int]int{}
	for _, o := range listing.Nftables {
		if o.Rule == nil {
			continue
		}
		i, err := strconv.Atoi(o.Rule.Comment)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, e := range o.Rule.Expr {
			if e.Counter != nil {
				out[i] = e.Counter.Packets
			}
		}
	}
	if len(out) != len(s.loads) {
		s.t.Fatalf("%d counters for %d loads", len(out), len(s.loads))
	}
	return out
}

// waitSyncs returns when kube-proxy has written each family n times more than
// it had at the count before.
func (s *churned) waitSyncs(before map[string]int, n int) {
	s.t.Helper()
	poll(s.t, s.patience(n), fmt.Sprintf("%d syncs", n), func() error {
		now := s.syncs()
		for _, f := range families {
			if got := now[f.name] - before[f.name]; got < n {
				return fmt.Errorf("%s: %d of %d", f.name, got, n)
			}
		}
		return nil
	})
}

// syncs is the number of rewrites so far, by family, as kube-proxy's metrics
// tell it.
func (s *churned) syncs() map[string]int {
	s.t.Helper()
	text, err := (&agent{t: s.t, lab: s.lab}).get("10249", "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	m, err := parseMetrics(text)
	if err != nil {
		s.t.Fatal(err)
	}
	out := map[string]int{}
	for _, f := range families {
		n, _ := m.sum("kubeproxy_sync_proxy_rules_duration_seconds_count", map[string]string{"ip_family": f.name})
		out[f.name] = int(n)
	}
	return out
}
