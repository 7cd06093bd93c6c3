// SPDX-License-Identifier: Apache-2.0

package nodediff

import (
	"slices"
	"strconv"
	"time"

	"github.com/svcscope/svcscope/pkg/service"
)

// Report is what differs between the nodes A and B, in the shape that `svcscope diff -o
// json` prints. Its JSON names are a contract (docs/snapshot.md).
type Report struct {
	A Side `json:"a"`
	B Side `json:"b"`
	// Same is true where nothing differs but what is explained, and all was compared.
	Same bool `json:"same"`
	// Node is what concerns all Services.
	Node     []Difference  `json:"node"`
	Services []ServiceDiff `json:"services"` // those that differ
	// NotCompared is of what nothing is said.
	NotCompared []Gap `json:"notCompared,omitempty"`
}

// Differ reports whether something differs that is not explained.
func (r *Report) Differ() bool {
	return !explained(r.Node) || slices.ContainsFunc(r.Services, func(s ServiceDiff) bool { return !explained(s.Differences) })
}

// Gap is something that could not be compared.
type Gap struct {
	Object string `json:"object"`
	Why    string `json:"why"`
}

// Side is one of the two.
type Side struct {
	Node      string    `json:"node"`
	Time      time.Time `json:"time"`
	Kernel    string    `json:"kernel,omitempty"`
	ProxyMode string    `json:"proxyMode"` // iptables, nftables, ipvs, none
	// Backends are those that hold rules: nft, legacy.
	Backends []string `json:"backends"`
	API      bool     `json:"api"` // what the API wants is known
}

// What says what kind of thing differs.
type What string

// The kinds of things.
const (
	ProxyMode What = "proxy_mode"
	Backend   What = "backend"  // rules in one that the other node has not
	Unread    What = "unread"   // rules that could not be read
	Kernel    What = "kernel"   // its release
	Sysctl    What = "sysctl"   // its value
	Policy    What = "policy"   // of a built-in chain
	Rule      What = "rule"     // of a chain of all Services, or of somebody else
	Order     What = "order"    // of the rules of such a chain
	API       What = "api"      // what the API wants
	Address   What = "address"  // what becomes of packets to an address of the Service
	Endpoint  What = "endpoint" // that packets are sent to
	Chain     What = "chain"    // rules of one of the Service's chains
	Drift     What = "drift"    // of rules from the API, at this moment
)

// Difference is one thing that is not the same on both nodes.
type Difference struct {
	What   What   `json:"what"`
	Object string `json:"object"`
	A      string `json:"a,omitempty"` // empty: not there
	B      string `json:"b,omitempty"`
	// Explained is why it has to be so; empty: it has not.
	Explained Explanation `json:"explained,omitempty"`
}

// Explanation is why two nodes differ.
type Explanation string

// The explanations.
const (
	// ByPolicy: a policy that is Local, or hints, give each node its own endpoints.
	ByPolicy Explanation = "policy"
	// ByAPI: each node has what the API wanted when it was read, which has changed in
	// between. That is a Difference of its own.
	ByAPI Explanation = "api"
)

// ServiceDiff is what differs of one port of a Service in one IP family.
type ServiceDiff struct {
	Namespace   string       `json:"namespace"`
	Name        string       `json:"name"`
	PortName    string       `json:"portName,omitempty"`
	Protocol    string       `json:"protocol"`
	IPFamily    string       `json:"ipFamily"`
	Differences []Difference `json:"differences"`
}

// Selection says which Services to compare; its zero value is all.
type Selection struct {
	Namespace, Name string
	Port            string // its name or number; empty: all ports
}

// has reports whether a port, which has these numbers, is one of them.
func (s *Selection) has(p service.PortName, numbers []uint16) bool {
	if s.Name == "" {
		return true
	}
	if (p.Name != service.Name{Namespace: s.Namespace, Name: s.Name}) {
		return false
	}
	n, err := strconv.ParseUint(s.Port, 10, 16)
	return s.Port == "" || p.Port == s.Port || err == nil && n != 0 && slices.Contains(numbers, uint16(n))
}

// explained reports whether nothing is left to be asked.
func explained(all []Difference) bool {
	for i := range all {
		if all[i].Explained == "" {
			return false
		}
	}
	return true
}
