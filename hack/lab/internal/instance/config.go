// SPDX-License-Identifier: Apache-2.0

package instance

// Config is what a lab is to be, as `lab up` hands it to the supervisor.
type Config struct {
	// Name of the lab.
	Name string `json:"name"`
	// Pods is the number of pods, named pod1 to podN.
	Pods int `json:"pods"`
	// ProxyMode is kube-proxy's: "iptables" or "nftables".
	ProxyMode string `json:"proxyMode"`
	// Backend is what `iptables` means in the lab: "nft" or "legacy".
	Backend string `json:"backend"`
	// ControlPlane is "real" or "none".
	ControlPlane string `json:"controlPlane"`
	// Rules4 and Rules6 are iptables-restore files for the node, loaded
	// where there is no control plane. Empty means none.
	Rules4 string `json:"rules4,omitempty"`
	Rules6 string `json:"rules6,omitempty"`
	// RealRoot leaves the user namespace out: the kernel then grants what
	// only the host's root has, such as socket buffers of any size.
	RealRoot bool `json:"realRoot,omitempty"`
	// Fillers is the number of Services without traffic that are there
	// before kube-proxy starts.
	Fillers int `json:"fillers,omitempty"`
	// Scene is a set of Services to begin with: "" or "demo".
	Scene string `json:"scene,omitempty"`
	// ProxyArgs are added to kube-proxy's command line.
	ProxyArgs []string `json:"proxyArgs,omitempty"`
	// APIArgs are added to kube-apiserver's command line.
	APIArgs []string `json:"apiArgs,omitempty"`
	// Binaries are paths of etcd, kube-apiserver, kube-proxy and kubectl by
	// name.
	Binaries map[string]string `json:"binaries,omitempty"`
	// Xtables is the program that the iptables links point to.
	Xtables string `json:"xtables"`
}

// Info is what a lab is, for people and for tests.
type Info struct {
	Name         string   `json:"name"`
	State        string   `json:"state"`
	ProxyMode    string   `json:"proxyMode"`
	Backend      string   `json:"backend"`
	ControlPlane string   `json:"controlPlane"`
	Nodes        []Member `json:"nodes"`
	Pods         []Member `json:"pods"`
	Client       Member   `json:"client"`
	Control      Member   `json:"control"`
	ServiceCIDRs []string `json:"serviceCIDRs"`
	Kubeconfig   string   `json:"kubeconfig,omitempty"`
	// AuditLog is the API server's, of what ServiceAccounts ask.
	AuditLog string `json:"auditLog,omitempty"`
	// Warnings are facts about this kernel that limit the lab.
	Warnings []string `json:"warnings,omitempty"`
}

// Member is one namespace of the lab.
type Member struct {
	// Name is the namespace's, to be used with `lab exec`.
	Name string `json:"name"`
	// IPv4 and IPv6 are its addresses; the first one is what it speaks
	// from by default.
	IPv4 []string `json:"ipv4"`
	IPv6 []string `json:"ipv6"`
}

// FirstIPv4 returns an address that serves: that of the first pod, or the node's.
func (i *Info) FirstIPv4() string {
	if len(i.Pods) > 0 {
		return i.Pods[0].IPv4[0]
	}
	return i.Nodes[0].IPv4[0]
}
