// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

func payloads(tb testing.TB, file string) [][]byte {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		tb.Fatal(err)
	}
	var out [][]byte
	it := nlattr.Messages(b)
	for it.Next() {
		out = append(out, it.Message().Payload)
	}
	if it.Err() != nil || len(out) == 0 {
		tb.Fatalf("%s: %d messages, %v", file, len(out), it.Err())
	}
	return out
}

// names are the spellings of conntrack -S.
var names = map[string]Stat{
	"found": Found, "invalid": Invalid, "insert": Insert, "insert_failed": InsertFailed, "drop": Drop,
	"early_drop": EarlyDrop, "error": Error, "search_restart": SearchRestart,
	"clash_resolve": ClashResolve, "chaintoolong": ChainTooLong,
}

func TestCPUStatsAsConntrackPrintsThem(t *testing.T) {
	text, err := os.ReadFile("testdata/stats.txt")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]map[string]uint32{}
	field := regexp.MustCompile(`(\w+)=(\d+)`)
	for line := range strings.Lines(string(text)) {
		m := field.FindAllStringSubmatch(line, -1)
		cpu := map[string]uint32{}
		for _, f := range m[1:] {
			n, _ := strconv.ParseUint(f[2], 10, 32)
			cpu[f[1]] = uint32(n)
		}
		want[m[0][2]] = cpu
	}
	got := map[string]map[string]uint32{}
	for _, b := range payloads(t, "stats_cpu.bin") {
		s, err := DecodeCPUStats(b)
		if err != nil {
			t.Fatal(err)
		}
		cpu := map[string]uint32{}
		for name, stat := range names {
			if v, ok := s.Get(stat); ok {
				cpu[name] = v
			}
		}
		got[strconv.Itoa(int(s.CPU))] = cpu
	}
	if d := gocmp.Diff(want, got); d != "" {
		t.Errorf("statistics (-want +got):\n%s", d)
	}
}

func TestStatNotSentIsUnknown(t *testing.T) {
	b := netfilter.AppendGenMsg(nil, netfilter.GenMsg{ResID: 7})
	b = nlattr.AppendUint32(b, uint16(Found), 1<<31)
	b = nlattr.AppendUint32(b, 40, 9) // of a later kernel
	s, err := DecodeCPUStats(b)
	if err != nil {
		t.Fatal(err)
	}
	if v, ok := s.Get(Found); v != 1<<31 || !ok || s.CPU != 7 {
		t.Errorf("got found %d, %v on CPU %d", v, ok, s.CPU)
	}
	for _, stat := range []Stat{ChainTooLong, Drop, 40, 255} {
		if v, ok := s.Get(stat); v != 0 || ok {
			t.Errorf("statistic %d: got %d, %v; want unknown", stat, v, ok)
		}
	}
}

func TestGlobalStatsAsConntrackPrintsThem(t *testing.T) {
	text, err := os.ReadFile("testdata/count.txt")
	if err != nil {
		t.Fatal(err)
	}
	g, err := DecodeGlobalStats(payloads(t, "stats.bin")[0])
	if err != nil {
		t.Fatal(err)
	}
	if strconv.Itoa(int(g.Entries)) != strings.TrimSpace(string(text)) || g.MaxEntries == 0 {
		t.Errorf("got %+v, want %s entries and a maximum", g, text)
	}
}

// check runs both decoders and fails tb if one returns an error and a value.
func check(tb testing.TB, b []byte) {
	tb.Helper()
	if s, err := DecodeCPUStats(b); err != nil && s != (CPUStats{}) {
		tb.Fatalf("error %v and a value %+v", err, s)
	}
	if g, err := DecodeGlobalStats(b); err != nil && g != (GlobalStats{}) {
		tb.Fatalf("error %v and a value %+v", err, g)
	}
}

func TestDamagedMessages(t *testing.T) {
	for _, file := range []string{"stats_cpu.bin", "stats.bin"} {
		for _, b := range payloads(t, file) {
			for i := range b {
				check(t, b[:i])
				for bit := range 256 {
					c := slices.Clone(b)
					c[i] ^= byte(bit)
					check(t, c)
				}
			}
		}
	}
}

func TestErrors(t *testing.T) {
	var short *netfilter.ShortError
	if _, err := DecodeCPUStats([]byte{0, 0}); !errors.As(err, &short) || short.Struct != "nfgenmsg" {
		t.Errorf("got %v, want a ShortError of nfgenmsg", err)
	}
	var attr *nlattr.Error
	if _, err := DecodeGlobalStats([]byte{0, 0, 0, 0}); !errors.As(err, &attr) || attr.Attr != "CTA_STATS_GLOBAL_ENTRIES" {
		t.Errorf("got %v, want CTA_STATS_GLOBAL_ENTRIES missing", err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, file := range []string{"stats_cpu.bin", "stats.bin"} {
		for _, b := range payloads(f, file) {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) { check(t, b) })
}

func BenchmarkCPUStats(b *testing.B) {
	msg := payloads(b, "stats_cpu.bin")[0]
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeCPUStats(msg); err != nil {
			b.Fatal(err)
		}
	}
}
