// SPDX-License-Identifier: Apache-2.0

// Package kernelflows fills the connection-tracking table of a test's namespace
// with entries over ctnetlink.
package kernelflows

import (
	"errors"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"
)

// Flow is an entry: what the first packet said, and from where to where the
// answer goes. The zero From and To are the original's turned round.
type Flow struct {
	Protocol uint8 // IPPROTO_*; of ICMP the port of Src is the identifier
	Src, Dst netip.AddrPort
	From, To netip.AddrPort
	Replied  bool
	State    uint8 // of TCP and SCTP
}

// Make makes entries and returns how many of them are new; the kernel says ENOMEM
// where the table is full.
func Make(tb testing.TB, flows ...Flow) (made int) {
	tb.Helper()
	c, err := conntrack.Dial(nil)
	if err != nil {
		tb.Fatal(err)
	}
	defer c.Close()
	for i := range flows {
		err := c.Create(flows[i].entry())
		switch {
		case err == nil:
			made++
		case !errors.Is(err, unix.EEXIST):
			tb.Fatalf("make entry %+v: %v", flows[i], err)
		}
	}
	return made
}

// MakeAndDelete makes one entry and deletes it.
func MakeAndDelete(tb testing.TB, f Flow) {
	tb.Helper()
	c, err := conntrack.Dial(nil)
	if err != nil {
		tb.Error(err)
		return
	}
	defer c.Close()
	e := f.entry()
	if err := c.Create(e); err != nil {
		tb.Errorf("make entry %+v: %v", f, err)
	}
	if err := c.Delete(e); err != nil {
		tb.Errorf("delete entry %+v: %v", f, err)
	}
}

// Fill makes the first n entries of those that numbered numbers, at most until the
// table is full, and returns how many.
func Fill(tb testing.TB, n int, numbered func(int) Flow) int {
	tb.Helper()
	c, err := conntrack.Dial(nil)
	if err != nil {
		tb.Fatal(err)
	}
	defer c.Close()
	for i := range n {
		f := numbered(i)
		err := c.Create(f.entry())
		if errors.Is(err, unix.ENOMEM) {
			return i
		}
		if err != nil {
			tb.Fatalf("make entry %d: %v", i, err)
		}
	}
	return n
}

// Egress is the i-th of the connections that a pod makes to as many destinations, all
// masqueraded.
func Egress(i int) Flow {
	f := Flow{
		Protocol: unix.IPPROTO_TCP, Replied: true, State: 3,
		Src: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 200, 0, 1}), uint16(1024+i%60000)),
		Dst: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, byte(18 + i>>16), byte(i >> 8), byte(i)}), 443),
	}
	f.From, f.To = f.Dst, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 201, 0, 1}), f.Src.Port())
	return f
}

// Numbered is the i-th connection to a Service: of 250 clients to Service i%1000 of
// 10.96.0.0/16 at port 80, and so to one of three endpoints; every third one is
// masqueraded.
func Numbered(i int) Flow {
	svc := i % 1000
	f := Flow{
		Protocol: unix.IPPROTO_TCP, Replied: i%10 != 0, State: 3,
		Src:  netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 200, byte(i / 60000), 1}), uint16(1024+i%60000)),
		Dst:  netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 96, byte(svc >> 8), byte(svc)}), 80),
		From: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 244, byte(svc >> 8), byte(svc)}), uint16(8080+i%3)),
	}
	if !f.Replied {
		f.State = 1
	}
	f.To = f.Src
	if i%3 == 0 {
		f.To = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 201, byte(i / 60000), 1}), f.Src.Port())
	}
	return f
}

func (f *Flow) entry() conntrack.Flow {
	status := conntrack.StatusConfirmed
	if f.Replied {
		status |= conntrack.StatusSeenReply | conntrack.StatusAssured
	}
	out := conntrack.NewFlow(f.Protocol, status, f.Src.Addr(), f.Dst.Addr(), f.Src.Port(), f.Dst.Port(), 3600, 0)
	if f.From.IsValid() {
		out.TupleReply.IP.SourceAddress, out.TupleReply.Proto.SourcePort = f.From.Addr(), f.From.Port()
		out.TupleReply.IP.DestinationAddress, out.TupleReply.Proto.DestinationPort = f.To.Addr(), f.To.Port()
	}
	switch f.Protocol {
	case unix.IPPROTO_TCP:
		out.ProtoInfo.TCP = &conntrack.ProtoInfoTCP{State: f.State}
	case unix.IPPROTO_SCTP:
		out.ProtoInfo.SCTP = &conntrack.ProtoInfoSCTP{State: f.State, VTagOriginal: 1, VTagReply: 2}
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		icmp(&out, f)
	}
	return out
}

// icmp makes an echo request of the entry, and its answer.
func icmp(out *conntrack.Flow, f *Flow) {
	request, reply := uint8(8), uint8(0)
	out.TupleOrig.Proto.ICMPv4, out.TupleReply.Proto.ICMPv4 = f.Protocol == unix.IPPROTO_ICMP, f.Protocol == unix.IPPROTO_ICMP
	if f.Protocol == unix.IPPROTO_ICMPV6 {
		request, reply = 128, 129
		out.TupleOrig.Proto.ICMPv6, out.TupleReply.Proto.ICMPv6 = true, true
	}
	for _, t := range []*conntrack.ProtoTuple{&out.TupleOrig.Proto, &out.TupleReply.Proto} {
		t.SourcePort, t.DestinationPort, t.ICMPID = 0, 0, f.Src.Port()
	}
	out.TupleOrig.Proto.ICMPType, out.TupleReply.Proto.ICMPType = request, reply
}

// Limit is how many entries a test may make: nine tenths of the host's limit.
func Limit(tb testing.TB) int {
	tb.Helper()
	b, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_max")
	if err != nil {
		tb.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		tb.Fatal(err)
	}
	return n / 10 * 9
}
