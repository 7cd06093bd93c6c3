// SPDX-License-Identifier: Apache-2.0

package xtables

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/netfilter"
)

// fixture is one captured table.
type fixture struct {
	name   string // "kube-proxy/ipv4/nat"
	family netfilter.Family
	info   Info
	blob   []byte
	save   []string // the oracle's lines of this table, "*nat" and "COMMIT" left out
}

// fixtures reads all of testdata. hack/capture/xtables makes it.
func fixtures(tb testing.TB) []fixture {
	tb.Helper()
	paths, err := filepath.Glob("testdata/*/ipv?/*.info")
	if err != nil || len(paths) == 0 {
		tb.Fatalf("no fixtures: %v", err)
	}
	var all []fixture
	for _, path := range paths {
		base := strings.TrimSuffix(path, ".info")
		f := fixture{name: strings.TrimPrefix(base, "testdata/"), family: netfilter.IPv4}
		if strings.Contains(path, "/ipv6/") {
			f.family = netfilter.IPv6
		}
		if f.info, err = DecodeInfo(read(tb, path)); err != nil {
			tb.Fatal(err)
		}
		if f.blob, err = DecodeEntries(read(tb, base+".bin")); err != nil {
			tb.Fatal(err)
		}
		f.save = section(string(read(tb, filepath.Join(filepath.Dir(path), "save.txt"))), f.info.Name)
		all = append(all, f)
	}
	return all
}

// decoded is a table with all of its chains, each checked.
type decoded struct {
	*Table
	Chains []Chain
	// Entries is what the kernel counts as num_entries: the rules, and for
	// each chain its end and, of a user chain, its head; and the table's end.
	Entries int
}

func decode(family netfilter.Family, info Info, blob []byte) (*decoded, error) {
	t, err := NewTable(family, info, blob)
	if err != nil {
		return nil, err
	}
	d := &decoded{Table: t, Entries: 1}
	err = t.Walk(func(c *Chain) error {
		if err := c.Check(); err != nil {
			return err
		}
		kept := *c
		kept.Name = bytes.Clone(c.Name)
		d.Chains = append(d.Chains, kept)
		d.Entries += c.Len + 2
		if c.Builtin {
			d.Entries--
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return d, nil
}

func (d *decoded) Chain(name string) *Chain {
	for i := range d.Chains {
		if string(d.Chains[i].Name) == name {
			return &d.Chains[i]
		}
	}
	return nil
}

func read(tb testing.TB, path string) []byte {
	tb.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// section returns the lines of one table in iptables-save's output.
func section(text, table string) (lines []string) {
	_, text, _ = strings.Cut(text, "*"+table+"\n")
	text, _, _ = strings.Cut(text, "COMMIT\n")
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// moduleWords are the words that a line with an Opaque is compared by.
var moduleWords = regexp.MustCompile(`^\[\d+:\d+\] -A \S+|-[mjg] \S+|--comment ("[^"]*"|\S+)`)

func TestDecodeAgreesWithIptablesSave(t *testing.T) {
	for _, f := range fixtures(t) {
		t.Run(f.name, func(t *testing.T) {
			table, err := decode(f.family, f.info, f.blob)
			if err != nil {
				t.Fatal(err)
			}
			got, exact := saveLines(table)
			want := append([]string(nil), f.save...)
			opaque := 0
			for i := range got {
				if !exact[i] && i < len(want) {
					opaque++
					got[i] = strings.Join(moduleWords.FindAllString(got[i], -1), " ")
					want[i] = strings.Join(moduleWords.FindAllString(want[i], -1), " ")
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("decoded table (-iptables-save +ours):\n%s", diff)
			}
			if unknown := strings.HasPrefix(f.name, "unknown/"); unknown != (opaque > 0) {
				t.Errorf("%d of %d lines are opaque", opaque, len(got))
			}
			if size, entries := sizes(table); size != len(f.blob) || entries != table.Entries {
				t.Errorf("chains hold %d bytes in %d entries, the blob has %d in %d",
					size, entries, len(f.blob), table.Entries)
			}
		})
	}
}

// sizes adds up the entries of all chains: rules, heads, ends, the table's end.
func sizes(t *decoded) (size, entries int) {
	l := t.layout
	for i := range t.Chains {
		c := &t.Chains[i]
		n := 0
		for r := range c.Rules() {
			size += len(r.Bytes())
			n++
		}
		if n != c.Len {
			return -1, n
		}
		entries += n + 1
		size += l.size + standardLen
		if !c.Builtin {
			entries++
			size += l.size + errorLen
		}
	}
	return size + l.size + errorLen, entries + 1
}
