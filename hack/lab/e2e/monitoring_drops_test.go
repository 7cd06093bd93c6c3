// SPDX-License-Identifier: Apache-2.0

package e2e

import "fmt"

// policyRules are of two pods that do not exist, as kube-router and Calico lay them.
// Both refuse all.
const policyRules = `*filter
:KUBE-POD-FW-AAAAAAAAAAAAAAAA - [0:0]
:cali-pi-np/default/strict - [0:0]
-A FORWARD -d 10.244.1.77/32 -j KUBE-POD-FW-AAAAAAAAAAAAAAAA
-A FORWARD -d 10.244.1.78/32 -j cali-pi-np/default/strict
-A KUBE-POD-FW-AAAAAAAAAAAAAAAA -m comment --comment "default/denied log-drop" -m mark ! --mark 0x10000/0x10000 -j NFLOG --nflog-group 100
-A KUBE-POD-FW-AAAAAAAAAAAAAAAA -m comment --comment "default/denied reject" -m mark ! --mark 0x10000/0x10000 -j REJECT
-A cali-pi-np/default/strict -p udp -m comment --comment "cali:abcdefghijklmnop" -m comment --comment "NetworkPolicy default/strict ingress" -j RETURN
-A cali-pi-np/default/strict -m comment --comment "cali:abcdefghijklmnoq" -j DROP
COMMIT
`

// dropFaults are those of packets that are refused, and of their events.
func dropFaults() map[string]fault {
	return map[string]fault{
		// Packets come to the node that are of no connection.
		"invalid_packets": {
			begin: func(m *monitored) { m.keepSending("invalid_packets", 50, finPacket, "10.244.1.11:8080") },
			end:   func(m *monitored) { m.stopBusy("invalid_packets") },
		},
		// Policies refuse packets, and log them.
		"policy_drops": {
			begin: func(m *monitored) { m.keepLoading("policy_drops", "10.244.1.77:8080", "10.244.1.78:8080") },
			end:   func(m *monitored) { m.stopBusy("policy_drops") },
		},
		// More is logged than the agent reads.
		"nflog_lost": {begin: nflogLost, end: func(m *monitored) { m.stopBusy("nflog_lost"); m.sh(fmt.Sprintf(floodRules, "-D")) }},
		// Somebody else reads the group that the agent is to read.
		"nflog_held": {
			begin: func(m *monitored) {
				m.stopAgent()
				m.keepBusy("nflog_held", insideArgv(m.t, holdArg, "100")...)
				m.busy["nflog_held"][0].WaitOutput(m.t, "holding")
				m.startAgent()
			},
			end: func(m *monitored) {
				m.stopAgent()
				m.stopBusy("nflog_held")
				m.startAgent()
				m.awaitGroup()
			},
		},
	}
}

// keepSending sends packets of a kind from the client, so many a second, until stopBusy.
func (m *monitored) keepSending(name string, rate int, kind, to string) {
	m.t.Helper()
	argv := insideArgv(m.t, packetsArg, fmt.Sprint(rate), kind, to, "100000")
	m.busy[name] = append(m.busy[name], m.lab.StartProcess("client", argv...))
}

const floodRules = "for target in 'NFLOG --nflog-group 100' DROP; do iptables %s INPUT -p udp --dport 9 -j $target; done"

// nflogLost has the agent stand still while many packets are logged; the next one tells
// it of the gap.
func nflogLost(m *monitored) {
	m.t.Helper()
	m.sh(fmt.Sprintf(floodRules, "-A"))
	to := m.lab.NodePort(9, false)
	sendSignal(m.lab, "svcscope", "STOP")
	m.lab.Exec("client", insideArgv(m.t, packetsArg, "0", udpPacket, to, "50000")...)
	sendSignal(m.lab, "svcscope", "CONT")
	m.keepSending("nflog_lost", 20, udpPacket, to)
}

// awaitGroup waits until the agent reads its group: one that was held when it started it
// tries again after 10 s.
func (m *monitored) awaitGroup() {
	m.t.Helper()
	eventually(m.t, "the agent reads its group of NFLOG", m.agent.readsGroup)
}
