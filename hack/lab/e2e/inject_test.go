// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/hack/lab/labtest"
)

// insideCommands are what this test binary does in a namespace of the lab, by its
// first argument.
func insideCommands() map[string]func([]string) error {
	return map[string]func([]string) error{conntrackArg: conntrackMain, packetsArg: packetsMain, holdArg: holdMain, objectsArg: objectsMain}
}

// insideArgv is the command line of one of insideCommands.
func insideArgv(t *testing.T, arg string, args ...string) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return append([]string{self, arg}, args...)
}

// sendSignal signals all processes of a program on node1. Only the lab's processes are
// to be seen in the lab.
func sendSignal(lab *labtest.Lab, program, name string) {
	lab.Exec("node1", "sh", "-ec", `for p in /proc/[0-9]*; do [ "$(cat $p/comm 2>/dev/null)" != `+program+` ] || kill -`+name+` ${p#/proc/}; done`)
}

// packetsArg makes this test binary call packetsMain.
const packetsArg = "__packets"

// The kinds of packets. Each has a source port of its own, and none is sent twice, so
// that what is refused can be counted.
const (
	synPacket  = "syn"  // the first one of a TCP connection
	finPacket  = "fin"  // the last one of a TCP connection that nobody knows: INVALID
	udpPacket  = "udp"  // a datagram
	longPacket = "long" // a datagram that says it is longer than it is: INVALID
)

// packetsMain is `RATE [KIND TO N]…`: it sends N packets of a kind to an address and
// port, RATE a second, or as fast as they go where that is 0.
func packetsMain(args []string) error {
	if len(args)%3 != 1 {
		return fmt.Errorf("want RATE [KIND TO N]…, not %q", args)
	}
	rate, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	pace := func() {}
	if rate > 0 {
		tick := time.NewTicker(time.Second / time.Duration(rate))
		defer tick.Stop()
		pace = func() { <-tick.C }
	}
	for one := range slices.Chunk(args[1:], 3) {
		to, err := netip.ParseAddrPort(one[1])
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(one[2])
		if err != nil {
			return err
		}
		if err := sendPackets(one[0], to, n, pace); err != nil {
			return fmt.Errorf("send %s to %s: %w", one[0], to, err)
		}
	}
	return nil
}

// sendPackets sends over a raw socket, which no answer reaches.
func sendPackets(kind string, to netip.AddrPort, n int, pace func()) error {
	src, err := sourceOf(to)
	if err != nil {
		return err
	}
	protocol := byte(unix.IPPROTO_TCP)
	if kind == udpPacket || kind == longPacket {
		protocol = unix.IPPROTO_UDP
	}
	network := fmt.Sprintf("ip4:%d", protocol)
	if to.Addr().Is6() {
		network = fmt.Sprintf("ip6:%d", protocol)
	}
	conn, err := net.ListenIP(network, &net.IPAddr{IP: src.AsSlice()})
	if err != nil {
		return err
	}
	defer conn.Close()
	const firstPort, ports = 40000, 20000
	for i := range n {
		pace()
		p := packet(kind, netip.AddrPortFrom(src, uint16(firstPort+i%ports)), to)
		if _, err := conn.WriteToIP(p, &net.IPAddr{IP: to.Addr().AsSlice()}); err != nil {
			return err
		}
	}
	return nil
}

// sourceOf is the address that the kernel chooses for a destination. To connect a
// datagram socket sends nothing.
func sourceOf(to netip.AddrPort) (netip.Addr, error) {
	c, err := net.Dial("udp", to.String())
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	local, err := netip.ParseAddrPort(c.LocalAddr().String())
	return local.Addr(), err
}

// packet is one from its transport header on.
func packet(kind string, src, dst netip.AddrPort) []byte {
	be16 := binary.BigEndian.AppendUint16
	b := be16(be16(nil, src.Port()), dst.Port())
	sum, protocol := 0, byte(unix.IPPROTO_TCP)
	switch kind {
	case synPacket, finPacket:
		const syn, finACK = 0x02, 0x11
		flags := byte(syn)
		if kind == finPacket {
			flags = finACK
		}
		b = append(b, 0, 0, 0, 1, 0, 0, 0, 1) // sequence numbers
		b = append(b, 5<<4, flags)            // a header of 5 words
		b = be16(b, 1024)                     // window
		sum = len(b)
		b = append(b, 0, 0, 0, 0)
	default:
		const said = 100
		payload := []byte("who?")
		length := 8 + len(payload)
		if kind == longPacket {
			length += said
		}
		b, protocol = be16(b, uint16(length)), unix.IPPROTO_UDP
		sum = len(b)
		b = append(append(b, 0, 0), payload...)
	}
	binary.BigEndian.PutUint16(b[sum:], checksum(src.Addr(), dst.Addr(), protocol, b))
	return b
}

// checksum is that of a segment with a pseudo-header before it.
func checksum(src, dst netip.Addr, protocol byte, segment []byte) uint16 {
	sum := uint32(protocol) + uint32(len(segment))
	for _, part := range [][]byte{src.AsSlice(), dst.AsSlice(), segment} {
		for i, b := range part {
			if i%2 == 0 {
				sum += uint32(b) << 8
			} else {
				sum += uint32(b)
			}
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// TestChecksum: with its checksum in it a segment has the checksum 0.
func TestChecksum(t *testing.T) {
	src, dst := netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("127.0.0.2:2")
	for _, kind := range []string{synPacket, finPacket, udpPacket, longPacket} {
		protocol := byte(unix.IPPROTO_TCP)
		if kind == udpPacket || kind == longPacket {
			protocol = unix.IPPROTO_UDP
		}
		if got := checksum(src.Addr(), dst.Addr(), protocol, packet(kind, src, dst)); got != 0 {
			t.Errorf("%s: the checksum is off by %#x", kind, got)
		}
	}
	// A single byte is a high one; length and destination are the rest.
	if got, want := checksum(netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("0.0.0.1"), 0, []byte{0xff}), ^uint16(0xff00+1+1); got != want {
		t.Errorf("the checksum is %#x, want %#x", got, want)
	}
}
