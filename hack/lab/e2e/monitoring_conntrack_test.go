// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Of linux/netfilter/nfnetlink_conntrack.h and nf_conntrack_common.h.
const (
	ctNew, ctDelete = unix.NFNL_SUBSYS_CTNETLINK << 8, unix.NFNL_SUBSYS_CTNETLINK<<8 | 2

	ctaTupleOrig, ctaTupleReply, ctaStatus, ctaTimeout, ctaMark, ctaMarkMask = 1, 2, 3, 7, 8, 21
	ctaTupleIP, ctaTupleProto                                                = 1, 2
	ctaIPv4Src, ctaIPv4Dst                                                   = 1, 2
	ctaProtoNum, ctaProtoSrcPort, ctaProtoDstPort                            = 1, 2, 3

	ipsSeenReply, ipsAssured, ipsConfirmed = 1 << 1, 1 << 2, 1 << 3
)

// fillMark tells the entries made here from those of real packets.
const fillMark = 0x5ce1e

// conntrackArg is the first argument that makes this test binary call
// conntrackMain: it then runs in a namespace of the lab.
const conntrackArg = "__conntrack"

// conntrackMain is `free N`, `assured N` or `clear`. It makes entries of made
// up UDP flows until the table has N, at most until it is full. The kernel
// evicts free entries when it needs room; assured ones it never does. clear
// removes both.
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
	if len(args) != 2 {
		return fmt.Errorf("want free N, assured N or clear, not %q", args)
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
	return nl.fill(have, want, status)
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

// fill makes the flows from one number to another; a full table is no error.
func (s *netlinkSocket) fill(at, n int, status uint32) error {
	const batch = 256
	for at < n {
		var messages []byte
		for end := min(at+batch, n); at < end; at++ {
			flags := 0
			if at == end-1 {
				flags = unix.NLM_F_ACK
			}
			messages = append(messages, newEntry(at, status, flags)...)
		}
		if err := s.request(messages); errors.Is(err, unix.ENOMEM) {
			return nil
		} else if err != nil {
			return fmt.Errorf("make an entry: %w", err)
		}
	}
	return nil
}

// newEntry is a message that makes the entry of flow n, of UDP from and to
// addresses for documentation, with its reply.
func newEntry(n int, status uint32, flags int) []byte {
	be32 := binary.BigEndian.AppendUint32
	src, dst := be32(nil, 0xc0000200+uint32(n>>16)), be32(nil, 0xcb007101) // 192.0.2.x, 203.0.113.1
	port, dns := binary.BigEndian.AppendUint16(nil, uint16(n)), []byte{0, 53}
	tuple := func(kind uint16, src, dst, sport, dport []byte) []byte {
		return nest(kind,
			nest(ctaTupleIP, attr(ctaIPv4Src, src), attr(ctaIPv4Dst, dst)),
			nest(ctaTupleProto, attr(ctaProtoNum, []byte{unix.IPPROTO_UDP}), attr(ctaProtoSrcPort, sport), attr(ctaProtoDstPort, dport)))
	}
	return message(ctNew, unix.NLM_F_CREATE|flags,
		tuple(ctaTupleOrig, src, dst, port, dns), tuple(ctaTupleReply, dst, src, dns, port),
		attr(ctaTimeout, be32(nil, 600)), attr(ctaStatus, be32(nil, status)), attr(ctaMark, be32(nil, fillMark)))
}

// message is a request to nfnetlink about IPv4.
func message(kind, flags int, attrs ...[]byte) []byte {
	body := []byte{unix.AF_INET, unix.NFNETLINK_V0, 0, 0}
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
