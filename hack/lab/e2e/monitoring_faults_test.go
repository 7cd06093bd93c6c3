// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// fault is something that goes wrong on a node, for real.
type fault struct {
	begin func(m *monitored)
	// ready waits until it is felt, where that takes long: others can begin meanwhile. May be nil.
	ready func(m *monitored)
	end   func(m *monitored)
}

// faults by the names that dashboards and alerts know them by.
func faults() map[string]fault {
	all := map[string]fault{}
	for _, some := range []map[string]fault{trafficFaults(), dropFaults(), agentFaults(), rulesetFaults(), proxyFaults(), driftFaults()} {
		maps.Copy(all, some)
	}
	return all
}

// trafficFaults are those of connections.
func trafficFaults() map[string]fault {
	return map[string]fault{
		// A Service without endpoints is in use.
		"no_endpoints": {
			begin: func(m *monitored) { m.keepLoading("no_endpoints", "10.96.0.99:80", "[fd00:10:96::99]:80") },
			end:   func(m *monitored) { m.stopBusy("no_endpoints") },
		},
		// A Service that only answers from its own node is in use on another.
		"no_local_endpoints": {begin: noLocalEndpoints, end: func(m *monitored) { m.stopBusy("no_local_endpoints"); m.lab.Unexpose("elsewhere") }},
		// The connection-tracking table fills up steadily.
		"conntrack_growing": {begin: conntrackGrowing, end: func(m *monitored) { m.stopBusy("conntrack_growing"); m.conntrack("clear") }},
		// Entries lead nowhere.
		"entries_astray": {begin: func(m *monitored) { m.conntrack("astray") }, ready: entriesAstray, end: func(m *monitored) { m.conntrack("clear") }},
		// It is full, first of entries that can be evicted.
		// An agent that has read so many reads the next ones a minute later.
		"conntrack_full": {begin: conntrackFull, end: func(m *monitored) { m.conntrack("clear"); m.restartAgent() }},
	}
}

// agentFaults are those of the agent, which start it anew.
func agentFaults() map[string]fault {
	return map[string]fault{
		// More Services than the agent may give series.
		"series_cap": {
			begin: func(m *monitored) { m.restartAgent("--metrics.max-services=1") },
			end:   func(m *monitored) { m.restartAgent() },
		},
		// The API can't be reached.
		"api_down": {
			begin: func(m *monitored) { m.sh("iptables -I " + rejectAPI); m.restartAgent() },
			end:   func(m *monitored) { m.sh("iptables -D " + rejectAPI); m.awaitAPI() },
		},
		// The agent runs and takes no readings.
		"snapshot_stale": {
			begin: func(m *monitored) { m.restartAgent("--interval=1h") },
			end:   func(m *monitored) { m.restartAgent() },
		},
		// There is no agent.
		"agent_down": {begin: func(m *monitored) { m.stopAgent() }, end: func(m *monitored) { m.startAgent() }},
		// Rules have matches that the agent doesn't know. That it met them it
		// tells until it is restarted.
		"undecoded": {
			begin: func(m *monitored) {
				m.sh(`iptables -N FOREIGN; for n in 1 2 3; do
					iptables -A FOREIGN -m length --length $n -m u32 --u32 "0x6&0xff=$n" -j DROP; done`)
			},
			end: func(m *monitored) { m.sh("iptables -F FOREIGN; iptables -X FOREIGN"); m.restartAgent() },
		},
	}
}

// awaitAPI waits until the agent follows the API again: it asks less and less often.
func (m *monitored) awaitAPI() {
	m.t.Helper()
	eventually(m.t, "the agent follows the API", func() error {
		if n, _ := m.agent.metrics().sum("svcscope_collector_success", map[string]string{"collector": "kube"}); n != 1 {
			return errors.New("it does not")
		}
		return nil
	})
}

// rulesetFaults are those of all rules.
func rulesetFaults() map[string]fault {
	return map[string]fault{
		// Rules change.
		"ruleset_change": {
			begin: func(m *monitored) { m.sh("nft add table ip changing; nft add chain ip changing c") },
			end:   func(m *monitored) { m.sh("nft delete table ip changing") },
		},
		// Rules change all the time.
		"ruleset_storm": {
			begin: func(m *monitored) {
				m.keepBusy("ruleset_storm", "sh", "-c", "while nft add table ip storm && nft delete table ip storm; do sleep 0.05; done")
			},
			end: func(m *monitored) {
				m.stopBusy("ruleset_storm")
				m.sh("nft add table ip storm; nft delete table ip storm")
			},
		},
		// Processes have the lock of legacy iptables open one after the other, as
		// those that wait for it. The first makes the file, before it is watched.
		"lock_busy": {
			begin: func(m *monitored) {
				m.keepBusy("lock_busy", "sh", "-c", "while sleep 1 9>>/run/xtables.lock; do :; done")
			},
			end: func(m *monitored) { m.stopBusy("lock_busy") },
		},
		// Somebody adds a great many rules: more than half of the budget, then
		// more than all of it.
		"rules_growth": {begin: func(m *monitored) { m.addRules("GROWTH", 26) }, end: func(m *monitored) { m.dropRules("GROWTH") }},
		"rules_high":   {begin: func(m *monitored) { m.addRules("HIGH", 51) }, end: func(m *monitored) { m.dropRules("HIGH") }},
	}
}

// proxyFaults are those of kube-proxy.
func proxyFaults() map[string]fault {
	return map[string]fault{
		// It hangs while an endpoint comes.
		"proxy_hangs": {begin: proxyHangs, end: proxyGoesOn},
		// Its chains are in the other backend too.
		"two_backends": {
			begin: func(m *monitored) {
				m.sh("iptables-legacy -t nat -N KUBE-SERVICES; iptables-legacy -t nat -A PREROUTING -j KUBE-SERVICES")
			},
			end: func(m *monitored) {
				m.sh("iptables-legacy -t nat -F; iptables-legacy -t nat -X KUBE-SERVICES")
			},
		},
	}
}

const rejectAPI = "OUTPUT -p tcp --dport 6443 -j REJECT --reject-with tcp-reset"

// during runs f while faults are there.
func (m *monitored) during(f func(), names ...string) {
	m.t.Helper()
	var begun []fault
	for _, name := range names {
		one, ok := faults()[name]
		if !ok {
			m.t.Fatalf("no fault %q; there are %v", name, slices.Sorted(maps.Keys(faults())))
		}
		one.begin(m)
		defer one.end(m)
		begun = append(begun, one)
	}
	for _, one := range begun {
		if one.ready != nil {
			one.ready(m)
		}
	}
	f()
}

// sh runs a script on the node.
func (m *monitored) sh(script string) {
	m.t.Helper()
	m.lab.Exec("node1", "sh", "-ec", script)
}

func (m *monitored) keepBusy(name string, argv ...string) {
	m.t.Helper()
	m.busy[name] = append(m.busy[name], m.lab.StartProcess("node1", argv...))
}

// keepLoading opens 20 connections a second to each of the addresses, flows to
// those with port 53, until stopBusy.
func (m *monitored) keepLoading(name string, to ...string) {
	m.t.Helper()
	for _, address := range to {
		proto := "tcp"
		if strings.HasSuffix(address, ":53") {
			proto = "udp"
		}
		m.busy[name] = append(m.busy[name], m.lab.StartLoad("client", address, "--rate=20", "--timeout=200ms", "--proto="+proto))
	}
}

func (m *monitored) stopBusy(name string) {
	m.t.Helper()
	for _, p := range m.busy[name] {
		select {
		case <-p.Done():
			m.t.Errorf("what keeps %s going has ended: %s", name, p.Output())
		default:
			p.Kill()
		}
	}
	delete(m.busy, name)
}

// noLocalEndpoints exposes a Service with an endpoint on another node.
func noLocalEndpoints(m *monitored) {
	m.t.Helper()
	s := m.lab.Expose("elsewhere", "--port=80", "--pods=10.244.2.5", "--ip-families=v4", "--internal-traffic-policy=Local")
	m.keepLoading("no_local_endpoints", s.VIP4())
}

// addRules adds thousands of rules. A thousand is what iptables can send at a
// time in a user namespace, where nobody may raise a socket's limit.
func (m *monitored) addRules(chain string, thousands int) {
	m.t.Helper()
	m.sh(fmt.Sprintf(`iptables -N %[1]s; { echo "*filter"; yes -- "-A %[1]s -j ACCEPT" | head -n 1000; echo COMMIT; } >/run/lab/rules
		for n in $(seq %[2]d); do iptables-restore --noflush </run/lab/rules; done`, chain, thousands))
}

func (m *monitored) dropRules(chain string) {
	m.t.Helper()
	m.sh(fmt.Sprintf("iptables -F %[1]s; iptables -X %[1]s", chain))
}

// proxyHangs stops kube-proxy while one Service gets a second endpoint, and another
// its first, with which it is in use.
func proxyHangs(m *monitored) {
	m.t.Helper()
	m.lab.Expose("late", "--port=80", "--pods=pod1")
	unready := m.lab.Expose("unready", "--port=80", "--pods=none")
	sendSignal(m.lab, "kube-proxy", "STOP")
	m.lab.Run("expose", "late", "--port=80", "--pods=pod1,pod2", "--wait=false")
	m.lab.Run("expose", "unready", "--port=80", "--pods=pod1", "--wait=false")
	m.keepLoading("proxy_hangs", unready.VIP4())
}

func proxyGoesOn(m *monitored) {
	m.t.Helper()
	m.stopBusy("proxy_hangs")
	sendSignal(m.lab, "kube-proxy", "CONT")
	m.lab.Unexpose("late")
	m.lab.Unexpose("unready")
}

// conntrack runs conntrackMain on the node.
func (m *monitored) conntrack(args ...string) {
	m.t.Helper()
	m.lab.Exec("node1", insideArgv(m.t, conntrackArg, args...)...)
}

// mostEntries is how large a table the tests fill: an entry is 400 bytes of
// the kernel's memory with its extensions, at most.
const mostEntries = 1 << 20

func (m *monitored) conntrackLimit() int {
	m.t.Helper()
	limit, err := readCount("nf_conntrack_max")
	if err != nil {
		m.t.Fatal(err)
	}
	if limit > mostEntries {
		m.t.Fatalf("nf_conntrack_max is %d here: to fill that takes more memory than a test may", limit)
	}
	return limit
}

// conntrackGrowing adds a hundredth of the limit twice a second, from 40 of
// them to 70.
func conntrackGrowing(m *monitored) {
	m.t.Helper()
	step := m.conntrackLimit() / 100
	fill := strings.Join(insideArgv(m.t, conntrackArg, "free"), " ")
	m.keepBusy("conntrack_growing", "sh", "-c", fmt.Sprintf("for n in $(seq 40 70); do %s $((n * %d)); sleep 0.5; done; sleep 600", fill, step))
}

// entriesAstray waits for the grace in which an address may stop to be an
// endpoint.
func entriesAstray(m *monitored) {
	m.t.Helper()
	for _, kind := range []string{"unanswered", "stale"} { // from the first reading on, and after the grace
		eventually(m.t, "the agent knows "+kind+" entries", func() error {
			if n, _ := m.agent.metrics().sum("svcscope_service_conntrack_"+kind+"_entries", nil); n == 0 {
				return errors.New("it tells of none")
			}
			return nil
		})
	}
}

// conntrackFull fills node1's table to the machine's limit, about 100 MB at
// the usual 262,144 entries. First the entries are such that the kernel evicts
// for new connections, then such that it refuses these. The limit itself is
// the machine's: no namespace but the first has one of its own.
func conntrackFull(m *monitored) {
	m.t.Helper()
	full := fmt.Sprint(m.conntrackLimit())
	m.conntrack("free", full)
	if r := m.lab.Load("client", "10.96.0.80:80", 20); r.Succeeded != 20 {
		m.t.Errorf("%d of 20 connections succeeded while others could be evicted: %v", r.Succeeded, r.Errors)
	}
	m.conntrack("clear")
	m.conntrack("assured", full)
	if r := m.lab.Load("client", "10.96.0.80:80", 20, "--timeout=500ms"); r.Succeeded == 20 {
		m.t.Error("all of 20 connections succeeded with a full table: the fault is none")
	}
}
