// SPDX-License-Identifier: Apache-2.0

package kubeproxy

// Kind is what a chain is for. The same name may stand in two tables:
// KUBE-SERVICES and KUBE-NODEPORTS are in nat and in filter.
type Kind uint8

// The kinds of chain that kube-proxy and kubelet make in iptables mode.
const (
	KindOther            Kind = iota // not one of kube-proxy's or kubelet's
	KindServices                     // KUBE-SERVICES: nat sends virtual addresses on, filter refuses
	KindNodePorts                    // KUBE-NODEPORTS: nat sends node ports on, filter lets health checks in
	KindExternalServices             // KUBE-EXTERNAL-SERVICES, filter
	KindForward                      // KUBE-FORWARD, filter
	KindProxyFirewall                // KUBE-PROXY-FIREWALL, filter, since Kubernetes 1.25
	KindKubeFirewall                 // KUBE-FIREWALL, filter, kubelet's and kube-proxy's
	KindMarkMasq                     // KUBE-MARK-MASQ, nat
	KindMarkDrop                     // KUBE-MARK-DROP, nat, kubelet's until Kubernetes 1.27
	KindPostrouting                  // KUBE-POSTROUTING, nat
	KindProxyCanary                  // KUBE-PROXY-CANARY
	KindKubeletCanary                // KUBE-KUBELET-CANARY
	KindHint                         // KUBE-IPTABLES-HINT, kubelet's
	KindService                      // KUBE-SVC-…
	KindLocal                        // KUBE-SVL-…
	KindExternal                     // KUBE-EXT-…
	KindFirewall                     // KUBE-FW-…
	KindEndpoint                     // KUBE-SEP-…
	KindOldLocal                     // KUBE-XLB-…, of Kubernetes before 1.24
)

// Names of chains that are one of a kind.
const (
	chainServices         = "KUBE-SERVICES"
	chainNodePorts        = "KUBE-NODEPORTS"
	chainExternalServices = "KUBE-EXTERNAL-SERVICES"
	chainProxyFirewall    = "KUBE-PROXY-FIREWALL"
	chainMarkDrop         = "KUBE-MARK-DROP"
)

// Names of chains by which packets are masqueraded and forwarded.
const (
	ChainPostrouting = "KUBE-POSTROUTING" // nat
	ChainMarkMasq    = "KUBE-MARK-MASQ"   // nat
	ChainForward     = "KUBE-FORWARD"     // filter
)

// ParseChain tells a chain's kind by its name, and the hash in it where it has
// one. A name with the right prefix and no hash of 16 characters after it is
// another tool's: KindOther.
func ParseChain(name string) (kind Kind, hash string) {
	if len(name) < len("KUBE-") || name[:5] != "KUBE-" {
		return KindOther, ""
	}
	switch name {
	case chainServices:
		return KindServices, ""
	case chainNodePorts:
		return KindNodePorts, ""
	case chainExternalServices:
		return KindExternalServices, ""
	case ChainForward:
		return KindForward, ""
	case chainProxyFirewall:
		return KindProxyFirewall, ""
	case "KUBE-FIREWALL":
		return KindKubeFirewall, ""
	case ChainMarkMasq:
		return KindMarkMasq, ""
	case chainMarkDrop:
		return KindMarkDrop, ""
	case ChainPostrouting:
		return KindPostrouting, ""
	case "KUBE-PROXY-CANARY":
		return KindProxyCanary, ""
	case "KUBE-KUBELET-CANARY":
		return KindKubeletCanary, ""
	case "KUBE-IPTABLES-HINT":
		return KindHint, ""
	}
	return parseHashed(name)
}

func parseHashed(name string) (Kind, string) {
	if len(name) <= HashLen {
		return KindOther, ""
	}
	prefix, hash := name[:len(name)-HashLen], name[len(name)-HashLen:]
	for i := range len(hash) {
		if c := hash[i]; !('A' <= c && c <= 'Z' || '2' <= c && c <= '7') {
			return KindOther, ""
		}
	}
	switch prefix {
	case servicePrefix:
		return KindService, hash
	case localPrefix:
		return KindLocal, hash
	case externalPrefix:
		return KindExternal, hash
	case firewallPrefix:
		return KindFirewall, hash
	case endpointPrefix:
		return KindEndpoint, hash
	case oldLocalPrefix:
		return KindOldLocal, hash
	}
	return KindOther, ""
}

// ReadRank orders chains for a reading that takes one chain after another, the
// lower first. KUBE-SVC and KUBE-SVL come before KUBE-EXT: connections by
// cluster address are the jumps to endpoints less the jumps out of KUBE-EXT, so
// what comes in between must not make that difference too large. It is then at
// most what was true when KUBE-SVC was read, and the next reading makes it up;
// a count that was too large could not be taken back.
func ReadRank(chain string) int {
	switch kind, _ := ParseChain(chain); kind {
	case KindService, KindLocal:
		return 1
	case KindExternal:
		return 2
	}
	return 0
}

// ChainsOf returns the names of all chains in nat that a port of this hash may
// have, in the order of ReadRank: KUBE-SVC, KUBE-SVL, KUBE-FW, KUBE-EXT.
func ChainsOf(hash string) [4]string {
	return [...]string{servicePrefix + hash, localPrefix + hash, firewallPrefix + hash, externalPrefix + hash}
}

// RefusalChains returns the names of the chains in filter whose rules refuse a
// Service's packets. kube-proxy writes them anew at every sync.
func RefusalChains() [3]string {
	return [...]string{chainServices, chainExternalServices, chainProxyFirewall}
}

// DispatchChains returns the names of the chains in nat that send packets to a
// Service's chains, in the order in which a packet passes them. kube-proxy
// writes them anew at every sync.
func DispatchChains() [2]string { return [...]string{chainServices, chainNodePorts} }
