// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"net/netip"
	"time"

	"github.com/svcscope/svcscope/pkg/netfilter/nflog"
	"github.com/svcscope/svcscope/pkg/policy"
	"github.com/svcscope/svcscope/pkg/service"
)

// DropSource is who saw a packet being refused.
type DropSource string

// SourceNFLOG is a rule that logs to a group of NFLOG.
const SourceNFLOG DropSource = "nflog"

// DropRule is what is known of the rule that a packet has come to. Packets share it:
// it does not change.
type DropRule struct {
	Source DropSource
	Group  uint16 // of NFLOG
	Hook   string // as ruleset.Hooks has it
	Prefix string
	// Refused is true where the packet is known to be refused: its prefix says so, or
	// the rules that log it. Of others it is known that a rule logs them.
	Refused bool
	policy.Refuser
	// Table and Chain are where the rule is; empty where several may have logged the
	// packet.
	Table, Chain string
}

// DropEvent is one packet that a witness has seen.
type DropEvent struct {
	Time time.Time
	*DropRule
	// In and Out are the numbers of interfaces, 0 where there is none.
	In, Out uint32
	// Headers are the packet's own, at that hook; Src and Dst are the zero value where
	// they were not copied.
	nflog.Headers
	// FromPod and ToPod are the pods of this node from which the packet comes and to which
	// it goes, by its addresses; the zero value where pods are not watched, too.
	FromPod, ToPod policy.Object
	// Service is the port that the packet was sent to, by the address Frontend; the zero
	// value where the packet and its entry of connection tracking do not tell.
	Service  service.PortName
	Frontend netip.AddrPort
}

// HasService reports whether the packet was sent to a Service's address.
func (e *DropEvent) HasService() bool { return e.Service.Name.Name != "" }
