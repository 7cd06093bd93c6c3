// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// with returns entries in which the text of one is another.
func with(all []entry, name string, change func(string) string) []entry {
	out := slices.Clone(all)
	for i := range out {
		if out[i].name == name {
			out[i].text = change(out[i].text)
		}
	}
	return out
}

// replaced is a change that replaces one text, which has to be there.
func replaced(t *testing.T, from, to string) func(string) string {
	return func(s string) string {
		t.Helper()
		if !strings.Contains(s, from) {
			t.Fatalf("there is no %s in:\n%s", from, s)
		}
		return strings.Replace(s, from, to, 1)
	}
}

// TestReadRefuses has files that are no snapshots, and says why.
func TestReadRefuses(t *testing.T) {
	all := unpacked(t, written(t, smallSnapshot(t)))
	const rules = "rules/nft-ipv4.json"
	set := func(text string) func(string) string { return func(string) string { return text } }
	for _, tt := range []struct {
		name    string
		entries []entry
		want    string
	}{
		{"of nothing", nil, "it has no entry"},
		{"of another program", []entry{{"README", "hello"}}, "the first entry is not snapshot.json"},
		{"another format", with(all, headerEntry, replaced(t, "svcscope snapshot", "tarball")), "not a snapshot of svcscope"},
		{"a later version", with(all, headerEntry, replaced(t, `"formatVersion": 1`, `"formatVersion": 2, "colour": "red"`)), "format version 2, and this svcscope reads 1: it was made by svcscope \"1.2.3\""},
		{"a field too many", with(all, headerEntry, replaced(t, `"node"`, `"colour": "red", "node"`)), `unknown field "colour"`},
		{"no time", with(all, headerEntry, replaced(t, "2026-03-01T12:00:00.123456789+01:00", "0001-01-01T00:00:00Z")), "it has no time"},
		{"no JSON", with(all, headerEntry, set("{")), "unexpected end of JSON input"},
		{"rules of nobody", with(all, headerEntry, replaced(t, "nft-ipv4", "ebtables-arp")), `rules "ebtables-arp" are not known`},
		{"rules twice", with(all, headerEntry, replaced(t, `"nft-ipv4"`, `"nft-ipv4", "nft-ipv4"`)), `rules "nft-ipv4" are not known, or twice there`},
		{"a report of nobody", with(all, headerEntry, replaced(t, `"services"`, `"../etc"`)), `report "../etc" is not known`},
		{"an entry too many", slices.Concat(all, []entry{{"notes.txt", "x"}}), `entry "notes.txt": not one that snapshot.json names`},
		{"a report that is not named", slices.Concat(all, []entry{{"reports/drift.json", "{}"}}), `entry "reports/drift.json": not one`},
		{"an entry twice", slices.Concat(all, all[1:2]), "is twice there"},
		{"rules missing", slices.Concat(all[:1], all[2:]), `entry "rules/nft-ipv4.json" is missing`},
		{"a report missing", all[:len(all)-1], `entry "reports/services.json" is missing`},
		{"the API missing", slices.Concat(all[:3], all[4:]), `entry "api.json" is missing`},
		{"flows missing", slices.Concat(all[:4], all[5:]), `entry "flows.json" is missing`},
		{"rules of another family", with(all, rules, replaced(t, "IPv4", "IPv6")), "it has the rules of nft-ipv6"},
		{"a family that is none", with(all, rules, replaced(t, "IPv4", "IPv5")), `family "IPv5" is not known`},
		{"a backend that is none", with(all, rules, replaced(t, `"nft"`, `"ebtables"`)), `backend "ebtables" is not known`},
		{"an action that is none", with(all, rules, replaced(t, `"dnat"`, `"fly"`)), `rule 2: action "fly" is not known`},
		{"a policy that is none", with(all, rules, replaced(t, `"policy":"accept"`, `"policy":"fly"`)), `table "nat", chain "PREROUTING": policy: action "fly" is not known`},
		{"a condition that is none", with(all, rules, replaced(t, `{"protocol":{"number":6}}`, `null`)), "a condition has 0 names"},
		{"rules that go on", with(all, rules, func(s string) string { return s + "{}" }), "something follows the value"},
		{"Services out of order", with(all, apiEntry, replaced(t, `"services":[`, `"services":[{"namespace":"z","name":"z"},`)), `Service "shop/web": Services are not sorted`},
		{"endpoints out of order", with(all, apiEntry, replaced(t, `"endpoints":[`, `"endpoints":[{"address":"[fd00::1]:80"},`)), `"shop/web", port "http": endpoints are not sorted`},
		{"an endpoint without address", with(all, apiEntry, replaced(t, `10.77.0.2:8080`, ``)), "an endpoint has no address"},
		{"a report that is no JSON", with(all, "reports/services.json", set("hello")), "not JSON"},
	} {
		s, err := Read(bytes.NewReader(packed(t, tt.entries...)))
		if err == nil || s != nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
}

// TestReadLimits: small files that would need much memory.
func TestReadLimits(t *testing.T) {
	const rules = "rules/nft-ipv4.json"
	most := limits{entry: 100_000, total: 190_000, entries: 8, objects: 1000}
	all := unpacked(t, written(t, smallSnapshot(t)))
	for name, file := range map[string][]byte{
		"objects":         packed(t, with(all, rules, func(string) string { return `{"tables":[` + strings.Repeat("{},", 1000) + `{}]}` })...),
		"nulls":           packed(t, with(all, rules, func(string) string { return `{"tables":[` + strings.Repeat("null,", 1000) + `null]}` })...),
		"one large entry": packed(t, with(all, rules, func(string) string { return strings.Repeat(" ", 100_001) })...),
		"large entries": packed(t, with(with(all, rules, func(s string) string { return s + strings.Repeat(" ", 90_000) }),
			"rules/nft-ipv4.save", func(string) string { return strings.Repeat(" ", 100_000) })...),
		// What follows the entries counts, too.
		"much behind the end": slices.Concat(written(t, smallSnapshot(t)), zeros(t, 200_000)),
	} {
		if _, err := read(bytes.NewReader(file), most); !errors.Is(err, errLarge) {
			t.Errorf("%s: %v, want %v", name, err, errLarge)
		}
	}
	if _, err := read(bytes.NewReader(written(t, smallSnapshot(t))), most); err != nil {
		t.Errorf("the small one: %v", err)
	}
	if _, err := read(bytes.NewReader(written(t, smallSnapshot(t))), limits{entry: 1 << 20, total: 1 << 20, entries: 3, objects: 1 << 20}); !errors.Is(err, errLarge) {
		t.Errorf("more entries than there may be: %v", err)
	}
}

// zero reads as zeros without end.
type zero struct{}

func (zero) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// zeros are compressed zeros.
func zeros(t *testing.T, n int64) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := io.CopyN(z, zero{}, n)
	if err := errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestTruncated: every beginning of a file is an error, and none is a panic.
func TestTruncated(t *testing.T) {
	file := written(t, smallSnapshot(t))
	for n := range file {
		if s, err := Read(bytes.NewReader(file[:n])); err == nil || s != nil {
			t.Fatalf("the first %d of %d bytes are a snapshot", n, len(file))
		} else if n > 18 && !strings.Contains(err.Error(), "the file ends too early") {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// TestFlipped turns each byte of a file, and of what is in it. The check sum finds the
// first; of the second no more is asked than that an error comes, or a snapshot that can
// be written.
func TestFlipped(t *testing.T) {
	want := smallSnapshot(t)
	file := written(t, want)
	for i := range file {
		for _, bits := range []byte{0x01, 0xff} {
			damaged := bytes.Clone(file)
			damaged[i] ^= bits
			s, err := Read(bytes.NewReader(damaged))
			if (s == nil) == (err == nil) {
				t.Fatalf("byte %d: %v, %v", i, s, err)
			}
			if d := cmp.Diff(want, s, comparison()); err == nil && d != "" {
				t.Fatalf("byte %d: another snapshot (-want +got):\n%s", i, d)
			}
		}
	}
	z, err := gzip.NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	for i := range plain {
		damaged := bytes.Clone(plain)
		damaged[i] ^= 0x05
		s := survive(t, damaged)
		if s != nil && i%50 == 0 {
			useful(t, s)
		}
	}
}

// survive reads a tar that may be damaged; nil where it is.
func survive(t *testing.T, plain []byte) *Snapshot {
	t.Helper()
	s, err := readTar(bytes.NewReader(plain), readLimits())
	if (s == nil) == (err == nil) {
		t.Fatalf("%v, %v", s, err)
	}
	return s
}

// useful does with a snapshot what commands do with it.
func useful(t *testing.T, s *Snapshot) {
	t.Helper()
	again, err := Read(bytes.NewReader(written(t, s)))
	if err != nil {
		t.Fatalf("what was read and written cannot be read: %v", err)
	}
	if d := cmp.Diff(s, again, comparison()); d != "" {
		t.Fatalf("what was read and written is another one:\n%s", d)
	}
	_ = kinds(s)
	if s.Mask == "" {
		if _, err := Mask(s, testKey); err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzRead damages the entries one by one: the frame around them is of the standard
// library, and has check sums.
func FuzzRead(f *testing.F) {
	var texts [][]byte
	for _, e := range unpacked(f, written(f, smallSnapshot(f))) {
		if !strings.HasSuffix(e.name, saveExt) {
			texts = append(texts, []byte(e.text))
		}
	}
	f.Add(texts[0], texts[1], texts[2], texts[3], texts[4])
	f.Fuzz(func(t *testing.T, header, rules, api, flows, report []byte) {
		in := &reading{most: readLimits()}
		for _, e := range []struct {
			name string
			b    []byte
		}{
			{headerEntry, header}, {"rules/nft-ipv4.json", rules}, {apiEntry, api}, {flowsEntry, flows}, {"reports/services.json", report},
		} {
			if in.entry(e.name, e.b) != nil {
				return
			}
		}
		if in.complete() == nil {
			useful(t, in.snapshot)
		}
	})
}
