// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// State is a protocol's state, enum tcp_conntrack in
// include/uapi/linux/netfilter/nf_conntrack_tcp.h or enum sctp_conntrack in
// nf_conntrack_sctp.h.
type State uint8

// The states of TCP that tell something of a connection.
const (
	TCPSynSent     State = 1 // TCP_CONNTRACK_SYN_SENT
	TCPSynRecv     State = 2 // TCP_CONNTRACK_SYN_RECV
	TCPEstablished State = 3 // TCP_CONNTRACK_ESTABLISHED
	TCPFinWait     State = 4 // TCP_CONNTRACK_FIN_WAIT
	TCPCloseWait   State = 5 // TCP_CONNTRACK_CLOSE_WAIT
	TCPLastAck     State = 6 // TCP_CONNTRACK_LAST_ACK
	TCPTimeWait    State = 7 // TCP_CONNTRACK_TIME_WAIT
	TCPClose       State = 8 // TCP_CONNTRACK_CLOSE
	TCPSynSent2    State = 9 // TCP_CONNTRACK_SYN_SENT2: both sides open
)

// The states of SCTP that tell something of an association.
const (
	SCTPClosed          State = 1 // SCTP_CONNTRACK_CLOSED
	SCTPEstablished     State = 4 // SCTP_CONNTRACK_ESTABLISHED
	SCTPShutdownSent    State = 5 // SCTP_CONNTRACK_SHUTDOWN_SENT
	SCTPShutdownRecd    State = 6 // SCTP_CONNTRACK_SHUTDOWN_RECD
	SCTPShutdownAckSent State = 7 // SCTP_CONNTRACK_SHUTDOWN_ACK_SENT
)

// The names are those of conntrack -L, in lower case.
var (
	tcpStates = [...]string{
		"none", "syn_sent", "syn_recv", "established", "fin_wait", "close_wait", "last_ack", "time_wait", "close", "syn_sent2",
	}
	sctpStates = [...]string{
		"none", "closed", "cookie_wait", "cookie_echoed", "established", "shutdown_sent", "shutdown_recd",
		"shutdown_ack_sent", "heartbeat_sent", "heartbeat_acked",
	}
)

// StateName returns the state's name in lower case as conntrack -L has it, or
// its number where it has none. A protocol without states, and a flow whose
// state is not told, is replied or unreplied.
func (f *Flow) StateName() string {
	var names []string
	switch {
	case !f.HasState:
	case f.Protocol == unix.IPPROTO_TCP:
		names = tcpStates[:]
	case f.Protocol == unix.IPPROTO_SCTP:
		names = sctpStates[:]
	}
	switch {
	case names == nil && f.Status.Has(SeenReply):
		return "replied"
	case names == nil:
		return "unreplied"
	case int(f.State) < len(names):
		return names[f.State]
	}
	return strconv.Itoa(int(f.State))
}

// Closing reports whether the flow is past its exchange of data: it goes with
// its timeout, whatever its ends do.
func (f *Flow) Closing() bool {
	if !f.HasState {
		return false
	}
	switch f.Protocol {
	case unix.IPPROTO_TCP:
		return f.State >= TCPFinWait && f.State <= TCPClose
	case unix.IPPROTO_SCTP:
		return f.State == SCTPClosed || f.State >= SCTPShutdownSent && f.State <= SCTPShutdownAckSent
	}
	return false
}

// ProtocolName is the protocol's name as conntrack -L has it, or its number.
func (f *Flow) ProtocolName() string {
	switch f.Protocol {
	case unix.IPPROTO_TCP:
		return "tcp"
	case unix.IPPROTO_UDP:
		return "udp"
	case unix.IPPROTO_SCTP:
		return "sctp"
	case unix.IPPROTO_ICMP:
		return "icmp"
	case unix.IPPROTO_ICMPV6:
		return "icmpv6"
	case unix.IPPROTO_UDPLITE:
		return "udplite"
	case unix.IPPROTO_GRE:
		return "gre"
	}
	return strconv.Itoa(int(f.Protocol))
}
