// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"encoding/binary"
	"net/netip"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/netfilter/xtables"
)

// ports reads the ports of a NAT statement from registers. The flags are
// NF_NAT_RANGE_* in both of the kernel's interfaces.
func (e *evaluator) ports(flags uint32, lo, hi nftables.Register) xtables.NATRange {
	r := xtables.NATRange{Flags: flags &^ xtables.NATProtoSpecified}
	if v := e.reg(lo); lo != 0 && v.kind == constant && len(v.value) >= 2 {
		r.MinPort = binary.BigEndian.Uint16(v.value)
		r.MaxPort, r.Flags = r.MinPort, r.Flags|xtables.NATProtoSpecified
	}
	if v := e.reg(hi); hi != 0 && v.kind == constant && len(v.value) >= 2 {
		r.MaxPort = binary.BigEndian.Uint16(v.value)
	}
	return r
}

// nat is a native dnat or snat. Where a register comes from a map, the
// action has its name and no address.
func (e *evaluator) nat(x nftables.NAT) {
	r := e.ports(uint32(x.Flags)&^uint32(nftables.NATMapIPs), x.ProtoMin, x.ProtoMax)
	if v := e.reg(x.AddrMin); x.AddrMin != 0 && v.kind == constant {
		if a, ok := netip.AddrFromSlice(v.value); ok {
			r.MinAddr, r.MaxAddr, r.Flags = a, a, r.Flags|xtables.NATMapIPs
		}
	}
	if v := e.reg(x.AddrMax); x.AddrMax != 0 && v.kind == constant {
		if a, ok := netip.AddrFromSlice(v.value); ok {
			r.MaxAddr = a
		}
	}
	kind, option := SNAT, "--to-source "
	if x.Dest {
		kind, option = DNAT, "--to-destination "
	}
	a := e.c.nat(kind, option, r)
	if r.Flags&xtables.NATMapIPs == 0 {
		d := a.Details()
		d.Args = "" // no address to print
		if v := e.reg(x.AddrMin); x.AddrMin != 0 && v.kind == fromMap {
			d.Name, d.Args, a.Value = v.name, v.key+" map @"+v.name, v.shares
		}
		a.SetDetails(d)
	}
	e.act(a)
}

// rejectWith is iptables' word for a native reject.
func rejectWith(family netfilter.Family, x nftables.Reject) string {
	code := x.Code
	if x.Type == nftables.RejectTCP {
		return "tcp-reset"
	}
	if x.Type == nftables.RejectICMPX {
		// enum nft_reject_inet_code: no route, port, host, administratively.
		v4, v6 := [...]uint8{0, 3, 1, 13}, [...]uint8{0, 4, 3, 1}
		if int(code) >= len(v4) {
			return "icmpx-" + itoa(uint64(code))
		}
		if code = v4[x.Code]; family == netfilter.IPv6 {
			code = v6[x.Code]
		}
	}
	names := map[uint8]string{
		0: "icmp-net-unreachable", 1: "icmp-host-unreachable", 2: "icmp-proto-unreachable",
		3: "icmp-port-unreachable", 9: "icmp-net-prohibited", 10: "icmp-host-prohibited", 13: "icmp-admin-prohibited",
	}
	if family == netfilter.IPv6 {
		names = map[uint8]string{
			0: "icmp6-no-route", 1: "icmp6-adm-prohibited", 3: "icmp6-addr-unreachable",
			4: "icmp6-port-unreachable", 5: "icmp6-policy-fail", 6: "icmp6-reject-route",
		}
	}
	if n, ok := names[code]; ok {
		return n
	}
	return "icmp-" + itoa(uint64(code))
}
