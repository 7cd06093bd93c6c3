// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"
	"errors"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// accountMessage is an object as the kernel sends it.
func accountMessage(name string, packets uint64) netlink.Message {
	be64 := func(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
	b := nlattr.AppendString(netfilter.AppendGenMsg(nil, netfilter.GenMsg{}), 1, name)
	b = nlattr.Append(nlattr.Append(b, 2, be64(packets)), 3, be64(60*packets))
	return netlink.Message{Header: netlink.Header{Type: 7 << 8, Flags: netlink.Multi}, Data: b}
}

func TestAccounts(t *testing.T) {
	var asked netlink.Message
	k := &fakeKernel{answer: func(req netlink.Message) ([]netlink.Message, error) {
		asked = req
		return []netlink.Message{accountMessage("a", 5), accountMessage("b", 0), errnoMessage(netlink.Done, 0)}, nil
	}}
	r := &NFAcct{modules: fakeRoot(t, nil), conn: conn{dial: k.dial}}
	got, err := r.Objects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string]netfilter.Counter{"a": {Packets: 5, Bytes: 300}, "b": {}}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	// NFNL_MSG_ACCT_GET and not NFNL_MSG_ACCT_GET_CTRZERO.
	if asked.Header.Type != 7<<8|1 || asked.Header.Flags != netlink.Request|netlink.Dump {
		t.Errorf("asked %+v", asked.Header)
	}
	if err := r.Close(); err != nil || k.open != 0 {
		t.Errorf("close: %v, %d sockets left", err, k.open)
	}
}

func TestAccountsThatCannotBeRead(t *testing.T) {
	answer := func(errno syscall.Errno) *NFAcct {
		k := &fakeKernel{answer: func(netlink.Message) ([]netlink.Message, error) { return nil, errno }}
		return &NFAcct{modules: fakeRoot(t, nil), conn: conn{dial: k.dial}}
	}
	if _, err := answer(unix.EINVAL).Objects(t.Context()); !errors.Is(err, ErrAbsent) {
		t.Errorf("no such subsystem: %v", err)
	}
	_, err := answer(unix.EPERM).Objects(t.Context())
	if c, ok := errors.AsType[*CapabilityError](err); !ok || c.Op != "read nfacct objects" {
		t.Errorf("without the capability: %v", err)
	}
	k := &fakeKernel{answer: func(netlink.Message) ([]netlink.Message, error) {
		m := accountMessage("a", 5)
		m.Data = m.Data[:len(m.Data)-4]
		return []netlink.Message{accountMessage("b", 5), m, errnoMessage(netlink.Done, 0)}, nil
	}}
	r := &NFAcct{modules: fakeRoot(t, nil), conn: conn{dial: k.dial}}
	if all, err := r.Objects(t.Context()); err == nil || all != nil {
		t.Errorf("damaged: %v, %v", all, err)
	}
}

func TestAccountsLoadNoModule(t *testing.T) {
	k := &fakeKernel{answer: func(netlink.Message) ([]netlink.Message, error) {
		return []netlink.Message{errnoMessage(netlink.Done, 0)}, nil
	}}
	m := modular(t, otherSymbols)
	r := &NFAcct{modules: m, conn: conn{dial: k.dial}}
	if _, err := r.Objects(t.Context()); !errors.Is(err, ErrAbsent) || k.dials != 0 {
		t.Errorf("got %v after %d dials, want ErrAbsent and none", err, k.dials)
	}
	m.insert(t, nfacctModule)
	if _, err := r.Objects(t.Context()); err != nil || k.dials != 1 {
		t.Errorf("loaded: %v after %d dials", err, k.dials)
	}
}

// TestAccountsOfTheKernel reads objects that rules of both families count in.
func TestAccountsOfTheKernel(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		r := OpenNFAcct()
		defer r.Close()
		want := func(when string, want map[string]uint64) {
			t.Helper()
			objects, err := r.Objects(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got := make(map[string]uint64)
			for name, c := range objects {
				got[name] = c.Packets
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s (-want +got):\n%s", when, d)
			}
		}
		kerneltest.MakeAccount(t, "one")
		kerneltest.MakeAccount(t, "other")
		want("new", map[string]uint64{"one": 0, "other": 0})
		for _, tool := range []string{"iptables-nft", "ip6tables-nft"} {
			kerneltest.Exec(t, "", tool, "-A", "INPUT", "-i", "lo", "-p", "udp", "-m", "nfacct", "--nfacct-name", "one", "-j", "DROP")
		}
		sendUDP(t, "127.0.0.1", 3)
		sendUDP(t, "::1", 3)
		want("counted", map[string]uint64{"one": 6, "other": 0})
		want("read before", map[string]uint64{"one": 6, "other": 0})
		kerneltest.DeleteAccount(t, "other")
		want("one is gone", map[string]uint64{"one": 6})
	})
}
