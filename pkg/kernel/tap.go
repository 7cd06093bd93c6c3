// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// ErrTapped says that another process has the table.
var ErrTapped = errors.New("the table " + TapTable + " is another process's")

// TapKey is one way to a Service's port: an address, or a node port where Addr is the
// unspecified address of the family (0.0.0.0, ::).
type TapKey struct {
	Addr     netip.Addr
	Protocol uint8 // IPPROTO_*
	Port     uint16
}

// Compare orders keys.
func (k TapKey) Compare(m TapKey) int {
	return cmp.Or(k.Addr.Compare(m.Addr), cmp.Compare(k.Protocol, m.Protocol), cmp.Compare(k.Port, m.Port))
}

// TapCount is what passed by one way since it was tapped.
type TapCount struct {
	// Attempts are first packets of flows; one that is dropped later and sent again
	// counts again. Connections are those that were sent to an endpoint.
	Attempts, Connections uint64
	// Refused are packets that came to the filter table's rules of input and forward by a
	// way in TapWays.Refused, or to those before NAT by one in TapWays.Early. RefusedHere are
	// those that came to rules of output by a way in TapWays.RefusedHere or EarlyHere.
	Refused, RefusedHere uint64
	// Outside are packets by a way in TapWays.Ranges from none of its sources.
	Outside uint64
}

// TapWays is what is to be counted.
type TapWays struct {
	Services    []TapKey // attempts and connections
	Refused     []TapKey // packets that a rule refuses in input or forward
	RefusedHere []TapKey // and in output
	// Early and EarlyHere are the same of rules that are before NAT, at priority -110: of
	// kube-proxy's nftables mode before Kubernetes 1.34. Their part of the table is
	// made when there is some for the first time.
	Early, EarlyHere []TapKey
	// Ranges are open to some sources alone, which the nftables mode sees to before NAT.
	// Their part, too, is made when there are some.
	Ranges []TapRanges
}

// TapConfig says how large the tap may be.
type TapConfig struct {
	// Keys is how many ways it has room for; 0 is 65,536. Each takes two counters of 16
	// bytes a CPU, and some 200 bytes; the room itself takes 2 MiB in each of eight sets.
	// Refused is the same of ways by which packets are refused; 0 is 4,096.
	Keys, Refused int
	// Sources is how many prefixes the ways in TapWays.Ranges may be open to in each family;
	// 0 is 2,048. A way has room for all of its sources or none.
	Sources int
	Log     TapLog
}

// TapLog is where packets go that are about to be refused, beside being counted.
type TapLog struct {
	Group     uint16 // of nfnetlink_log
	PerSecond uint32 // at most, by each hook, family and kind of address; 0: none is logged
	// RangesPrefix is the prefix of packets that are refused on account of their source;
	// that of others is the table's name, as it is of these where it is empty.
	RangesPrefix string
}

// Tap is an nf_tables table of this process: it counts, at whatever kube-proxy does,
// what is sent to Services. It changes no packet. The kernel removes it
// when the process ends, however it does (flags owner; Linux 5.12), and lets nobody else
// change it. It is for one goroutine.
type Tap struct {
	w    tapWriter
	read conn
	log  TapLog
	// services and the others are the ways that are counted.
	services, refused, refusedHere, early, earlyHere, ranges tapWays
	// open has the sources of the ways in ranges, of so many prefixes in each family.
	open    map[TapKey][]TapRange
	sources int
}

// tapWays are the elements of the sets of some kinds.
type tapWays struct {
	kinds []tapKind
	size  int
	keys  map[TapKey]struct{}
	made  bool // the kernel has the sets, and what looks into them
}

// OpenTap makes the table. Errors:
//
//   - ErrTapped, where another process has it.
//   - one that wraps ErrAbsent where the kernel has no tables with owners, or where
//     its nf_tables is not loaded.
//   - *CapabilityError without CAP_NET_ADMIN.
func OpenTap(ctx context.Context, cfg TapConfig) (*Tap, error) {
	const op = "make table " + TapTable
	if running.loadable(nftablesModule) {
		return nil, fmt.Errorf("%s: %w: its module is not loaded", op, ErrAbsent)
	}
	w, err := dialTap()
	if err != nil {
		return nil, meaning(op, err)
	}
	ways := func(size int, kinds ...tapKind) tapWays {
		return tapWays{kinds: kinds, size: size, keys: make(map[TapKey]struct{})}
	}
	refused := cmp.Or(cfg.Refused, 1<<12)
	t := &Tap{
		w: w, read: conn{dial: dialNetfilter}, log: cfg.Log, services: ways(cmp.Or(cfg.Keys, 1<<16), tapAttempts, tapDNAT),
		refused: ways(refused, tapRefused), refusedHere: ways(refused, tapRefusedHere),
		early: ways(refused, tapEarly), earlyHere: ways(refused, tapEarlyHere),
		ranges: ways(refused, tapRanges), open: make(map[TapKey][]TapRange), sources: cmp.Or(cfg.Sources, tapSources),
	}
	if err := t.create(ctx); err != nil {
		_ = w.Close()
		return nil, tapMeaning(op, err)
	}
	return t, nil
}

// create makes the table with empty sets.
func (t *Tap) create(ctx context.Context) error {
	table := nftables.Table{Family: netfilter.FamilyINet, Name: TapTable, Flags: nftables.TableOwned}
	b := tapBatch{}
	b.add(newTapTable, &table)
	return t.build(ctx, &b, &t.services, &t.refused, &t.refusedHere)
}

// build makes the sets of some ways, and what looks into them.
func (t *Tap) build(ctx context.Context, b *tapBatch, parts ...*tapWays) error {
	id := uint32(0)
	for _, is := range parts {
		for _, s := range tapSets(is.kinds...) {
			id++
			set := s.object(id, uint32(is.size))
			b.add(newTapSet, &set)
			if s.kind == tapRanges {
				id++
				open := s.openObject(id, uint32(t.sources))
				b.add(newTapSet, &open)
			}
		}
	}
	for _, is := range parts {
		chains, rules := tapChains(t.log, is.kinds...)
		for i := range chains {
			b.add(newTapChain, &chains[i])
		}
		for i := range rules {
			b.add(newTapRule, &rules[i])
		}
	}
	if err := t.w.commit(ctx, b, nil); err != nil {
		return err
	}
	for _, is := range parts {
		is.made = true
	}
	return nil
}

// tapMeaning is meaning with the errnos of owners: before Linux 5.12 the flag is not known.
func tapMeaning(op string, err error) error {
	has, why := HasNetAdmin()
	switch {
	case errors.Is(err, unix.EEXIST), errors.Is(err, unix.EPERM) && why == nil && has:
		return fmt.Errorf("%s: %w: %w", op, ErrTapped, err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%s: %w: tables have no owners before Linux 5.12: %w", op, ErrAbsent, err)
	}
	return meaning(op, err)
}

// tapAtOnce is how many elements a transaction has: one message holds 64 KiB.
const tapAtOnce = 500

// TapChange is what became of a Set.
type TapChange struct {
	// Left is how many ways have no room.
	Left int
	// Ended has what was counted by ways that are no longer counted, to the last packet.
	// It may be of what a failed Set has done.
	Ended map[TapKey]TapCount
}

// Set makes ways what is counted. Those that stay go on counting.
func (t *Tap) Set(ctx context.Context, ways TapWays) (TapChange, error) {
	c := TapChange{Ended: make(map[TapKey]TapCount)}
	for _, part := range []struct {
		is   *tapWays
		want []TapKey
	}{
		{&t.services, ways.Services}, {&t.refused, ways.Refused}, {&t.refusedHere, ways.RefusedHere},
		{&t.early, ways.Early}, {&t.earlyHere, ways.EarlyHere},
	} {
		left, err := t.set(ctx, part.is, part.want, c.Ended)
		c.Left += left
		if err != nil {
			return c, err
		}
	}
	left, err := t.setRanges(ctx, ways.Ranges, c.Ended)
	c.Left += left
	return c, err
}

func (t *Tap) set(ctx context.Context, is *tapWays, keys []TapKey, ended map[TapKey]TapCount) (left int, err error) {
	if !is.made && len(keys) > 0 {
		if err := t.build(ctx, &tapBatch{}, is); err != nil {
			return 0, meaning("change table "+TapTable, err)
		}
	}
	want := make(map[TapKey]struct{}, len(keys))
	for _, k := range slices.SortedFunc(slices.Values(keys), TapKey.Compare) {
		if _, twice := want[k]; !twice && len(want) == is.size {
			left++
		} else {
			want[k] = struct{}{}
		}
	}
	if err := t.change(ctx, is, delTapElem, difference(is.keys, want), ended); err != nil {
		return left, err
	}
	return left, t.change(ctx, is, newTapElem, difference(want, is.keys), ended)
}

// difference has the keys of a that b lacks, in order.
func difference[A, B any](a map[TapKey]A, b map[TapKey]B) []TapKey {
	var out []TapKey
	for k := range a {
		if _, ok := b[k]; !ok {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, TapKey.Compare)
	return out
}

// change adds or deletes elements, some at a time. What those that it deletes have
// counted is added to ended.
func (t *Tap) change(ctx context.Context, is *tapWays, typ tapType, keys []TapKey, ended map[TapKey]TapCount) error {
	for part := range slices.Chunk(keys, tapAtOnce) {
		var b tapBatch
		for _, s := range tapSets(is.kinds...) {
			es := nftables.Elements{Family: netfilter.FamilyINet, Table: TapTable, Set: s.name()}
			for _, k := range part {
				if s.holds(k) {
					es.Elements = append(es.Elements, nftables.Element{Key: s.encode(k)})
				}
			}
			if len(es.Elements) > 0 {
				b.add(typ, &es)
			}
		}
		if err := t.w.commit(ctx, &b, func(es *nftables.Elements) { countTapped(es, ended) }); err != nil {
			return meaning("change table "+TapTable, err)
		}
		for _, k := range part {
			if typ == newTapElem {
				is.keys[k] = struct{}{}
			} else {
				delete(is.keys, k)
			}
		}
	}
	return nil
}

// holds reports whether a key is one of the set.
func (s tapSet) holds(k TapKey) bool {
	return k.Addr.Is6() == (s.family == netfilter.IPv6) && k.Addr.IsUnspecified() == s.node
}

// encode is the key in the kernel's words, each of them padded.
func (s tapSet) encode(k TapKey) []byte {
	var b []byte
	if !s.node {
		b = k.Addr.AsSlice()
	}
	b = append(b, k.Protocol, 0, 0, 0)
	return append(binary.BigEndian.AppendUint16(b, k.Port), 0, 0)
}

// decode is its inverse.
func (s tapSet) decode(b []byte) (TapKey, bool) {
	n := int(s.addrLen())
	if len(b) != n+8 {
		return TapKey{}, false
	}
	k := TapKey{Addr: netip.IPv4Unspecified(), Protocol: b[n], Port: binary.BigEndian.Uint16(b[n+4:])}
	if s.family == netfilter.IPv6 {
		k.Addr = netip.IPv6Unspecified()
	}
	if n > 0 {
		k.Addr, _ = netip.AddrFromSlice(b[:n])
	}
	return k, true
}

// Counts reads what all ways have counted.
func (t *Tap) Counts(ctx context.Context) (map[TapKey]TapCount, error) {
	ctx, cancel := t.read.limit(ctx)
	defer cancel()
	out := make(map[TapKey]TapCount, len(t.services.keys)+len(t.refused.keys))
	for _, s := range t.sets() {
		attrs := nlattr.AppendString(nil, unix.NFTA_SET_ELEM_LIST_TABLE, TapTable)
		attrs = nlattr.AppendString(attrs, unix.NFTA_SET_ELEM_LIST_SET, s.name())
		err := t.read.exchange(ctx, request{typ: getSetElem, dump: true, family: netfilter.FamilyINet, attrs: attrs}, func(m *nlattr.Message) error {
			es, err := nftables.DecodeElements(m.Payload)
			if err == nil {
				countTapped(&es, out)
			}
			return err
		})
		if err != nil {
			return nil, meaning("read table "+TapTable, err)
		}
	}
	return out, nil
}

// sets are those that the kernel has.
func (t *Tap) sets() (all []tapSet) {
	for _, is := range []*tapWays{&t.services, &t.refused, &t.refusedHere, &t.early, &t.earlyHere, &t.ranges} {
		if is.made {
			all = append(all, tapSets(is.kinds...)...)
		}
	}
	return all
}

// countTapped adds the counters of elements of one set.
func countTapped(es *nftables.Elements, to map[TapKey]TapCount) {
	var kinds []tapKind
	for k := range tapKinds {
		kinds = append(kinds, k)
	}
	for _, s := range tapSets(kinds...) {
		if s.name() != es.Set {
			continue
		}
		for i := range es.Elements {
			s.count(&es.Elements[i], to)
		}
	}
}

// count adds an element's counter.
func (s tapSet) count(e *nftables.Element, to map[TapKey]TapCount) {
	k, ok := s.decode(e.Key)
	if !ok {
		return
	}
	for _, x := range e.Exprs {
		c, ok := x.(nftables.Counter)
		if !ok {
			continue
		}
		n := to[k]
		switch s.kind {
		case tapAttempts:
			n.Attempts += c.Packets
		case tapDNAT:
			n.Connections += c.Packets
		case tapRefused, tapEarly:
			n.Refused += c.Packets
		case tapRefusedHere, tapEarlyHere:
			n.RefusedHere += c.Packets
		case tapRanges:
			n.Outside += c.Packets
		}
		to[k] = n
	}
}

// Close ends the table.
func (t *Tap) Close() error { return errors.Join(t.w.Close(), t.read.close()) }
