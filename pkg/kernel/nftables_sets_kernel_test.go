// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
)

// loadNative loads what kube-proxy writes in its nftables mode.
func loadNative(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile("../netfilter/nftables/testdata/scenes/kube-proxy-nftables.nft")
	if err != nil {
		t.Fatal(err)
	}
	kerneltest.Exec(t, string(text), "nft", "-f", "-")
}

// readSets reads a table's sets with all elements, in the words of wordsOf.
func readSets(ctx context.Context, a *Attempt, f netfilter.Family, table string) (map[string][]string, error) {
	var sets []nftables.Set
	if err := a.Sets(ctx, f, table, func(s *nftables.Set) { sets = append(sets, *s) }); err != nil {
		return nil, err
	}
	all := make(map[string][]string)
	for i := range sets {
		s := &sets[i]
		var words []string
		err := a.Elements(ctx, s, func(es *nftables.Elements) bool {
			for j := range es.Elements {
				words = append(words, wordsOf(s, &es.Elements[j]))
			}
			return true
		})
		if err != nil {
			return nil, err
		}
		slices.Sort(words)
		all[fmt.Sprintf("%s %d", s.Name, s.Handle)] = words
	}
	return all, nil
}

// wordsOf is an element as nft's JSON has it.
func wordsOf(s *nftables.Set, e *nftables.Element) string {
	fields := func(packed uint32, b []byte) (words []string) {
		types := nftables.Types(packed)
		all, ok := nftables.Fields(types, b)
		if !ok {
			return []string{fmt.Sprintf("% x", b)}
		}
		for i, f := range all {
			switch types[i] {
			case nftables.TypeIPv4, nftables.TypeIPv6:
				addr, _ := netip.AddrFromSlice(f)
				words = append(words, addr.String())
			case nftables.TypeInetProto:
				words = append(words, map[byte]string{6: "tcp", 17: "udp"}[f[0]])
			case nftables.TypeInetService:
				words = append(words, fmt.Sprint(binary.BigEndian.Uint16(f)))
			default:
				words = append(words, fmt.Sprint(binary.NativeEndian.Uint32(f)))
			}
		}
		return words
	}
	text := strings.Join(fields(s.KeyType, e.Key), " ")
	if e.Comment != "" {
		text += " # " + e.Comment
	}
	switch {
	case e.Verdict != nil && e.Verdict.Code == nftables.Drop:
		text += " : drop"
	case e.Verdict != nil:
		text += " : goto " + e.Verdict.Chain
	case e.Value != nil:
		text += " : " + strings.Join(fields(s.DataType, e.Value), " ")
	}
	return text
}

// listedSets are the sets with a name of a table of IPv4 as nft lists them.
func listedSets(t *testing.T, table string) map[string][]string {
	t.Helper()
	type listed struct {
		Name   string
		Handle uint64
		Elem   []json.RawMessage
	}
	var doc struct {
		Nftables []struct{ Set, Map *listed }
	}
	if err := json.Unmarshal([]byte(kerneltest.Exec(t, "", "nft", "-j", "list", "table", "ip", table)), &doc); err != nil {
		t.Fatal(err)
	}
	all := make(map[string][]string)
	for _, o := range doc.Nftables {
		for _, s := range []*listed{o.Set, o.Map} {
			if s == nil {
				continue
			}
			var words []string
			for _, raw := range s.Elem {
				words = append(words, listedElement(t, raw))
			}
			slices.Sort(words)
			all[fmt.Sprintf("%s %d", s.Name, s.Handle)] = words
		}
	}
	return all
}

// listedElement is an element of a set, or a pair of a map's.
func listedElement(t *testing.T, raw json.RawMessage) string {
	t.Helper()
	var pair []json.RawMessage
	if json.Unmarshal(raw, &pair) == nil && len(pair) == 2 {
		var verdict struct {
			Goto *struct{ Target string }
			Drop json.RawMessage
		}
		if err := json.Unmarshal(pair[1], &verdict); err != nil {
			t.Fatal(err)
		}
		if verdict.Goto != nil {
			return listedElement(t, pair[0]) + " : goto " + verdict.Goto.Target
		}
		return listedElement(t, pair[0]) + " : drop"
	}
	var one struct {
		Elem *struct {
			Val     json.RawMessage
			Comment string
		}
		Concat []any
	}
	if json.Unmarshal(raw, &one) != nil { // a plain word
		return strings.Trim(string(raw), `"`)
	}
	if one.Elem != nil {
		return listedElement(t, one.Elem.Val) + " # " + one.Elem.Comment
	}
	words := make([]string, len(one.Concat))
	for i, w := range one.Concat {
		words[i] = fmt.Sprint(w)
	}
	return strings.Join(words, " ")
}

// TestSetsAsNFTLists reads the sets of kube-proxy's nftables mode: those with names are as
// nft prints them, and the others have the endpoints.
func TestSetsAsNFTLists(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		loadNative(t)
		n := open(t)
		before := n.Stats()
		var got map[string][]string
		err := n.Try(t.Context(), func(ctx context.Context, a *Attempt) (err error) {
			got, err = readSets(ctx, a, netfilter.IPv4, "kube-proxy")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		want := listedSets(t, "kube-proxy")
		for name, words := range got {
			switch base, _, _ := strings.Cut(name, " "); base {
			case "__map0":
				endpoints := []string{"0 : 10.180.0.1 80", "1 : 10.180.0.2 80", "2 : 10.180.0.3 80"}
				if d := cmp.Diff(endpoints, words); d != "" {
					t.Errorf("%s (-want +got):\n%s", name, d)
				}
				delete(got, name)
			case "__map1", "__set0":
				delete(got, name)
			}
		}
		if d := cmp.Diff(want, got); d != "" || len(got) < 7 {
			t.Errorf("%d sets (-want +got):\n%s", len(got), d)
		}
		// Each set is asked for on its own, and what comes is counted.
		if s := n.Stats(); s.Messages < before.Messages+2*uint64(len(got)) || s.Bytes <= before.Bytes {
			t.Errorf("%+v were read, before %+v", s, before)
		}
	})
}

// TestSetsChangeUnderTheReader adds an element between the readings of two sets: all is
// read anew, and is of one state.
func TestSetsChangeUnderTheReader(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		loadNative(t)
		n := open(t)
		var got map[string][]string
		retries := 0
		err := n.Try(t.Context(), func(ctx context.Context, a *Attempt) (err error) {
			if retries = a.Retries; retries == 0 {
				if err := a.Sets(ctx, netfilter.IPv4, "kube-proxy", func(*nftables.Set) {}); err != nil {
					return err
				}
				kerneltest.Exec(t, "", "nft", "add", "element", "ip", "kube-proxy", "cluster-ips", "{ 10.96.0.99 }")
			}
			got, err = readSets(ctx, a, netfilter.IPv4, "kube-proxy")
			return err
		})
		if err != nil || retries != 1 {
			t.Fatalf("%v after %d retries, want one", err, retries)
		}
		for name, words := range got {
			if strings.HasPrefix(name, "cluster-ips ") && !slices.Contains(words, "10.96.0.99") {
				t.Errorf("%s has %v", name, words)
			}
		}
		// A set that goes away does so with a commit.
		err = n.Try(t.Context(), func(ctx context.Context, a *Attempt) error {
			return a.Elements(ctx, &nftables.Set{Family: netfilter.IPv4, Table: "kube-proxy", Name: "other"}, func(*nftables.Elements) bool { return true })
		})
		if !errors.Is(err, ErrInterrupted) {
			t.Errorf("a set that is not there: %v", err)
		}
	})
}

// TestElementsUpToThere: what is not wanted any more is not read, and the next question
// is answered.
func TestElementsUpToThere(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		var b strings.Builder
		b.WriteString("table ip t {\n set s { type ipv4_addr; elements = { 10.0.0.1")
		for i := range 3000 {
			fmt.Fprintf(&b, ", 10.1.%d.%d", i/250, i%250)
		}
		b.WriteString(" } }\n}\n")
		kerneltest.Exec(t, b.String(), "nft", "-f", "-")
		n := open(t)
		calls, total := 0, 0
		err := n.Try(t.Context(), func(ctx context.Context, a *Attempt) error {
			calls, total = 0, 0
			s := nftables.Set{Family: netfilter.IPv4, Table: "t", Name: "s"}
			err := a.Elements(ctx, &s, func(*nftables.Elements) bool { calls++; return false })
			if err != nil {
				return err
			}
			return a.Elements(ctx, &s, func(es *nftables.Elements) bool { total += len(es.Elements); return true })
		})
		if err != nil || calls != 1 || total != 3001 {
			t.Errorf("%d calls, then %d elements, %v", calls, total, err)
		}
	})
}
