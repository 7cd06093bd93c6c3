// SPDX-License-Identifier: Apache-2.0

package kerneltest

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Packet is a UDP or TCP packet without data.
type Packet struct {
	Src, Dst netip.AddrPort // of one family
	TCP      bool
	Flags    uint8 // of TCP: FIN 1, SYN 2, RST 4, ACK 16
}

// Wire makes a pair of devices: what is sent out of the second one comes in by the
// first, as from a machine at the other end of a cable. Both are up.
func Wire(tb testing.TB, in, out string) {
	tb.Helper()
	Exec(tb, "", "ip", "link", "add", in, "type", "veth", "peer", "name", out)
	for _, dev := range []string{in, out} {
		Exec(tb, "", "ip", "link", "set", dev, "up")
		SetSysctl(tb, "net/ipv4/conf/"+dev+"/rp_filter", "0")
	}
}

// Forward has the namespace forward packets of both families, wherever they come from.
func Forward(tb testing.TB) {
	tb.Helper()
	for name, value := range map[string]string{
		"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1", "net/ipv4/conf/all/rp_filter": "0",
	} {
		SetSysctl(tb, name, value)
	}
}

// SetSysctl sets a value of the test's network namespace.
func SetSysctl(tb testing.TB, name, value string) {
	tb.Helper()
	if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0o644); err != nil {
		tb.Fatal(err)
	}
}

// SendFrames sends a packet n times out of a device of Wire.
func SendFrames(tb testing.TB, in, out string, p Packet, n int) {
	tb.Helper()
	to, err := net.InterfaceByName(in)
	if err != nil {
		tb.Fatal(err)
	}
	from, err := net.InterfaceByName(out)
	if err != nil {
		tb.Fatal(err)
	}
	proto := uint16(unix.ETH_P_IP)
	if p.Dst.Addr().Is6() {
		proto = unix.ETH_P_IPV6
	}
	frame := append(append(append([]byte(nil), to.HardwareAddr...), from.HardwareAddr...), byte(proto>>8), byte(proto))
	frame = append(frame, p.bytes()...)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		tb.Fatal(err)
	}
	defer unix.Close(fd)
	for range n {
		if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: from.Index, Halen: 6}); err != nil {
			tb.Fatal(err)
		}
	}
}

// bytes is the packet from its network header on.
func (p Packet) bytes() []byte {
	l4, proto, sumAt := p.transport()
	src, dst := p.Src.Addr().AsSlice(), p.Dst.Addr().AsSlice()
	// The sum is of a pseudo header, too: RFC 768, RFC 8200 8.1.
	pseudo := append(append(append([]byte(nil), src...), dst...), 0, proto, 0, byte(len(l4)))
	binary.BigEndian.PutUint16(l4[sumAt:], checksum(append(pseudo, l4...)))
	if p.Src.Addr().Is6() {
		h := []byte{0x60, 0, 0, 0, 0, byte(len(l4)), proto, 64}
		return append(append(append(h, src...), dst...), l4...)
	}
	h := []byte{0x45, 0, 0, byte(20 + len(l4)), 0, 1, 0, 0, 64, proto, 0, 0}
	h = append(append(h, src...), dst...)
	binary.BigEndian.PutUint16(h[10:], checksum(h))
	return append(h, l4...)
}

// transport is the header of UDP or TCP, its protocol's number, and where its
// checksum goes.
func (p Packet) transport() (h []byte, proto byte, sumAt int) {
	h = binary.BigEndian.AppendUint16(h, p.Src.Port())
	h = binary.BigEndian.AppendUint16(h, p.Dst.Port())
	if !p.TCP {
		return append(h, 0, 8, 0, 0), unix.IPPROTO_UDP, 6
	}
	h = append(h, 0, 0, 0, 1, 0, 0, 0, 1, 5<<4, p.Flags, 0xff, 0xff, 0, 0, 0, 0)
	return h, unix.IPPROTO_TCP, 16
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
