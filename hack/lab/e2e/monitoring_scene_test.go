// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/svcscope/svcscope/hack/lab/labtest"
)

// monitored is the demo scene with the agent and traffic, for Prometheus to
// look at.
type monitored struct {
	t      *testing.T
	lab    *labtest.Lab
	agent  *agent
	blocks []string // what to undo to reach the API again
}

func newMonitored(t *testing.T) *monitored {
	t.Helper()
	m := &monitored{t: t, lab: labtest.Start(t, labtest.Options{Scene: "demo"})}
	m.startAgent()
	for _, to := range []struct{ address, proto string }{
		{"10.96.0.80:80", "tcp"}, {m.lab.NodePort(30080, false), "tcp"}, {"10.96.0.53:53", "udp"},
		{"[fd00:10:96::80]:80", "tcp"}, {m.lab.NodePort(30080, true), "tcp"}, {"[fd00:10:96::53]:53", "udp"},
	} {
		m.lab.StartLoad("client", to.address, "--proto="+to.proto, "--rate=10")
	}
	return m
}

func (m *monitored) startAgent(flags ...string) {
	m.t.Helper()
	m.agent = startAgent(m.t, m.lab, append([]string{"--metrics.endpoints", "--kubeconfig=" + m.lab.Info.Kubeconfig}, flags...)...)
}

func (m *monitored) restartAgent(flags ...string) {
	m.t.Helper()
	if err := m.agent.Stop(); err != nil {
		m.t.Errorf("the agent after SIGTERM: %v\n%s", err, m.agent.Output())
	}
	m.startAgent(flags...)
}

// fault is something that goes wrong on a node, for real.
type fault struct {
	begin func(m *monitored)
	end   func(m *monitored)
}

// faults by the names that dashboards and rules know them by.
func faults() map[string]fault {
	return map[string]fault{
		// A Service without endpoints is asked.
		"no_endpoints": {begin: refused, end: nothing},
		// The table is full, first of entries that can be evicted.
		"conntrack_full": {begin: conntrackFull, end: conntrackClear},
		// More Services than the agent may give series.
		"series_cap": {
			begin: func(m *monitored) { m.restartAgent("--metrics.max-services=1") },
			end:   func(m *monitored) { m.restartAgent() },
		},
		// The API can't be reached.
		"api_down": {begin: apiDown, end: apiUp},
		// Rules with matches that the agent doesn't know.
		"undecoded": {begin: undecoded, end: func(m *monitored) { m.lab.Exec("node1", "sh", "-c", "iptables -F FOREIGN; iptables -X FOREIGN") }},
		// Rules come and go all the time.
		"ruleset_change": {begin: rulesetChange, end: func(m *monitored) { m.lab.Exec("node1", "nft", "delete table ip changing") }},
	}
}

func nothing(*monitored) {}

func refused(m *monitored) {
	m.t.Helper()
	for _, to := range []string{"10.96.0.99:80", "[fd00:10:96::99]:80"} {
		if r := m.lab.Load("client", to, 20); r.Refused != 20 {
			m.t.Fatalf("%d of 20 connections to %s refused: %v", r.Refused, to, r.Errors)
		}
	}
}

func rulesetChange(m *monitored) {
	m.t.Helper()
	m.lab.Exec("node1", "sh", "-c", `nft add table ip changing; nft add chain ip changing c
		for n in $(seq 20); do nft add rule ip changing c tcp dport $n counter; done`)
}

func undecoded(m *monitored) {
	m.t.Helper()
	m.lab.Exec("node1", "sh", "-c", `iptables -N FOREIGN; for n in 1 2 3; do
		iptables -A FOREIGN -m length --length $n -m u32 --u32 "0x6&0xff=$n" -j DROP; done`)
}

func (m *monitored) conntrack(args ...string) {
	m.t.Helper()
	self, err := os.Executable()
	if err != nil {
		m.t.Fatal(err)
	}
	m.lab.Exec("node1", append([]string{self, conntrackArg}, args...)...)
}

// mostEntries is how large a table the tests fill: an entry is 400 bytes of
// the kernel's memory with its extensions, at most.
const mostEntries = 1 << 20

// conntrackFull fills node1's table to the machine's limit, about 100 MB at
// the usual 262,144 entries. First the entries are such that the kernel evicts
// for new connections, then such that it refuses these. The limit itself is
// the machine's: no namespace but the first has one of its own.
func conntrackFull(m *monitored) {
	m.t.Helper()
	limit, err := readCount("nf_conntrack_max")
	if err != nil {
		m.t.Fatal(err)
	}
	if limit > mostEntries {
		m.t.Fatalf("nf_conntrack_max is %d here: to fill that takes more memory than a test may", limit)
	}
	full := fmt.Sprint(limit)
	m.conntrack("free", full)
	if r := m.lab.Load("client", "10.96.0.80:80", 20); r.Succeeded != 20 {
		m.t.Errorf("%d of 20 connections succeeded while others could be evicted: %v", r.Succeeded, r.Errors)
	}
	m.agent.samplings(2)
	m.conntrack("clear")
	m.conntrack("assured", full)
	if r := m.lab.Load("client", "10.96.0.80:80", 20, "--timeout=500ms"); r.Succeeded == 20 {
		m.t.Error("all of 20 connections succeeded with a full table: the fault is none")
	}
}

func conntrackClear(m *monitored) { m.t.Helper(); m.conntrack("clear") }

func apiDown(m *monitored) {
	m.t.Helper()
	block := []string{"OUTPUT", "-p", "tcp", "--dport", "6443", "-j", "REJECT", "--reject-with", "tcp-reset"}
	m.lab.Exec("node1", append([]string{"iptables", "-I"}, block...)...)
	m.blocks = block
	m.restartAgent()
}

func apiUp(m *monitored) {
	m.t.Helper()
	m.lab.Exec("node1", append([]string{"iptables", "-D"}, m.blocks...)...)
}

// during runs f while a fault is there.
func (m *monitored) during(name string, f func()) {
	m.t.Helper()
	all := faults()
	one, ok := all[name]
	if !ok {
		known := []string{}
		for n := range all {
			known = append(known, n)
		}
		m.t.Fatalf("no fault %q; there are %s", name, strings.Join(known, ", "))
	}
	one.begin(m)
	defer one.end(m)
	f()
}
