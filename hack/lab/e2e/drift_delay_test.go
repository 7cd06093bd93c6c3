// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"time"
)

// delays is a histogram's number and sum, by family.
type delays map[string]struct{ n, sum float64 }

// programming are what the agent and kube-proxy have measured so far of how long changes of
// endpoints take into the kernel.
func (s *driftScene) programming() (agent, proxy delays) {
	s.t.Helper()
	of := func(m metrics, name string) delays {
		d := delays{}
		for _, f := range families {
			n, _ := m.sum(name+"_count", map[string]string{"ip_family": f.name})
			sum, _ := m.sum(name+"_sum", map[string]string{"ip_family": f.name})
			d[f.name] = struct{ n, sum float64 }{n, sum}
		}
		return d
	}
	text, err := s.agent.get("10249", "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	m, err := parseMetrics(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return of(s.agent.metrics(), "svcscope_programming_delay_seconds"), of(m, "kubeproxy_network_programming_duration_seconds")
}

// rolling: while endpoints of Services change, more slowly than kube-proxy may sync, nothing
// is told, and each change is measured from the API to the kernel.
func (s *driftScene) rolling(names []string) {
	t := s.t
	t.Helper()
	const every = 2 * time.Second
	changes := 100
	if long() {
		changes = 1000
	}
	agentBefore, proxyBefore := s.programming()
	steps := 0
	pending := 0
	readings := s.quiet("rolling changes", func() {
		steps = s.churn(names, every, time.Duration(changes/len(names)+1)*every)
		s.settle("after rolling changes")
	})
	for _, r := range readings {
		pending += min(1, len(r.Pending))
	}
	done := steps * len(names)
	if done < changes*8/10 {
		t.Errorf("%d changes, want %d", done, changes)
	}
	agent, proxy := s.programming()
	for _, f := range families {
		counted, own := agent[f.name].n-agentBefore[f.name].n, proxy[f.name].n-proxyBefore[f.name].n
		mean := (agent[f.name].sum - agentBefore[f.name].sum) / max(1, counted)
		ownMean := (proxy[f.name].sum - proxyBefore[f.name].sum) / max(1, own)
		t.Logf("%s: %d changes, and all endpoints back: the agent measured %.0f, kube-proxy %.0f", f.name, done, counted, own)
		s.checkDelay(f.name, float64(done), counted, float64(len(names)), mean, ownMean)
		result(t, "%d changes of endpoints of %d Services, %s: svcscope_programming_delay_seconds has %.0f with a mean of %.2f s, kube-proxy's own measure is %.2f s",
			done, len(names), f.name, counted, mean, ownMean)
	}
	result(t, "%d rolling changes of endpoints: no drift in %d readings, of which %d saw kube-proxy at work", done, len(readings), pending)
}

// checkDelay compares what the agent has measured with what was changed, and with what
// kube-proxy says, which counts from a little earlier, when the slice was written. At the end
// each of the Services may have got its last endpoint back in a change more.
func (s *driftScene) checkDelay(family string, changes, counted, services, mean, proxyMean float64) {
	s.t.Helper()
	least := 0.98
	if !long() { // beside other tests kube-proxy may write two changes at once
		least = 0.8
	}
	if counted < least*changes || counted > changes+services {
		s.t.Errorf("%s: %.0f of %.0f changes are measured, want %.0f %% and at most %.0f more", family, counted, changes, 100*least, services)
	}
	// The agent's catalog comes up to a second after the change; x_tables are looked at now and
	// then.
	if mean < proxyMean-0.3 || mean > proxyMean+1 {
		s.t.Errorf("%s: a change took %s by the agent, %s by kube-proxy", family, fmt.Sprintf("%.2f s", mean), fmt.Sprintf("%.2f s", proxyMean))
	}
}
