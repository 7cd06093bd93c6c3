// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
)

// rulesOfKubeRouter are kube-router's for a pod, with the limit that it has (kube-router 2.11,
// pkg/controllers/netpol/pod.go).
func rulesOfKubeRouter(pod string) string {
	const theirs = `-A KUBE-POD-FW-AAAAAAAAAAAAAAAA -m comment --comment "default/pod2 %s" -m mark ! --mark 0x10000/0x10000 %s` + "\n"
	return ":KUBE-POD-FW-AAAAAAAAAAAAAAAA - [0:0]\n" +
		"-A FORWARD -d " + pod + " -j KUBE-POD-FW-AAAAAAAAAAAAAAAA\n" +
		fmt.Sprintf(theirs, "log-drop", "-m limit --limit 10/minute --limit-burst 10 -j NFLOG --nflog-group 100") +
		fmt.Sprintf(theirs, "reject", "-j REJECT")
}

// rulesOfWeave are those of weave's bridge and of weave-npc, where policies of a pod let nothing
// in and nothing out (weave 2.8, net/bridge.go and prog/weave-npc/main.go).
func rulesOfWeave(pod string) string {
	return strings.ReplaceAll(`:WEAVE-NPC - [0:0]
:WEAVE-NPC-DEFAULT - [0:0]
:WEAVE-NPC-EGRESS - [0:0]
:WEAVE-NPC-EGRESS-DEFAULT - [0:0]
:WEAVE-NPC-EGRESS-ACCEPT - [0:0]
-A FORWARD -i cni0 -j WEAVE-NPC-EGRESS
-A FORWARD -o cni0 -j WEAVE-NPC
-A FORWARD -o cni0 -m state --state NEW -j NFLOG --nflog-group 86
-A FORWARD -o cni0 -j DROP
-A WEAVE-NPC -m state --state RELATED,ESTABLISHED -j ACCEPT
-A WEAVE-NPC -m state --state NEW -j WEAVE-NPC-DEFAULT
-A WEAVE-NPC-DEFAULT ! -d POD -j ACCEPT
-A WEAVE-NPC-EGRESS -m state --state RELATED,ESTABLISHED -j ACCEPT
-A WEAVE-NPC-EGRESS -m addrtype --dst-type LOCAL -j RETURN
-A WEAVE-NPC-EGRESS -m state --state NEW -j WEAVE-NPC-EGRESS-DEFAULT
-A WEAVE-NPC-EGRESS -m state --state NEW -m mark ! --mark 0x40000/0x40000 -j NFLOG --nflog-group 86
-A WEAVE-NPC-EGRESS -m mark ! --mark 0x40000/0x40000 -j DROP
-A WEAVE-NPC-EGRESS-DEFAULT ! -s POD -j WEAVE-NPC-EGRESS-ACCEPT
-A WEAVE-NPC-EGRESS-ACCEPT -j MARK --set-xmark 0x40000/0x40000
`, "POD", pod)
}

// rulesOfSomebody are for two ports of the node.
func rulesOfSomebody() (rules string) {
	for _, p := range transports {
		to := func(port int) string { return fmt.Sprintf("-A INPUT -p %[1]s -m %[1]s --dport %[2]d ", p.name, port) }
		rules += to(ownPort) + "-j DROP\n" +
			to(ownLoggedPort) + "-j NFLOG --nflog-group 100 --nflog-prefix svcscope:deny:nobody\n" +
			to(ownLoggedPort) + "-j DROP\n"
	}
	return rules
}
