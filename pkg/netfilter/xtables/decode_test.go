// SPDX-License-Identifier: Apache-2.0

package xtables

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/svcscope/svcscope/pkg/netfilter"
)

// TestSizes has sizeof of each structure, as gcc gives them on x86-64 with the
// headers of Linux 6.1.
func TestSizes(t *testing.T) {
	tests := []struct {
		name      string
		revision  uint8
		structure string
		size      int
	}{
		{"comment", 0, "xt_comment_info", 256},
		{"tcp", 0, "xt_tcp", 12},
		{"udp", 0, "xt_udp", 10},
		{"sctp", 0, "xt_sctp_info", 292},
		{"addrtype", 0, "xt_addrtype_info", 12},
		{"addrtype", 1, "xt_addrtype_info_v1", 8},
		{"statistic", 0, "xt_statistic_info", 24},
		{"mark", 1, "xt_mark_mtinfo1", 12},
		{"conntrack", 1, "xt_conntrack_mtinfo1", 152},
		{"conntrack", 2, "xt_conntrack_mtinfo2", 156},
		{"conntrack", 3, "xt_conntrack_mtinfo3", 164},
		{"recent", 0, "xt_recent_mtinfo", 212},
		{"recent", 1, "xt_recent_mtinfo_v1", 228},
		{"nfacct", 0, "xt_nfacct_match_info", 40},
		{"nfacct", 1, "xt_nfacct_match_info_v1", 40},
		{"multiport", 0, "xt_multiport", 32},
		{"multiport", 1, "xt_multiport_v1", 48},
		{"state", 0, "xt_state_info", 4},
		{"limit", 0, "xt_rateinfo", 40},
		{"physdev", 0, "xt_physdev_info", 66},
		{"DNAT", 0, "nf_nat_ipv4_multi_range_compat", 20},
		{"DNAT", 1, "nf_nat_range", 40},
		{"DNAT", 2, "nf_nat_range2", 44},
		{"SNAT", 0, "nf_nat_ipv4_multi_range_compat", 20},
		{"SNAT", 1, "nf_nat_range", 40},
		{"MASQUERADE", 0, "nf_nat_ipv4_multi_range_compat", 20},
		{"REDIRECT", 0, "nf_nat_ipv4_multi_range_compat", 20},
		{"MARK", 2, "xt_mark_tginfo2", 8},
		{"REJECT", 0, "ipt_reject_info", 4},
		{"NFLOG", 0, "xt_nflog_info", 76},
		{"LOG", 0, "xt_log_info", 32},
	}
	for _, tt := range tests {
		name, size := targetDecoder(netfilter.IPv4, tt.name, tt.revision).name, targetDecoder(netfilter.IPv4, tt.name, tt.revision).size
		decode := func(b []byte) error { _, err := DecodeTarget(netfilter.IPv4, tt.name, tt.revision, b); return err }
		if strings.ToLower(tt.name) == tt.name {
			name, size = matchDecoder(tt.name, tt.revision).name, matchDecoder(tt.name, tt.revision).size
			decode = func(b []byte) error { _, err := DecodeMatch(netfilter.IPv4, tt.name, tt.revision, b); return err }
		}
		if name != tt.structure || size != tt.size {
			t.Errorf("%s revision %d: got %s of %d bytes, want %s of %d", tt.name, tt.revision, name, size, tt.structure, tt.size)
		}
		var short *netfilter.ShortError
		if err := decode(make([]byte, tt.size-1)); !errors.As(err, &short) || short.Struct != tt.structure {
			t.Errorf("%s revision %d: one byte too few: got %v, want a ShortError of %s", tt.name, tt.revision, err, tt.structure)
		}
		if err := decode(make([]byte, tt.size+4)); err != nil {
			t.Errorf("%s revision %d: padding: %v", tt.name, tt.revision, err)
		}
	}
	for family, want := range map[netfilter.Family]int{netfilter.IPv4: 112, netfilter.IPv6: 168} {
		if l, ok := layoutOf(family); !ok || l.size != want {
			t.Errorf("entry of %v: got %d bytes, want %d", family, l.size, want)
		}
	}
}

// layOut writes the fields of a C structure one after the other; v has the
// padding as fields of its own.
func layOut(v ...any) []byte {
	var b []byte
	for _, x := range v {
		b, _ = binary.Append(b, binary.NativeEndian, x)
	}
	return b
}

// beU16 is a __be16 in an argument list of layOut.
func beU16(v uint16) [2]byte { return [2]byte{byte(v >> 8), byte(v)} }

var compareAddr = cmpopts.EquateComparable(netip.Addr{})

// The revisions that iptables 1.8.9 does not write on a new kernel; the
// others are in the fixtures.
func TestDecodeMatchOfOldRevisions(t *testing.T) {
	addr := [16]byte{10, 0, 0, 1}
	mask := [16]byte{255, 255, 255, 0}
	head := layOut([4][16]byte{addr, mask}, [4][16]byte{}, uint32(1), uint32(2), uint16(6),
		beU16(80), beU16(443), beU16(1), beU16(2), uint16(0x105), uint16(0x4))
	conntrack := Conntrack{
		Flags: 0x105, Invert: 0x4, Proto: 6, ExpiresMin: 1, ExpiresMax: 2,
		OrigSPort: PortRange{80, 80}, OrigDPort: PortRange{443, 443}, ReplSPort: PortRange{1, 1}, ReplDPort: PortRange{2, 2},
	}
	zero := netip.AddrFrom4([4]byte{})
	conntrack.OrigSrc = Address{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("255.255.255.0")}
	conntrack.OrigDst, conntrack.ReplSrc, conntrack.ReplDst = Address{zero, zero}, Address{zero, zero}, Address{zero, zero}
	rev1, rev2 := conntrack, conntrack
	rev1.States, rev1.Statuses = StateNew|StateDNAT, 4
	rev2.States, rev2.Statuses = StateNew|StateUntracked, 0x204
	var list [200]byte
	copy(list[:], "KUBE-SEP-A")
	var object [40]byte
	copy(object[:], "drops")

	tests := []struct {
		name     string
		revision uint8
		data     []byte
		want     Match
	}{
		{"addrtype", 0, layOut(uint16(4), uint16(2), uint32(1), uint32(0)), AddrType{Source: 4, Dest: 2, NotSource: true}},
		{"mark", 0, layOut(uint64(0x4000), uint64(0xf000), uint64(1)), Mark{Value: 0x4000, Mask: 0xf000, Not: true}},
		{"conntrack", 1, append(slices.Clone(head), 0x88, 4), rev1},
		{"conntrack", 2, append(slices.Clone(head), layOut(uint16(0x108), uint16(0x204), uint16(0))...), rev2},
		{
			"recent", 0, layOut(uint32(60), uint32(3), uint8(0x22), uint8(1), list, uint8(1), uint8(0)),
			Recent{Seconds: 60, HitCount: 3, Flags: RecentSet | RecentReap, Not: true, List: "KUBE-SEP-A", Dest: true},
		},
		{"nfacct", 0, object[:], NFAcct{Object: "drops"}},
		{
			"multiport", 0, layOut(uint8(1), uint8(2), [15]uint16{80, 443, 9}),
			Multiport{Kind: MultiportDest, Ports: []PortRange{{80, 80}, {443, 443}}},
		},
		{"state", 0, layOut(uint32(6)), State{Mask: 6}},
		{"conntrack", 0, []byte{1, 2}, Opaque{Name: "conntrack", Data: []byte{1, 2}}},
		{"comment", 9, nil, Opaque{Name: "comment", Revision: 9}},
		{"statistic", 0, layOut(uint16(7), [22]byte{}), Opaque{Name: "statistic", Data: layOut(uint16(7), [22]byte{})}},
	}
	for _, tt := range tests {
		got, err := DecodeMatch(netfilter.IPv4, tt.name, tt.revision, tt.data)
		if err != nil {
			t.Errorf("%s revision %d: %v", tt.name, tt.revision, err)
			continue
		}
		if diff := cmp.Diff(tt.want, got, compareAddr); diff != "" {
			t.Errorf("%s revision %d (-want +got):\n%s", tt.name, tt.revision, diff)
		}
	}
}

func TestDecodeTargetOfOldRevisions(t *testing.T) {
	v4 := netip.MustParseAddr("10.0.0.1")
	v6 := netip.MustParseAddr("fd00::1")
	compat := layOut(uint32(1), uint32(3), v4.As4(), v4.As4(), beU16(80), beU16(90))
	range6 := layOut(uint32(3), v6.As16(), v6.As16(), beU16(80), beU16(90))
	want4 := NATRange{Flags: 3, MinAddr: v4, MaxAddr: v4, MinPort: 80, MaxPort: 90}
	want6 := NATRange{Flags: 3, MinAddr: v6, MaxAddr: v6, MinPort: 80, MaxPort: 90}
	tests := []struct {
		family   netfilter.Family
		name     string
		revision uint8
		data     []byte
		want     Target
	}{
		{netfilter.IPv4, "DNAT", 0, compat, DNAT{want4}},
		{netfilter.IPv4, "SNAT", 0, compat, SNAT{want4}},
		{netfilter.IPv6, "DNAT", 1, range6, DNAT{want6}},
		{netfilter.IPv6, "SNAT", 1, range6, SNAT{want6}},
		{netfilter.IPv6, "MASQUERADE", 0, range6, Masquerade{want6}},
		{netfilter.IPv6, "DNAT", 0, compat, Opaque{Name: "DNAT", Data: compat}},
		{netfilter.IPv4, "DNAT", 0, make([]byte, 20), Opaque{Name: "DNAT", Data: make([]byte, 20)}},
		{netfilter.IPv4, "SNAT", 2, range6, Opaque{Name: "SNAT", Revision: 2, Data: range6}},
		{netfilter.IPv4, "MARK", 0, layOut(uint64(5)), SetMark{Value: 5, Mask: 0xffffffff}},
		{netfilter.IPv4, "MARK", 1, layOut(uint64(5), uint64(0)), SetMark{Value: 5, Mask: 0xffffffff}},
		{netfilter.IPv4, "MARK", 1, layOut(uint64(5), uint64(1)), SetMark{Value: 0, Mask: ^uint32(5)}},
		{netfilter.IPv4, "MARK", 1, layOut(uint64(5), uint64(2)), SetMark{Value: 5, Mask: 5}},
		{netfilter.IPv4, "REJECT", 0, layOut(uint32(3)), Reject{With: 3, Name: "icmp-port-unreachable"}},
		{netfilter.IPv6, "REJECT", 0, layOut(uint32(4)), Reject{With: 4, Name: "icmp6-port-unreachable"}},
		{netfilter.IPv6, "REJECT", 0, layOut(uint32(77)), Reject{With: 77}},
		{netfilter.IPv4, "", 0, layOut(int32(-5)), Standard{VerdictReturn}},
		{netfilter.IPv4, "ERROR", 0, append([]byte("KUBE-SERVICES"), make([]byte, 17)...), Error{"KUBE-SERVICES"}},
		{netfilter.IPv4, "TTL", 0, []byte{1}, Opaque{Name: "TTL", Data: []byte{1}}},
	}
	for _, tt := range tests {
		got, err := DecodeTarget(tt.family, tt.name, tt.revision, tt.data)
		if err != nil {
			t.Errorf("%s revision %d: %v", tt.name, tt.revision, err)
			continue
		}
		if diff := cmp.Diff(tt.want, got, compareAddr); diff != "" {
			t.Errorf("%s revision %d of %v (-want +got):\n%s", tt.name, tt.revision, tt.family, diff)
		}
	}
}

func TestDecodeInterface(t *testing.T) {
	mask := func(n int) []byte { return slices.Concat(slices.Repeat([]byte{0xff}, n), make([]byte, 16-n)) }
	holes := mask(5)
	holes[2] = 0
	tests := []struct {
		name string
		mask []byte
		want Interface
	}{
		{"", mask(0), Interface{}},
		{"eth0", mask(5), Interface{Name: "eth0"}},
		{"cali+", mask(4), Interface{Name: "cali+"}},
		{"cali", mask(4), Interface{Name: "cali+"}},
		{"abcdefghijklmno", mask(16), Interface{Name: "abcdefghijklmno"}},
		{"eth0", mask(2), Interface{Name: "eth0", Odd: true}},
		{"eth0", mask(9), Interface{Name: "eth0", Odd: true}},
		{"eth0", holes, Interface{Name: "eth0", Odd: true}},
	}
	for _, tt := range tests {
		got := decodeInterface(append([]byte(tt.name), make([]byte, 16-len(tt.name))...), tt.mask)
		if got != tt.want {
			t.Errorf("%q, mask % x: got %+v, want %+v", tt.name, tt.mask, got, tt.want)
		}
	}
}

func TestAddressPrefix(t *testing.T) {
	for mask, want := range map[string]string{
		"255.255.255.255": "10.1.2.3/32", "255.255.240.0": "10.1.0.0/20", "0.0.0.0": "0.0.0.0/0",
		"255.0.255.0": "", "0.0.0.255": "", "255.250.0.0": "",
	} {
		p, ok := Address{netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr(mask)}.Prefix()
		if ok != (want != "") || ok && p.String() != want {
			t.Errorf("mask %s: got %v %v, want %q", mask, p, ok, want)
		}
	}
}
