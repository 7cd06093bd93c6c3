// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"cmp"
	"net/netip"
	"time"

	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// Node is one reading of a node. It is not changed once made.
type Node struct {
	Name string
	// Time is when the kernel was read.
	Time   time.Time
	Kernel string // uname -r
	// Rules are those of each backend and family that could be read, IPv4 first and
	// nf_tables before x_tables. All chains are read, those of endpoints too.
	Rules []Rules
	// Unread is why rules are missing, by backend; empty where all were read.
	Unread map[ruleset.Backend]string
	// IPVS: the kernel has virtual servers.
	IPVS bool
	// Catalog is the API; nil where it was not asked or has not answered, and KubeError
	// is why. NodeMissing: the API has no Node of this name.
	Catalog     *service.Catalog
	KubeError   string
	NodeMissing bool
	// Flows are the entries of connection tracking whose destination was translated,
	// summed. Nil where they were not read, and FlowsError is why.
	Flows      []FlowTally
	FlowsError string
	// Sysctls are the values of the node's network sysctls that decide on Services, by
	// their names below /proc/sys with dots ("net.ipv4.ip_forward").
	Sysctls map[string]string
}

// Rules is one backend's rules of one family.
type Rules struct {
	Set *ruleset.Ruleset
	// NFTablesMode: a table of kube-proxy's nftables mode is present in this family.
	NFTablesMode bool
}

// FlowTally counts the entries of connection tracking that were sent to one address and
// are answered from another one.
type FlowTally struct {
	Protocol uint8          // IPPROTO_*
	To       netip.AddrPort // the first packet's destination
	From     netip.AddrPort // the answer's source: the endpoint
	Entries  uint64
	// Unreplied are those of Entries that have seen no answer, and Closing those of TCP
	// whose connections are ending (FIN_WAIT to TIME_WAIT, CLOSE).
	Unreplied, Closing uint64
}

// Compare orders tallies by where packets were sent.
func (f FlowTally) Compare(g FlowTally) int {
	return cmp.Or(f.To.Compare(g.To), cmp.Compare(f.Protocol, g.Protocol), f.From.Compare(g.From))
}
