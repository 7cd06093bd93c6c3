// SPDX-License-Identifier: Apache-2.0

package xtables

import (
	"net/netip"

	"github.com/svcscope/svcscope/pkg/netfilter"
)

// DecodeTarget decodes the data of a target, that is what follows struct
// xt_entry_target, or NFTA_TARGET_INFO of a compat expression. It answers as
// DecodeMatch does. The standard target's name is "".
func DecodeTarget(family netfilter.Family, name string, revision uint8, data []byte) (Target, error) {
	d := targetDecoder(family, name, revision)
	if d.decode == nil {
		return opaque(name, revision, data), nil
	}
	b, err := take(data, 0, d.size, d.name)
	if err != nil {
		return nil, err
	}
	t := d.decode(family, b)
	if t == nil {
		return opaque(name, revision, data), nil
	}
	return t, nil
}

// targetDecoder returns the decoder of a target; its decode is nil for
// unknown ones.
func targetDecoder(f netfilter.Family, name string, revision uint8) decoder[Target] {
	switch (extKey{name, revision}) {
	case extKey{"", 0}:
		return decoder[Target]{"xt_standard_target", 4, decodeStandard}
	case extKey{"ERROR", 0}:
		return decoder[Target]{"xt_error_target", 30, decodeError}
	case extKey{"MARK", 0}:
		return decoder[Target]{"xt_mark_target_info", 8, decodeSetMark0}
	case extKey{"MARK", 1}:
		return decoder[Target]{"xt_mark_target_info_v1", 16, decodeSetMark1}
	case extKey{"MARK", 2}:
		return decoder[Target]{"xt_mark_tginfo2", 8, decodeSetMark2}
	case extKey{"REJECT", 0}:
		return decoder[Target]{"ipt_reject_info", 4, decodeReject}
	case extKey{"NFLOG", 0}:
		return decoder[Target]{"xt_nflog_info", 76, decodeNFLOG}
	case extKey{"LOG", 0}:
		return decoder[Target]{"xt_log_info", 32, decodeLOG}
	}
	return natDecoder(f, name, revision)
}

// natDecoder finds the layout of a NAT target: revision 0 has that of IPv4
// alone, but for the two that IPv6 took over from IPv4 under its own layout
// (net/netfilter/xt_nat.c, xt_MASQUERADE.c, xt_REDIRECT.c).
func natDecoder(f netfilter.Family, name string, revision uint8) decoder[Target] {
	var wrap func(NATRange) Target
	last := uint8(0) // last revision
	switch name {
	case "DNAT":
		wrap, last = func(r NATRange) Target { return DNAT{r} }, 2
	case "SNAT":
		wrap, last = func(r NATRange) Target { return SNAT{r} }, 1
	case "MASQUERADE":
		wrap = func(r NATRange) Target { return Masquerade{r} }
	case "REDIRECT":
		wrap = func(r NATRange) Target { return Redirect{r} }
	}
	switch {
	case wrap == nil || revision > last:
		return decoder[Target]{}
	case revision == 2:
		return decoder[Target]{"nf_nat_range2", 44, natTarget(decodeRange2, wrap)}
	case revision == 1, f == netfilter.IPv6 && last == 0:
		return decoder[Target]{"nf_nat_range", 40, natTarget(decodeRange, wrap)}
	case f == netfilter.IPv4:
		return decoder[Target]{"nf_nat_ipv4_multi_range_compat", 20, natTarget(decodeMultiRange, wrap)}
	}
	return decoder[Target]{}
}

type rangeFunc func(f netfilter.Family, b []byte) (r NATRange, ok bool)

func natTarget(decode rangeFunc, wrap func(NATRange) Target) func(netfilter.Family, []byte) Target {
	return func(f netfilter.Family, b []byte) Target {
		r, ok := decode(f, b)
		if !ok {
			return nil
		}
		return wrap(r)
	}
}

// decodeMultiRange reads the one range that there has been since Linux 2.6.11;
// ok is false for another number.
func decodeMultiRange(_ netfilter.Family, b []byte) (NATRange, bool) {
	if u32(b, 0) != 1 {
		return NATRange{}, false
	}
	return NATRange{
		Flags:   u32(b, 4),
		MinAddr: netip.AddrFrom4([4]byte(b[8:12])), MaxAddr: netip.AddrFrom4([4]byte(b[12:16])),
		MinPort: be16(b, 16), MaxPort: be16(b, 18),
	}, true
}

func decodeRange(f netfilter.Family, b []byte) (NATRange, bool) {
	return NATRange{
		Flags:   u32(b, 0),
		MinAddr: inetAddr(f, b, 4), MaxAddr: inetAddr(f, b, 20),
		MinPort: be16(b, 36), MaxPort: be16(b, 38),
	}, true
}

func decodeRange2(f netfilter.Family, b []byte) (NATRange, bool) {
	r, ok := decodeRange(f, b)
	r.BasePort = be16(b, 40)
	return r, ok
}

func decodeStandard(_ netfilter.Family, b []byte) Target {
	return Standard{Verdict: Verdict(int32(u32(b, 0)))}
}

func decodeError(_ netfilter.Family, b []byte) Target { return Error{Name: str(b)} }

// decodeSetMark0 reads one unsigned long.
func decodeSetMark0(_ netfilter.Family, b []byte) Target {
	return SetMark{Value: uint32(u64(b, 0)), Mask: ^uint32(0)}
}

// decodeSetMark1 reads an unsigned long and a mode: set, and, or.
func decodeSetMark1(_ netfilter.Family, b []byte) Target {
	mark := uint32(u64(b, 0))
	switch b[8] {
	case 0: // XT_MARK_SET
		return SetMark{Value: mark, Mask: ^uint32(0)}
	case 1: // XT_MARK_AND
		return SetMark{Mask: ^mark}
	case 2: // XT_MARK_OR
		return SetMark{Value: mark, Mask: mark}
	}
	return nil
}

func decodeSetMark2(_ netfilter.Family, b []byte) Target {
	return SetMark{Value: u32(b, 0), Mask: u32(b, 4)}
}

func decodeReject(f netfilter.Family, b []byte) Target {
	with := u32(b, 0)
	return Reject{With: with, Name: rejectName(f, with)}
}

// rejectName spells enum ipt_reject_with and ip6t_reject_with as
// iptables-save does.
func rejectName(f netfilter.Family, with uint32) string {
	names := [...]string{
		0: "icmp-net-unreachable", 1: "icmp-host-unreachable", 2: "icmp-proto-unreachable",
		3: "icmp-port-unreachable", 4: "echo-reply", 5: "icmp-net-prohibited",
		6: "icmp-host-prohibited", 7: "tcp-reset", 8: "icmp-admin-prohibited",
	}
	if f == netfilter.IPv6 {
		names = [...]string{
			0: "icmp6-no-route", 1: "icmp6-adm-prohibited", 2: "icmp6-not-neighbour",
			3: "icmp6-addr-unreachable", 4: "icmp6-port-unreachable", 5: "echo-reply",
			6: "tcp-reset", 7: "icmp6-policy-fail", 8: "icmp6-reject-route",
		}
	}
	if with < uint32(len(names)) {
		return names[with]
	}
	return ""
}

func decodeNFLOG(_ netfilter.Family, b []byte) Target {
	return NFLOG{
		Length: u32(b, 0), Group: u16(b, 4), Threshold: u16(b, 6), Flags: u16(b, 8),
		Prefix: str(b[12:76]),
	}
}

func decodeLOG(_ netfilter.Family, b []byte) Target {
	return LOG{Level: b[0], Flags: b[1], Prefix: str(b[2:32])}
}
