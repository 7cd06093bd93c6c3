// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"time"
)

// silence is after how long an agent notices that a watch is dead which no packet ends:
// kube.pingAfter and pingTimeout.
const silence = 10 * time.Second

// cutOff: while no packet comes from the API server, nothing is told but that of Services
// nothing is known; nor when it is back.
func (s *driftScene) cutOff(what string, rolled []string, proxyToo bool) {
	t := s.t
	t.Helper()
	during := 30 * time.Second
	if long() {
		during = 5 * time.Minute
	}
	var noticed, back time.Duration
	readings := s.quiet(what+" without the API", func() {
		churn := s.startChurn(rolled[1:], 2*time.Second)
		time.Sleep(3 * time.Second) // so that the changes are under way
		start := time.Now()
		s.cut(proxyToo)
		// Of this one the agent has heard nothing for long, and kube-proxy may write it at once.
		s.lab.Expose(rolled[0], "--port=80", "--pods=pod1", "--wait=false")
		r := s.watch.awaitReading(t, patience, "the agent knows that it is without the API", start, func(r *driftReport) error {
			if r.Unknown != "api" {
				return fmt.Errorf("unknown: %q", r.Unknown)
			}
			return nil
		})
		noticed = r.Time.Sub(start)
		mark := s.watch.mark()
		time.Sleep(time.Until(start.Add(during)))
		for _, r := range s.watch.since(mark) {
			if r.Unknown != "api" {
				t.Errorf("unknown is %q %v after the cut", r.Unknown, r.Time.Sub(start))
			}
		}
		if v, _ := s.agent.metrics().sum("svcscope_drifting_services", nil); v != 0 {
			t.Errorf("svcscope_drifting_services is %v without the API", v)
		}
		s.lab.Exec("control", "nft", "delete table inet cut")
		healed := time.Now()
		r = s.watch.awaitReading(t, 2*patience, "the agent is back at the API", healed, func(r *driftReport) error {
			if r.Unknown != "" {
				return fmt.Errorf("unknown: %q", r.Unknown)
			}
			return nil
		})
		back = r.Time.Sub(healed)
		time.Sleep(s.grace + 2*s.interval) // changes go on, and what differed at first would be told now
		stopChurn(t, churn)
		s.lab.Expose(rolled[0], "--port=80", "--pods=pod1,pod2,pod3")
		s.settle("after the API was away")
	}, "api")
	if noticed > silence+2*s.interval+busy {
		t.Errorf("the agent knows after %v that it is without the API, want at most %v and what it takes to read", noticed, silence)
	}
	s.checkCommand(nil)
	result(t, "%s without the API for %v under changes: unknown after %.1f s, judged again %.1f s after its end, no drift in %d readings",
		what, during, noticed.Seconds(), back.Seconds(), len(readings))
}

// cut has the packets between the API server and the agent vanish, which has an address of
// the server for itself, and those of kube-proxy, too.
func (s *driftScene) cut(proxyToo bool) {
	s.t.Helper()
	node := s.lab.Info.Nodes[0]
	in, out := "ip6 saddr "+node.IPv6[0]+" tcp dport 6443 drop\n", "ip6 daddr "+node.IPv6[0]+" tcp sport 6443 drop\n"
	if proxyToo {
		in += "ip saddr " + node.IPv4[0] + " tcp dport 6443 drop\n"
		out += "ip daddr " + node.IPv4[0] + " tcp sport 6443 drop\n"
	}
	s.lab.Exec("control", "nft", "table inet cut {\nchain in { type filter hook input priority 0;\n"+in+"}\nchain out { type filter hook output priority 0;\n"+out+"}\n}")
}
