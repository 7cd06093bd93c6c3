// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
)

// openFake opens a reader of a fake kernel.
func openFake(t *testing.T, k *fakeKernel) *NFTables {
	t.Helper()
	n, err := openNFTables(fakeRoot(t, nil), k.dial)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil || k.open != 0 {
			t.Errorf("close: %v, %d sockets left", err, k.open)
		}
	})
	return n
}

func TestReadWholeRuleset(t *testing.T) {
	s := readScene(t, "kube-proxy")
	n := openFake(t, &fakeKernel{answer: s.answer})
	r, err := n.Read(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	rules, chains := 0, 0
	for _, table := range r.Tables {
		for _, c := range table.Chains {
			if !c.Read || c.Chain.Table != table.Name {
				t.Errorf("chain %s of %s in table %s: read %v", c.Name, c.Chain.Table, table.Name, c.Read)
			}
			chains++
			rules += len(c.Rules)
		}
	}
	if rules != len(s.rules) || chains != len(s.chains) || len(r.Tables) != len(s.tables) {
		t.Errorf("got %d rules, %d chains, %d tables; want %d, %d, %d",
			rules, chains, len(r.Tables), len(s.rules), len(s.chains), len(s.tables))
	}
	if r.Generation == 0 || r.Retries != 0 || len(r.Skipped) != 0 || len(r.Undecoded) != 0 {
		t.Errorf("got generation %d, %d retries, skipped %v, undecoded %v", r.Generation, r.Retries, r.Skipped, r.Undecoded)
	}
}

func TestReadInTheSelectorsOrder(t *testing.T) {
	s := readScene(t, "kube-proxy")
	n := openFake(t, &fakeKernel{answer: s.answer})
	var want []string
	r, err := n.Read(t.Context(), func(table nftables.Table, chains []nftables.Chain) []nftables.Chain {
		if table.Name != "nat" {
			return nil
		}
		var out []nftables.Chain
		for _, prefix := range []string{"KUBE-SVL-", "KUBE-SVC-", "KUBE-EXT-"} {
			for _, c := range chains {
				if strings.HasPrefix(c.Name, prefix) {
					out = append(out, c)
					want = append(want, "nat/"+c.Name)
				}
			}
		}
		return append(out, out...) // asking twice reads once
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, s.asked); d != "" || len(want) == 0 {
		t.Errorf("chains asked for (-want +got):\n%s", d)
	}
	for _, table := range r.Tables {
		for _, c := range table.Chains {
			if c.Read != slices.Contains(want, table.Name+"/"+c.Name) || c.Read != (c.Rules != nil) {
				t.Errorf("chain %s/%s: read %v, %d rules", table.Name, c.Name, c.Read, len(c.Rules))
			}
		}
	}
}

// damageOne answers as the kernel does, but cuts the end off the first message
// of that type that is of a table; n bytes.
func damageOne(s *scene, typ requestType, table string, n int) func(netlink.Message) ([]netlink.Message, error) {
	done := false
	return func(req netlink.Message) ([]netlink.Message, error) {
		msgs, err := s.answer(req)
		if requestType(req.Header.Type) != typ || done {
			return msgs, err
		}
		msgs = slices.Clone(msgs)
		for i, m := range msgs {
			if !done && m.Header.Type != netlink.Done && bytes.Contains(m.Data, []byte(table+"\x00")) {
				msgs[i].Data, done = m.Data[:len(m.Data)-n], true
			}
		}
		return msgs, err
	}
}

func TestBadMessageIsSkipped(t *testing.T) {
	s := readScene(t, "native")
	n := openFake(t, &fakeKernel{answer: damageOne(s, getRule, "tool", 4)})
	r, err := n.Read(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.Skipped["rule"] != 1 || r.SkipErr == nil || !strings.HasPrefix(r.SkipErr.Error(), "read rules of chain ") {
		t.Errorf("skipped %v, %v", r.Skipped, r.SkipErr)
	}
	want := map[string]uint64{"expression/connlimit": 1, "expression/exthdr": 1, "expression/hash": 1, "expression/rt": 1}
	if d := cmp.Diff(want, r.Undecoded); d != "" {
		t.Errorf("undecoded (-want +got):\n%s", d)
	}
}

func TestDamageInATableOfIPTablesFailsTheReading(t *testing.T) {
	tests := []struct {
		name string
		kind string
		typ  requestType
		cut  int
		want string
	}{
		{"table", "table", getTable, 4, "read table nat (IPv4): "},
		{"table without a name", "table", getTable, 32, "read tables (IPv4): "},
		{"chain", "chain", getChain, 4, "read chains of table nat (IPv4): "},
		{"rule", "rule", getRule, 4, "read rules of chain KUBE-"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := openFake(t, &fakeKernel{answer: damageOne(readScene(t, "kube-proxy"), tt.typ, "nat", tt.cut)})
			r, err := n.Read(t.Context(), func(table nftables.Table, chains []nftables.Chain) []nftables.Chain {
				if table.Name != "nat" {
					return nil
				}
				return slices.DeleteFunc(chains, func(c nftables.Chain) bool { return !strings.HasPrefix(c.Name, "KUBE-S") })
			})
			var damaged *DamagedError
			if r != nil || !errors.As(err, &damaged) {
				t.Fatalf("got %v, %v; want a DamagedError", r, err)
			}
			if d := cmp.Diff(map[string]uint64{tt.kind: 1}, damaged.Skipped); d != "" {
				t.Errorf("skipped (-want +got):\n%s", d)
			}
			if !strings.HasPrefix(err.Error(), tt.want) || !strings.Contains(err.Error(), "(IPv4): ") {
				t.Errorf("got %q, want %q", err, tt.want)
			}
		})
	}
}

// disturbed answers as a kernel whose ruleset changes in the first n
// readings, each time as spoil says.
func disturbed(s *scene, n int, spoil func(req requestType, msgs []netlink.Message)) *fakeKernel {
	dumps := 0
	return &fakeKernel{answer: func(req netlink.Message) ([]netlink.Message, error) {
		msgs, err := s.answer(req)
		msgs = slices.Clone(msgs)
		if typ := requestType(req.Header.Type); typ == getRule {
			dumps++
			if dumps <= n {
				spoil(typ, msgs)
			}
		}
		return msgs, err
	}}
}

func TestChangeWhileReading(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(requestType, []netlink.Message)
	}{
		{"flag on a rule", func(_ requestType, m []netlink.Message) { m[0].Header.Flags |= netlink.DumpInterrupted }},
		{"flag on the end", func(_ requestType, m []netlink.Message) {
			m[len(m)-1].Header.Flags |= netlink.DumpInterrupted
		}},
		{"another generation on a rule", func(_ requestType, m []netlink.Message) {
			m[0].Data = slices.Clone(m[0].Data)
			binary.BigEndian.PutUint16(m[0].Data[2:], 0xfffe)
		}},
	}
	// The table nat comes first, and one dump spoils one reading.
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := readScene(t, "kube-proxy")
			only := func(_ nftables.Table, chains []nftables.Chain) []nftables.Chain {
				i := slices.IndexFunc(chains, func(c nftables.Chain) bool { return c.Name == "KUBE-MARK-MASQ" })
				if i < 0 {
					return nil
				}
				return chains[i : i+1]
			}
			n := openFake(t, disturbed(s, 2, tt.spoil))
			r, err := n.Read(t.Context(), only)
			if err != nil {
				t.Fatal(err)
			}
			if r.Retries != 2 {
				t.Fatalf("got %d retries, want 2", r.Retries)
			}
			n = openFake(t, disturbed(s, 1<<20, tt.spoil))
			r, err = n.Read(t.Context(), only)
			var torn *TornError
			if r != nil || !errors.Is(err, ErrInterrupted) || !errors.As(err, &torn) || torn.Attempts != readAttempts {
				t.Errorf("got a reading (%v) and %v; want a TornError", r != nil, err)
			}
		})
	}
}

func TestGenerationMovesWhileReading(t *testing.T) {
	for _, changes := range []int{1, 1 << 20} {
		s := readScene(t, "kube-proxy")
		asked := 0
		n := openFake(t, &fakeKernel{answer: func(req netlink.Message) ([]netlink.Message, error) {
			msgs, err := s.answer(req)
			if requestType(req.Header.Type) == getGen {
				// Opening asks first; then each reading asks before and after.
				if asked++; asked%2 == 1 && asked > 1 && asked <= 1+2*changes {
					later := slices.Clone(msgs[0].Data)
					later[11]++ // the low byte of NFTA_GEN_ID
					return []netlink.Message{{Header: msgs[0].Header, Data: later}}, nil
				}
			}
			return msgs, err
		}})
		r, err := n.Read(t.Context(), nil)
		if changes == 1 && (err != nil || r.Retries != 1) {
			t.Errorf("one change: got %v", err)
		}
		if changes > 1 && !errors.Is(err, ErrInterrupted) {
			t.Errorf("changes for ever: got %v, want ErrInterrupted", err)
		}
	}
}

func TestRefusals(t *testing.T) {
	tests := []struct {
		name  string
		errno error
		want  error
	}{
		{"no capability", unix.EPERM, unix.EPERM},
		{"no nf_tables in nfnetlink", unix.EINVAL, ErrAbsent},
		{"no such operation", unix.EOPNOTSUPP, ErrAbsent},
		{"messages lost", unix.ENOBUFS, ErrOverrun},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := &fakeKernel{answer: func(netlink.Message) ([]netlink.Message, error) { return nil, tt.errno }}
			n, err := openNFTables(fakeRoot(t, nil), k.dial)
			if n != nil || !errors.Is(err, tt.want) || !strings.HasPrefix(err.Error(), "open nf_tables: ") {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			var capability *CapabilityError
			if got := errors.As(err, &capability); got != errors.Is(tt.errno, unix.EPERM) {
				t.Errorf("CapabilityError: got %v", got)
			}
			if k.open != 0 {
				t.Errorf("%d sockets left", k.open)
			}
		})
	}
	_, err := openNFTables(fakeRoot(t, nil), func() (transport, error) { return nil, unix.EPROTONOSUPPORT })
	if !errors.Is(err, ErrAbsent) {
		t.Errorf("no netfilter in netlink: got %v, want ErrAbsent", err)
	}
}

func TestCapabilityLostWhileReading(t *testing.T) {
	s := readScene(t, "plain")
	n := openFake(t, &fakeKernel{answer: func(req netlink.Message) ([]netlink.Message, error) {
		if requestType(req.Header.Type) == getRule {
			return nil, unix.EPERM
		}
		return s.answer(req)
	}})
	_, err := n.Read(t.Context(), nil)
	var capability *CapabilityError
	if !errors.As(err, &capability) || capability.Op != "read nf_tables rules" || !strings.Contains(err.Error(), "chain ") {
		t.Errorf("got %v, want a CapabilityError that names the chain", err)
	}
}

func TestCanceledReadOpensTheSocketAnew(t *testing.T) {
	s := readScene(t, "plain")
	ctx, cancel := context.WithCancel(t.Context())
	silent := false
	k := &fakeKernel{}
	k.answer = func(req netlink.Message) ([]netlink.Message, error) {
		if silent {
			cancel()
			return nil, nil
		}
		return s.answer(req)
	}
	n := openFake(t, k)
	silent = true
	if _, err := n.Read(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	silent = false
	if _, err := n.Read(t.Context(), nil); err != nil || k.dials != 2 {
		t.Errorf("second reading: %v after %d dials, want 2", err, k.dials)
	}
}

func TestOnlyIPFamiliesAreAsked(t *testing.T) {
	s := readScene(t, "native")
	n := openFake(t, &fakeKernel{answer: s.answer})
	r, err := n.Read(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range r.Tables {
		if table.Family != netfilter.IPv4 && table.Family != netfilter.IPv6 {
			t.Errorf("table %s of family %s", table.Name, table.Family)
		}
	}
}
