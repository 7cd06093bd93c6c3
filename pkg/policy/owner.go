// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
)

// The owners that Owner names: a fixed list, so that it may be a label.
const (
	KubeProxy   = "kube-proxy"
	Kubelet     = "kubelet"
	Calico      = "calico"
	KubeRouter  = "kube-router"
	Cilium      = "cilium"
	Flannel     = "flannel"
	Weave       = "weave"
	Antrea      = "antrea"
	OVN         = "ovn" // OVN-Kubernetes and Kube-OVN
	Istio       = "istio"
	Docker      = "docker"
	CNI         = "cni" // the reference plugins: portmap, bridge, firewall
	IPMasqAgent = "ip-masq-agent"
	AWS         = "aws" // the VPC CNI
	Netavark    = "netavark"
	Libvirt     = "libvirt"
	Firewalld   = "firewalld"
	UFW         = "ufw"
	Other       = "other"
)

// Owners returns all values of Owner, in a fixed order.
func Owners() []string {
	return []string{
		KubeProxy, Kubelet, Calico, KubeRouter, Cilium, Flannel, Weave, Antrea, OVN, Istio, Docker, CNI,
		IPMasqAgent, AWS, Netavark, Libvirt, Firewalld, UFW, Other,
	}
}

// Owner returns who makes chains of that name; Other for built-in chains and
// for names that nothing is known of. KUBE-FIREWALL is kube-proxy's, though
// kubelet writes the same.
func Owner(chain string) string {
	switch kind, _ := kubeproxy.ParseChain(chain); kind {
	case kubeproxy.KindOther:
	case kubeproxy.KindKubeletCanary, kubeproxy.KindHint, kubeproxy.KindMarkDrop:
		return Kubelet
	default:
		return KubeProxy
	}
	for _, p := range prefixes() {
		if strings.HasPrefix(chain, p.prefix) {
			return p.owner
		}
	}
	return Other
}

type prefix struct{ prefix, owner string }

// prefixes are the beginnings of chains' names by tool; a longer one stands
// before a shorter one that it begins with.
func prefixes() [44]prefix {
	return [...]prefix{
		// Calico's felix, and its nft tables: filter-cali-….
		{"cali-", Calico},
		{"filter-cali-", Calico},
		{"nat-cali-", Calico},
		{"mangle-cali-", Calico},
		{"raw-cali-", Calico},
		{"califw-", Calico},
		{"KUBE-ROUTER-", KubeRouter},
		{"KUBE-POD-FW-", KubeRouter},
		{"KUBE-NWPLCY-", KubeRouter},
		{"KUBE-PROXY-", KubeProxy},
		{"KUBE-LOAD-BALANCER", KubeProxy},
		{"KUBE-NODE-PORT", KubeProxy},
		{"KUBE-IPVS-", KubeProxy},
		{"KUBE-SOURCE-RANGES-", KubeProxy},
		{"CILIUM_", Cilium},
		{"OLD_CILIUM_", Cilium},
		{"FLANNEL-", Flannel},
		{"WEAVE", Weave},
		{"ANTREA-", Antrea},
		{"OVN-", OVN},
		{"ISTIO_", Istio},
		{"DOCKER", Docker},
		{"CNI-", CNI},
		{"IP-MASQ", IPMasqAgent},
		{"AWS-", AWS},
		{"NETAVARK", Netavark},
		{"LIBVIRT_", Libvirt},
		{"ufw-", UFW},
		{"ufw6-", UFW},
		{"FWD_", Firewalld},
		{"FWDI_", Firewalld},
		{"FWDO_", Firewalld},
		{"IN_", Firewalld},
		{"OUT_", Firewalld},
		{"PRE_", Firewalld},
		{"POST_", Firewalld},
		{"INPUT_ZONES", Firewalld},
		{"INPUT_direct", Firewalld},
		{"FORWARD_", Firewalld},
		{"OUTPUT_direct", Firewalld},
		{"PREROUTING_", Firewalld},
		{"POSTROUTING_", Firewalld},
		{"filter_", Firewalld},
		{"nat_", Firewalld},
	}
}

// OwnerOfTable returns who makes native nft tables of that name; Other for
// the tables that iptables has, which all share.
func OwnerOfTable(table string) string {
	for _, p := range [...]prefix{
		{"kube-proxy", KubeProxy},
		{"calico", Calico},
		{"kube-router-", KubeRouter},
		{"flannel-", Flannel},
		{"antrea", Antrea},
		{"ovn-kubernetes", OVN},
		{"istio", Istio},
		{"docker-bridges", Docker},
		{"cni_", CNI},
		{"aws-cni", AWS},
		{"netavark", Netavark},
		{"libvirt_network", Libvirt},
		{"firewalld", Firewalld},
	} {
		if strings.HasPrefix(table, p.prefix) {
			return p.owner
		}
	}
	return Other
}
