// SPDX-License-Identifier: Apache-2.0

package nflog

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/conntrack"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// syn is a TCP SYN of 10.77.0.9:40000 to 10.96.0.10:80.
var syn = unhex("4500003c 1c464000 4006 0000 0a4d0009 0a60000a", "9c40 0050 00000001 00000000 a002 faf0 00000000")

func unhex(parts ...string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(strings.Join(parts, ""), " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

// message is a NFULNL_MSG_PACKET of group 100 as __build_packet_message of
// net/netfilter/nfnetlink_log.c makes it.
func message(attrs ...[]byte) []byte {
	b := netfilter.AppendGenMsg(nil, netfilter.GenMsg{Family: netfilter.IPv4, ResID: 100})
	for _, a := range attrs {
		b = append(b, a...)
	}
	return b
}

func attr(typ uint16, value []byte) []byte { return nlattr.Append(nil, typ, value) }

func be32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

// entry is the packet's flow: to 10.96.0.10:80, which leads to 10.77.0.2:8080.
func entry() []byte {
	tuple := func(src, dst string, sport, dport uint16) []byte {
		s, d := netip.MustParseAddr(src).As4(), netip.MustParseAddr(dst).As4()
		ip := append(attr(1, s[:]), attr(2, d[:])...)
		proto := attr(1, []byte{6})
		proto = append(proto, attr(2, binary.BigEndian.AppendUint16(nil, sport))...)
		proto = append(proto, attr(3, binary.BigEndian.AppendUint16(nil, dport))...)
		return nlattr.AppendNested(nlattr.AppendNested(nil, 1, ip), 2, proto)
	}
	b := nlattr.AppendNested(nil, 1, tuple("10.77.0.9", "10.96.0.10", 40000, 80))
	b = nlattr.AppendNested(b, 2, tuple("10.77.0.2", "10.77.0.9", 8080, 40000))
	return append(b, attr(3, be32(uint32(conntrack.DstNAT)))...)
}

func whole() []byte {
	return message(
		attr(nfulaPacketHdr, []byte{8, 0, 2, 0}), attr(nfulaMark, be32(0x4000)), attr(nfulaIndev, be32(7)), attr(nfulaOutdev, be32(8)),
		attr(nfulaTimestamp, binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, 1_700_000_000), 250_000)),
		attr(nfulaPayload, syn), attr(nfulaPrefix, []byte("DPI|default\x00")), attr(nfulaSeq, be32(41)), nlattr.AppendNested(nil, nfulaCT, entry()),
		attr(99, []byte("of a newer kernel")),
	)
}

func TestPacket(t *testing.T) {
	var p Packet
	if err := p.Decode(whole()); err != nil {
		t.Fatal(err)
	}
	if p.Family != netfilter.IPv4 || p.Group != 100 || p.Hook != netfilter.HookForward || p.Protocol != 0x0800 || p.Mark != 0x4000 ||
		p.In != 7 || p.Out != 8 || p.Time != 1_700_000_000_250_000 || string(p.Prefix) != "DPI|default" || p.Seq != 41 || !p.HasSeq {
		t.Errorf("%+v", p)
	}
	if !p.HasFlow || p.Flow.Orig.Dst.String() != "10.96.0.10:80" || p.Flow.Reply.Src.String() != "10.77.0.2:8080" {
		t.Errorf("flow: %v, %+v", p.HasFlow, p.Flow)
	}
	if d := cmp.Diff(syn, p.Payload); d != "" {
		t.Errorf("payload (-want +got):\n%s", d)
	}
	kept := p.Clone()
	clear(p.Payload)
	if kept.Payload[0] != 0x45 {
		t.Error("a clone shares the message's memory")
	}
}

func TestPacketErrors(t *testing.T) {
	for _, tt := range []struct {
		name string
		b    []byte
		want string
	}{
		{"nothing", nil, "logged packet: nfgenmsg at offset 0: need 4 bytes, have 0"},
		{"no header", message(attr(nfulaPayload, syn)), "logged packet: NFULA_PACKET_HDR: missing"},
		{"short header", message(attr(nfulaPacketHdr, []byte{8})), "logged packet: NFULA_PACKET_HDR: 1 bytes, want 4"},
		{"short time", message(attr(nfulaPacketHdr, []byte{8, 0, 2, 0}), attr(nfulaTimestamp, []byte{1})), "logged packet: NFULA_TIMESTAMP: 1 bytes, want 16"},
		{"cut", whole()[:21], "logged packet: nlattr at offset 16: need 4 bytes, have 1"},
	} {
		var p Packet
		got := ""
		if err := p.Decode(tt.b); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	var p Packet // of an entry that is damaged the packet is left
	if err := p.Decode(message(attr(nfulaPacketHdr, []byte{8, 0, 2, 0}), attr(nfulaPayload, syn), attr(nfulaCT, []byte{1, 2}))); err != nil || p.HasFlow || len(p.Payload) != len(syn) {
		t.Errorf("%v, %+v", err, p)
	}
}

func TestHeaders(t *testing.T) {
	v6 := func(next string, rest ...string) []byte {
		head := "60000000 0020 " + next + " 40 fd770000000000000000000000000009 fd96000000000000000000000000000a"
		return unhex(append([]string{head}, rest...)...)
	}
	for _, tt := range []struct {
		name string
		b    []byte
		want string
	}{
		{"TCP", syn, "6 10.77.0.9:40000 10.96.0.10:80 ports flags 2"},
		{"its ports alone", syn[:24], "6 10.77.0.9:40000 10.96.0.10:80 ports flags 0"},
		{"without them", syn[:23], "6 10.77.0.9:0 10.96.0.10:0 flags 0"},
		{"options", unhex("4600003c 1c464000 4011 0000 0a4d0009 0a60000a 01010101", "9c40 0035 0008 0000"), "17 10.77.0.9:40000 10.96.0.10:53 ports flags 0"},
		{"a later fragment", unhex("4500003c 1c4600b9 4011 0000 0a4d0009 0a60000a", "9c40 0035"), "17 10.77.0.9:0 10.96.0.10:0 fragment flags 0"},
		{"ICMP", unhex("4500003c 1c464000 4001 0000 0a4d0009 0a60000a", "0800 0000"), "1 10.77.0.9:0 10.96.0.10:0 flags 0 icmp 8/0"},
		{"IPv6 UDP", v6("11", "9c40 0035 0008 0000"), "17 [fd77::9]:40000 [fd96::a]:53 ports flags 0"},
		{"IPv6 options, then TCP", v6("00", "3c00 000000000000", "0600 000000000000", "9c40 0050 00000001 00000000 a012 faf0"), "6 [fd77::9]:40000 [fd96::a]:80 ports flags 18"},
		{"IPv6 fragment", v6("2c", "1100 0008 00000001", "9c40 0035"), "17 [fd77::9]:0 [fd96::a]:0 fragment flags 0"},
		{"IPv6 first fragment", v6("2c", "1100 0001 00000001", "9c40 0035 0008 0000"), "17 [fd77::9]:40000 [fd96::a]:53 ports flags 0"},
		{"IPv6 cut options", v6("00", "3c"), "0 [fd77::9]:0 [fd96::a]:0 flags 0"},
		{"ICMPv6", v6("3a", "8000"), "58 [fd77::9]:0 [fd96::a]:0 flags 0 icmp 128/0"},
	} {
		h, err := ParseHeaders(tt.b)
		if got := h.text(); err != nil || got != tt.want {
			t.Errorf("%s: %q, %v, want %q", tt.name, got, err, tt.want)
		}
	}
	for _, b := range [][]byte{nil, {0x45}, {0x60, 0}, unhex("25000000"), syn[:19]} {
		if _, err := ParseHeaders(b); err == nil {
			t.Errorf("%x is taken for a packet", b)
		}
	}
}

func (h *Headers) text() string {
	s := fmt.Sprintf("%d %s %s", h.Protocol, h.Src, h.Dst)
	if h.HasPorts {
		s += " ports"
	}
	if h.Fragment {
		s += " fragment"
	}
	s += fmt.Sprintf(" flags %d", h.TCPFlags)
	if h.HasICMP {
		s += fmt.Sprintf(" icmp %d/%d", h.ICMPType, h.ICMPCode)
	}
	return s
}

func TestDecodingAllocatesNothing(t *testing.T) {
	b := whole()
	var p Packet
	if n := testing.AllocsPerRun(100, func() {
		if p.Decode(b) != nil {
			t.Fatal("damaged")
		}
		if _, err := ParseHeaders(p.Payload); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzPacket(f *testing.F) {
	f.Add(whole())
	f.Add(message(attr(nfulaPacketHdr, []byte{8, 0, 2, 0})))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p Packet
		if p.Decode(b) != nil {
			return
		}
		if h, err := ParseHeaders(p.Payload); err == nil && (!h.Src.IsValid() || h.HasPorts && h.Fragment) {
			t.Errorf("%+v", h)
		}
	})
}

func BenchmarkPacket(b *testing.B) {
	m := whole()
	var p Packet
	b.ReportAllocs()
	for b.Loop() {
		if p.Decode(m) != nil {
			b.Fatal("damaged")
		}
		if _, err := ParseHeaders(p.Payload); err != nil {
			b.Fatal(err)
		}
	}
}
