// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"

	"github.com/svcscope/svcscope/hack/lab/labtest"
)

// monitored is the demo scene with the agent and traffic, for Prometheus to
// look at.
type monitored struct {
	t     *testing.T
	lab   *labtest.Lab
	agent *agent
	// busy are the processes that keep a fault going.
	busy map[string][]*labtest.Process
}

func newMonitored(t *testing.T) *monitored {
	t.Helper()
	m := &monitored{t: t, lab: labtest.Start(t, labtest.Options{Scene: "demo"}), busy: map[string][]*labtest.Process{}}
	m.sh("iptables-restore --noflush <<'END'\n" + policyRules + "END\n")
	m.startAgent()
	m.awaitGroup()
	m.keepLoading("health", "10.96.0.80:80", "[fd00:10:96::80]:80", m.lab.NodePort(30080, false), m.lab.NodePort(30080, true))
	m.keepLoading("health", "10.96.0.53:53", "[fd00:10:96::53]:53")
	t.Cleanup(func() { m.t = t; m.stopBusy("health") })
	return m
}

func (m *monitored) startAgent(flags ...string) {
	m.t.Helper()
	m.agent = startAgent(m.t, m.lab, append([]string{
		"--metrics.endpoints", "--metrics.policies", "--nflog.group=100", "--tap", "--conntrack.interval=1s", "--kubeconfig=" + m.lab.Info.Kubeconfig,
	}, flags...)...)
}

func (m *monitored) stopAgent() {
	m.t.Helper()
	if err := m.agent.Stop(); err != nil {
		m.t.Errorf("the agent after SIGTERM: %v\n%s", err, m.agent.Output())
	}
}

func (m *monitored) restartAgent(flags ...string) {
	m.t.Helper()
	m.stopAgent()
	m.startAgent(flags...)
}
