// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Of linux/netfilter/nfnetlink_conntrack.h and nf_conntrack_common.h.
const (
	ctNew, ctDelete = unix.NFNL_SUBSYS_CTNETLINK << 8, unix.NFNL_SUBSYS_CTNETLINK<<8 | 2

	ctaTupleOrig, ctaTupleReply, ctaStatus, ctaProtoInfo, ctaTimeout, ctaMark, ctaMarkMask = 1, 2, 3, 4, 7, 8, 21
	ctaTupleIP, ctaTupleProto                                                              = 1, 2
	ctaIPv4Src, ctaIPv4Dst                                                                 = 1, 2
	ctaProtoNum, ctaProtoSrcPort, ctaProtoDstPort                                          = 1, 2, 3
	ctaProtoInfoTCP, ctaProtoInfoTCPState                                                  = 1, 1

	ipsSeenReply, ipsAssured, ipsConfirmed = 1 << 1, 1 << 2, 1 << 3
)

// fillMark tells the entries made here from those of real packets.
const fillMark = 0x5ce1e

// conntrackArg makes this test binary call conntrackMain.
const conntrackArg = "__conntrack"

// conntrackMain is `free N`, `assured N`, `astray` or `clear`. It makes entries
// of made up UDP flows until the table has N, at most until it is full. The
// kernel evicts free entries when it needs room; assured ones it never does.
// astray makes what astrayFlows has. clear removes all.
func conntrackMain(args []string) error {
	nl, err := openNetlink()
	if err != nil {
		return err
	}
	defer unix.Close(nl.fd)
	if len(args) == 1 && args[0] == "clear" {
		mark := binary.BigEndian.AppendUint32(nil, fillMark)
		mask := binary.BigEndian.AppendUint32(nil, ^uint32(0))
		return nl.request(message(ctDelete, unix.NLM_F_ACK, attr(ctaMark, mark), attr(ctaMarkMask, mask)))
	}
	if len(args) == 1 && args[0] == "astray" {
		return nl.make(astrayFlows())
	}
	if len(args) != 2 {
		return fmt.Errorf("want free N, assured N, astray or clear, not %q", args)
	}
	want, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	have, err := readCount("nf_conntrack_count")
	if err != nil {
		return err
	}
	status := uint32(ipsConfirmed)
	if args[0] == "assured" {
		status |= ipsSeenReply | ipsAssured
	}
	var all []fakeFlow
	for n := have; n < want; n++ {
		all = append(all, madeUp(n, status))
	}
	return nl.make(all)
}

// readCount reads one of conntrack's numbers of the calling process' network
// namespace.
func readCount(name string) (int, error) {
	b, err := os.ReadFile("/proc/sys/net/netfilter/" + name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

type netlinkSocket struct{ fd int }

func openNetlink() (*netlinkSocket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	return &netlinkSocket{fd}, nil
}

// request sends messages, of which the last one asks for an acknowledgement,
// and returns the first error that the kernel answers.
func (s *netlinkSocket) request(messages []byte) error {
	if err := unix.Sendto(s.fd, messages, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send to netlink: %w", err)
	}
	buf := make([]byte, 1<<16)
	n, _, err := unix.Recvfrom(s.fd, buf, 0)
	if err != nil {
		return fmt.Errorf("receive from netlink: %w", err)
	}
	if n < unix.NLMSG_HDRLEN+4 || binary.NativeEndian.Uint16(buf[4:]) != unix.NLMSG_ERROR {
		return errors.New("netlink answers something else than an error or 0")
	}
	if code := int32(binary.NativeEndian.Uint32(buf[unix.NLMSG_HDRLEN:])); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}

// make makes entries; a full table is no error.
func (s *netlinkSocket) make(flows []fakeFlow) error {
	for batch := range slices.Chunk(flows, 256) {
		var messages []byte
		for i := range batch {
			flags := 0
			if i == len(batch)-1 {
				flags = unix.NLM_F_ACK
			}
			messages = append(messages, batch[i].message(flags)...)
		}
		if err := s.request(messages); errors.Is(err, unix.ENOMEM) {
			return nil
		} else if err != nil {
			return fmt.Errorf("make an entry: %w", err)
		}
	}
	return nil
}

// fakeFlow is an entry: where its first packet went, and from where to where the
// answer goes.
type fakeFlow struct {
	protocol byte
	src, dst netip.AddrPort
	from, to netip.AddrPort
	status   uint32
	state    byte // of TCP
}

// madeUp is flow n, of UDP from and to addresses for documentation.
func madeUp(n int, status uint32) fakeFlow {
	src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(n >> 16)}), uint16(n))
	dst := netip.MustParseAddrPort("203.0.113.1:53")
	return fakeFlow{protocol: unix.IPPROTO_UDP, src: src, dst: dst, from: dst, to: src, status: status}
}

// astrayFlows lead nowhere: of the demo scene's dns to what is no endpoint of
// it, of kubernetes, which nobody else uses, to an endpoint that does not answer,
// and from so many masqueraded ports to one destination that few are left.
func astrayFlows() []fakeFlow {
	client := func(n int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 168, 50, 200}), uint16(1024+n))
	}
	answered := uint32(ipsConfirmed | ipsSeenReply | ipsAssured)
	var all []fakeFlow
	for n := range 20 {
		all = append(all, fakeFlow{
			protocol: unix.IPPROTO_UDP, src: client(n), dst: netip.MustParseAddrPort("10.96.0.53:53"),
			from: netip.MustParseAddrPort("10.244.1.250:5353"), to: client(n), status: answered,
		})
	}
	for n := range 60 {
		const synSent = 1
		all = append(all, fakeFlow{
			protocol: unix.IPPROTO_TCP, src: client(n), dst: netip.MustParseAddrPort("10.96.0.1:443"),
			from: netip.MustParseAddrPort("192.168.50.2:6443"), to: client(n), status: ipsConfirmed, state: synSent,
		})
	}
	for n := range 60000 {
		const established = 3
		dst := netip.MustParseAddrPort("203.0.113.2:443")
		all = append(all, fakeFlow{
			protocol: unix.IPPROTO_TCP, src: client(n), dst: dst, from: dst, status: answered, state: established,
			to: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 168, 50, 1}), uint16(1024+n)),
		})
	}
	return all
}

// message makes the entry.
func (f *fakeFlow) message(flags int) []byte {
	be32, be16 := binary.BigEndian.AppendUint32, binary.BigEndian.AppendUint16
	tuple := func(kind uint16, src, dst netip.AddrPort) []byte {
		return nest(kind,
			nest(ctaTupleIP, attr(ctaIPv4Src, src.Addr().AsSlice()), attr(ctaIPv4Dst, dst.Addr().AsSlice())),
			nest(ctaTupleProto, attr(ctaProtoNum, []byte{f.protocol}),
				attr(ctaProtoSrcPort, be16(nil, src.Port())), attr(ctaProtoDstPort, be16(nil, dst.Port()))))
	}
	attrs := [][]byte{
		tuple(ctaTupleOrig, f.src, f.dst), tuple(ctaTupleReply, f.from, f.to),
		attr(ctaTimeout, be32(nil, 600)), attr(ctaStatus, be32(nil, f.status)), attr(ctaMark, be32(nil, fillMark)),
	}
	if f.protocol == unix.IPPROTO_TCP {
		attrs = append(attrs, nest(ctaProtoInfo, nest(ctaProtoInfoTCP, attr(ctaProtoInfoTCPState, []byte{f.state}))))
	}
	return message(ctNew, unix.NLM_F_CREATE|flags, attrs...)
}

// message is a request to nfnetlink about IPv4.
func message(kind, flags int, attrs ...[]byte) []byte {
	return messageOf([]byte{unix.AF_INET, unix.NFNETLINK_V0, 0, 0}, kind, flags, attrs...)
}

// messageOf is one with this struct nfgenmsg.
func messageOf(head []byte, kind, flags int, attrs ...[]byte) []byte {
	body := slices.Clone(head)
	for _, a := range attrs {
		body = append(body, a...)
	}
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(body)))
	b = binary.NativeEndian.AppendUint16(b, uint16(kind))
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.NLM_F_REQUEST|flags))
	return append(append(b, make([]byte, 8)...), body...) // sequence number and port are 0
}

func nest(kind uint16, attrs ...[]byte) []byte {
	var body []byte
	for _, a := range attrs {
		body = append(body, a...)
	}
	return attr(kind|unix.NLA_F_NESTED, body)
}

// attr is an attribute with its padding.
func attr(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	return append(b, make([]byte, (4-len(b)%4)%4)...)
}
