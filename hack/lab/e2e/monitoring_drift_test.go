// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"

	"github.com/svcscope/svcscope/hack/lab/labtest"
)

// driftFaults are those of rules that are not what the API wants.
func driftFaults() map[string]fault {
	return map[string]fault{
		// kube-proxy hangs for so long that the agent says so.
		"proxy_stands": {begin: proxyStands, ready: func(m *monitored) { m.awaitDrift("svcscope_node_drift", "not_syncing") }, end: proxyIsLate},
		// Endpoints come and go, which kube-proxy writes.
		"endpoints_change": {
			begin: func(m *monitored) {
				m.lab.Expose("moving", "--port=80", "--pods=pod1,pod2")
				m.busy["endpoints_change"] = []*labtest.Process{m.lab.StartChurn("moving")}
			},
			end: func(m *monitored) {
				if err := m.busy["endpoints_change"][0].Stop(); err != nil {
					m.t.Errorf("lab churn: %v", err)
				}
				delete(m.busy, "endpoints_change")
				m.lab.Unexpose("moving")
			},
		},
		// Somebody removes a jump to kube-proxy's chains.
		"jumps_missing": {
			begin: func(m *monitored) {
				m.sh("iptables -t nat -D PREROUTING " + jumpToServices)
				m.awaitDrift("svcscope_node_drift", "jump_missing")
			},
			end: func(m *monitored) { m.sh("iptables -t nat -I PREROUTING " + jumpToServices) },
		},
		// Somebody puts a rule above the jump.
		"rules_shadowed": {
			begin: func(m *monitored) {
				m.sh("iptables -t nat -I OUTPUT " + shadow)
				m.awaitDrift("svcscope_node_drift", "jump_shadowed")
			},
			end: func(m *monitored) { m.sh("iptables -t nat -D OUTPUT " + shadow) },
		},
		// All rules are in the other backend, too.
		"two_rulesets": {
			begin: func(m *monitored) {
				m.sh("iptables-save -t nat | iptables-legacy-restore")
				m.awaitDrift("svcscope_node_drift", "two_backends")
			},
			end: func(m *monitored) { m.sh("iptables-legacy -t nat -F; iptables-legacy -t nat -X") },
		},
		// Somebody empties a chain of a Service.
		"rules_edited": {
			begin: func(m *monitored) {
				m.lab.Expose("edited", "--port=80", "--pods=pod1,pod2")
				m.sh("iptables -t nat -F " + chainOf("edited cluster IP"))
				m.awaitDrift("svcscope_service_drift", "empty_chain")
			},
			end: func(m *monitored) { m.lab.Unexpose("edited") },
		},
		// Somebody opens a load balancer to all sources.
		"ranges_lost": {
			begin: func(m *monitored) {
				m.lab.Expose("ranges", "--port=80", "--type=LoadBalancer", "--load-balancer-ip=198.51.100.7", "--source-range=192.168.50.0/24", "--ip-families=v4")
				// An edit before the agent has read what was written may be kube-proxy's for two minutes.
				eventually(m.t, "the agent has read the Service's rules", func() error {
					if n, _ := m.agent.metrics().sum("svcscope_service_rules", map[string]string{"service_name": "ranges"}); n == 0 {
						return errors.New("it has not")
					}
					return nil
				})
				m.sh("fw=" + chainOf("ranges loadbalancer IP") + "; iptables -t nat -I $fw -j KUBE-EXT-${fw#KUBE-FW-}")
				m.awaitDrift("svcscope_service_drift", "source_ranges_missing")
			},
			end: func(m *monitored) { m.lab.Unexpose("ranges") },
		},
		// kube-proxy has written a change of endpoints late, when it had stood.
		"programming_slow": {begin: func(*monitored) {}, end: func(*monitored) {}},
	}
}

const (
	jumpToServices = `-m comment --comment "kubernetes service portals" -j KUBE-SERVICES`
	shadow         = "-d 10.96.0.80 -p tcp --dport 80 -j ACCEPT"
)

// chainOf is the chain that KUBE-SERVICES leads to by the rule with that comment, for a
// shell.
func chainOf(comment string) string {
	return fmt.Sprintf(`$(iptables-save -t nat | sed -n 's,^-A KUBE-SERVICES .*"default/%s".* -j \([A-Z0-9-]*\)$,\1,p')`, comment)
}

// awaitDrift waits until the agent tells of drift of that kind.
func (m *monitored) awaitDrift(metric, kind string) {
	m.t.Helper()
	within(m.t, 2*patience, "the agent tells of "+kind, func() error {
		if n, _ := m.agent.metrics().sum(metric, map[string]string{"kind": kind}); n == 0 {
			return errors.New("it does not")
		}
		return nil
	})
}

// proxyStands has kube-proxy hang, when the histogram of delays is there, and was scraped: of a counter
// that appears Prometheus knows no rise.
func proxyStands(m *monitored) {
	m.t.Helper()
	m.lab.Expose("slow", "--port=80", "--pods=pod1")
	m.lab.Expose("slow", "--port=80", "--pods=pod1,pod2")
	m.awaitDelays("a change that is written", 0)
	proxyHangs(m)
}

// proxyIsLate has it go on: what waited comes into the rules, after a minute.
func proxyIsLate(m *monitored) {
	m.t.Helper()
	sendSignal(m.lab, "kube-proxy", "CONT")
	m.awaitDelays("a change that is written late", 30)
	proxyGoesOn(m)
	m.lab.Unexpose("slow")
}

// awaitDelays waits until the changes of endpoints that the agent has seen written took more than so
// many seconds in all.
func (m *monitored) awaitDelays(what string, seconds float64) {
	m.t.Helper()
	eventually(m.t, "the agent measures "+what, func() error {
		if sum, _ := m.agent.metrics().sum("svcscope_programming_delay_seconds_sum", nil); sum <= seconds {
			return fmt.Errorf("it has measured %v s", sum)
		}
		return nil
	})
}
