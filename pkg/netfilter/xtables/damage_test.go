// SPDX-License-Identifier: Apache-2.0

package xtables

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/svcscope/svcscope/pkg/netfilter"
)

// readAll decodes and uses every view of a table, and says whether what it
// found agrees with the blob's size.
func readAll(tb testing.TB, family netfilter.Family, info Info, blob []byte) {
	tb.Helper()
	table, err := decode(family, info, blob)
	if err != nil {
		if table != nil {
			tb.Errorf("a table beside the error %v", err)
		}
		if err.Error() == "" {
			tb.Error("an error without text")
		}
		return
	}
	saveLines(table)
	for i := range table.Chains {
		for r := range table.Chains[i].Rules() {
			_ = r.Comment()
		}
	}
	size := 0
	for off := 0; off < len(blob); off += table.nextOffset(off) {
		size += table.nextOffset(off)
	}
	if size != len(blob) {
		tb.Errorf("entries have %d bytes, the blob %d", size, len(blob))
	}
}

func TestDecodeDamaged(t *testing.T) {
	for _, f := range fixtures(t) {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			// All positions of small blobs, a sample of the others that moves
			// over all fields of an entry.
			step := max(1, len(f.blob)/800) | 1
			for i := 0; i < len(f.blob); i += step {
				info := f.info
				if _, err := decode(f.family, info, f.blob[:i]); err == nil {
					t.Fatalf("%d of %d bytes are a table", i, len(f.blob))
				}
				info.Size = uint32(i)
				if _, err := decode(f.family, info, f.blob[:i]); err == nil {
					t.Fatalf("%d of %d bytes are a table", i, len(f.blob))
				}
				damaged := slices.Clone(f.blob)
				for _, x := range []byte{0xff, 0x01, 0x80} {
					damaged[i] = f.blob[i] ^ x
					readAll(t, f.family, f.info, damaged)
				}
			}
		})
	}
}

func TestDecodeInfoDamaged(t *testing.T) {
	f := fixtures(t)[0]
	good := read(t, "testdata/"+f.name+".info")
	for i := range good {
		if _, err := DecodeInfo(good[:i]); err == nil {
			t.Errorf("%d bytes are an ipt_getinfo", i)
		}
		bad := slices.Clone(good)
		bad[i] ^= 0xff
		info, err := DecodeInfo(bad)
		if err != nil {
			continue
		}
		readAll(t, f.family, info, f.blob)
	}
	if _, err := DecodeInfo([]byte(strings.Repeat("x", InfoLen))); err == nil {
		t.Error("a name without end is taken")
	}
}

func TestDecodeEntriesDamaged(t *testing.T) {
	f := fixtures(t)[0]
	good := read(t, "testdata/"+f.name+".bin")
	for i := range good {
		if _, err := DecodeEntries(good[:i]); err == nil {
			t.Fatalf("%d of %d bytes are entries", i, len(good))
		}
	}
}

// TestDecodeRefuses damages single fields of a good table.
func TestDecodeRefuses(t *testing.T) {
	var f fixture
	for _, f = range fixtures(t) {
		if f.name == "kube-proxy/ipv4/nat" {
			break
		}
	}
	table, err := decode(f.family, f.info, f.blob)
	if err != nil {
		t.Fatal(err)
	}
	rule := first(t, table, "KUBE-SERVICES")  // udp or tcp, comment, a jump
	target := rule + table.targetOffset(rule) // of it
	match := rule + table.layout.size         // its first
	last := len(f.blob) - 176                 // the table's end
	put16 := binary.NativeEndian.PutUint16
	put32 := binary.NativeEndian.PutUint32
	tests := []struct {
		name   string
		damage func(b []byte, info *Info)
		want   string
	}{
		{"next_offset 0", func(b []byte, _ *Info) { put16(b[rule+90:], 0) }, "next_offset 0"},
		{"next_offset beyond the end", func(b []byte, _ *Info) { put16(b[last+90:], 0xfff8) }, "need 65528 bytes"},
		{"next_offset not aligned", func(b []byte, _ *Info) { put16(b[rule+90:], 345) }, "next_offset 345"},
		{"target_offset in the head", func(b []byte, _ *Info) { put16(b[rule+88:], 8) }, "target_offset 8"},
		{"target_offset beyond the entry", func(b []byte, _ *Info) { put16(b[rule+88:], 0xfff8) }, "target_offset 65528"},
		{"match of no size", func(b []byte, _ *Info) { put16(b[match:], 0) }, "xt_entry_match at offset"},
		{"match beyond the target", func(b []byte, _ *Info) { put16(b[match:], 0xfff8) }, "xt_entry_match at offset"},
		{"match's name without end", func(b []byte, _ *Info) { fill(b[match+2:match+31], 'x') }, "xt_entry_match"},
		{"target's name without end", func(b []byte, _ *Info) { fill(b[target+2:target+31], 'x') }, "xt_entry_target"},
		{"target of a size too small", func(b []byte, _ *Info) { put16(b[target:], 32) }, "xt_standard_target"},
		{"jump into the middle of a chain", func(b []byte, _ *Info) { put32(b[target+32:], uint32(rule)+1000) }, "is no chain's first entry"},
		{"jump beyond the end", func(b []byte, _ *Info) { put32(b[target+32:], 0x7ffffff8) }, "is no chain's first entry"},
		{"jump to a built-in chain", func(b []byte, _ *Info) { put32(b[target+32:], 0) }, "is no chain's first entry"},
		{"no such verdict", func(b []byte, _ *Info) { put32(b[target+32:], ^uint32(0)-98) }, "verdict -99"},
		{"chain's name without end", func(b []byte, _ *Info) { fill(b[last+144:last+174], 'x') }, "errorname has no end"},
		{"another last name", func(b []byte, _ *Info) { b[last+144] = 'x' }, `ends the table with the name "xRROR"`},
		{"a count too many", func(_ []byte, i *Info) { i.NumEntries++ }, "entries, have"},
		{"hook entry in the middle", func(_ []byte, i *Info) { i.HookEntry[4] += 8 }, "in no chain"},
		{"hook entry beyond the end", func(_ []byte, i *Info) { i.HookEntry[4] = 1 << 31 }, "in no chain"},
		{"underflow beyond the end", func(_ []byte, i *Info) { i.Underflow[4] = 1 << 31 }, "ERROR target in POSTROUTING"},
		{"policy with a condition", func(b []byte, i *Info) { b[i.Underflow[0]] = 1 }, "is no end of chain PREROUTING"},
		{"another size", func(_ []byte, i *Info) { i.Size-- }, "bytes of entries, have"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			blob, info := slices.Clone(f.blob), f.info
			tt.damage(blob, &info)
			_, err := decode(f.family, info, blob)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
	if _, err := decode(netfilter.FamilyARP, f.info, f.blob); err == nil {
		t.Error("a table of ARP is decoded")
	}
}

func fill(b []byte, c byte) {
	for i := range b {
		b[i] = c
	}
}

// first returns the offset of a chain's first rule.
func first(t *testing.T, table *decoded, chain string) int {
	t.Helper()
	for r := range table.Chain(chain).Rules() {
		return r.Offset()
	}
	t.Fatalf("chain %s has no rule", chain)
	return 0
}

func FuzzDecode(f *testing.F) {
	for _, x := range fixtures(f) {
		info := read(f, "testdata/"+x.name+".info")
		f.Add(x.family == netfilter.IPv6, info, x.blob)
	}
	f.Fuzz(func(t *testing.T, v6 bool, infoBytes, blob []byte) {
		info, err := DecodeInfo(infoBytes)
		if err != nil {
			return
		}
		family := netfilter.IPv4
		if v6 {
			family = netfilter.IPv6
		}
		info.Size = uint32(len(blob))
		readAll(t, family, info, blob)
	})
}

// seeds adds every extension of the fixtures that want takes.
func seeds(f *testing.F, add func(x Extension), targets bool) {
	f.Helper()
	for _, x := range fixtures(f) {
		table, err := decode(x.family, x.info, x.blob)
		if err != nil {
			f.Fatal(err)
		}
		for i := range table.Chains {
			for r := range table.Chains[i].Rules() {
				if a := r.Action(); targets && a.Kind == RunExtension {
					add(a.Target)
				}
				for m := range r.Matches() {
					if !targets {
						add(m)
					}
				}
			}
		}
	}
}

func FuzzDecodeMatch(f *testing.F) {
	seeds(f, func(x Extension) { f.Add(uint8(x.Family), x.Name, x.Revision, x.Data) }, false)
	f.Fuzz(func(t *testing.T, family uint8, name string, revision uint8, data []byte) {
		m, err := DecodeMatch(netfilter.Family(family), name, revision, data)
		if (m == nil) == (err == nil) {
			t.Errorf("value %v and error %v", m, err)
		}
	})
}

func FuzzDecodeTarget(f *testing.F) {
	seeds(f, func(x Extension) { f.Add(uint8(x.Family), x.Name, x.Revision, x.Data) }, true)
	f.Fuzz(func(t *testing.T, family uint8, name string, revision uint8, data []byte) {
		m, err := DecodeTarget(netfilter.Family(family), name, revision, data)
		if (m == nil) == (err == nil) {
			t.Errorf("value %v and error %v", m, err)
		}
	})
}
