// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// fakeKernel answers requests with messages, each in a datagram of its own,
// or refuses one with an errno. Without an answer the reader waits for its
// deadline.
type fakeKernel struct {
	answer func(req netlink.Message) ([]netlink.Message, error)
	dials  int
	open   int
}

func (k *fakeKernel) dial() (transport, error) {
	k.dials++
	k.open++
	return &fakeSocket{kernel: k}, nil
}

type fakeSocket struct {
	kernel *fakeKernel
	seq    uint32
	queue  []netlink.Message
	err    error
}

func (s *fakeSocket) Send(_ context.Context, m netlink.Message) (netlink.Message, error) {
	s.seq++
	m.Header.Sequence = s.seq
	s.queue, s.err = s.kernel.answer(m)
	if errno, ok := errors.AsType[syscall.Errno](s.err); ok && errno != unix.ENOBUFS {
		s.queue, s.err = []netlink.Message{errnoMessage(netlink.Error, errno)}, nil
	}
	return m, nil
}

func (s *fakeSocket) Receive(ctx context.Context) ([]byte, error) {
	if s.err != nil {
		return nil, s.err
	}
	if len(s.queue) == 0 {
		<-ctx.Done()
		return nil, os.ErrDeadlineExceeded
	}
	m := s.queue[0]
	s.queue = s.queue[1:]
	m.Header.Sequence = s.seq
	m.Header.Length = uint32(nlattr.HeaderLen + len(m.Data))
	return m.MarshalBinary()
}

func (s *fakeSocket) Close() error {
	s.kernel.open--
	return nil
}

// errnoMessage is an NLMSG_ERROR or NLMSG_DONE with an errno, 0 for none.
func errnoMessage(typ netlink.HeaderType, errno syscall.Errno) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: typ, Flags: netlink.Multi},
		Data:   binary.NativeEndian.AppendUint32(nil, uint32(-int32(errno))),
	}
}

// scene is a captured ruleset that answers as the kernel does.
type scene struct {
	gen, tables, chains, rules, sets, elements []netlink.Message

	asked []string // chains, in the order of GETRULE
}

func readScene(tb testing.TB, name string) *scene {
	tb.Helper()
	s := &scene{}
	for file, to := range map[string]*[]netlink.Message{
		"gen.bin": &s.gen, "tables.bin": &s.tables, "chains.bin": &s.chains, "rules.bin": &s.rules,
		"sets.bin": &s.sets, "elements.bin": &s.elements,
	} {
		b, err := os.ReadFile(filepath.Join("../netfilter/nftables/testdata", name, file))
		if err != nil {
			tb.Fatal(err)
		}
		it := nlattr.Messages(b)
		for it.Next() {
			m := it.Message()
			*to = append(*to, netlink.Message{
				Header: netlink.Header{Type: netlink.HeaderType(m.Type), Flags: netlink.HeaderFlags(m.Flags)},
				Data:   m.Payload,
			})
		}
		if it.Err() != nil {
			tb.Fatal(it.Err())
		}
	}
	return s
}

// answer is the answer of a kernel that holds the scene.
func (s *scene) answer(req netlink.Message) ([]netlink.Message, error) {
	h, attrs, err := netfilter.DecodeGenMsg(req.Data)
	if err != nil {
		return nil, err
	}
	var out []netlink.Message
	switch requestType(req.Header.Type) {
	case getGen:
		return s.gen, nil
	case getTable:
		out = ofFamily(s.tables, h.Family)
	case getChain:
		out = ofFamily(s.chains, h.Family)
	case getRule:
		var table, chain string
		a := nlattr.Attrs(attrs)
		for a.Next() {
			switch a.Type() {
			case unix.NFTA_RULE_TABLE:
				table = a.String()
			case unix.NFTA_RULE_CHAIN:
				chain = a.String()
			}
		}
		s.asked = append(s.asked, table+"/"+chain)
		for _, m := range ofFamily(s.rules, h.Family) {
			if r, err := nftables.DecodeRule(m.Data); err != nil || r.Table == table && r.Chain == chain {
				out = append(out, m)
			}
		}
	case getSet:
		for _, m := range ofFamily(s.sets, h.Family) {
			if set, err := nftables.DecodeSet(m.Data); err != nil || set.Table == textIn(attrs, unix.NFTA_SET_TABLE) {
				out = append(out, m)
			}
		}
	case getSetElem:
		name := textIn(attrs, unix.NFTA_SET_ELEM_LIST_SET)
		for _, m := range ofFamily(s.elements, h.Family) {
			if es, err := nftables.DecodeElements(m.Data); err != nil || es.Set == name {
				out = append(out, m)
			}
		}
	default:
		return nil, unix.EINVAL
	}
	return append(slices.Clip(out), errnoMessage(netlink.Done, 0)), nil
}

// textIn is an attribute of a request.
func textIn(attrs []byte, typ uint16) string {
	for a := nlattr.Attrs(attrs); a.Next(); {
		if a.Type() == typ {
			return a.String()
		}
	}
	return ""
}

func ofFamily(msgs []netlink.Message, f netfilter.Family) (out []netlink.Message) {
	for _, m := range msgs {
		if netfilter.Family(m.Data[0]) == f {
			out = append(out, m)
		}
	}
	return out
}
