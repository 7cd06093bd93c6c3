// SPDX-License-Identifier: Apache-2.0

package nftables

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// noticeMessages are the captured notices of ten commits.
func noticeMessages(tb testing.TB) []nlattr.Message {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "notices", "notices.bin"))
	if err != nil {
		tb.Fatal(err)
	}
	var out []nlattr.Message
	it := nlattr.Messages(b)
	for it.Next() {
		out = append(out, *it.Message())
	}
	if it.Err() != nil || len(out) < 50 {
		tb.Fatalf("%d messages: %v", len(out), it.Err())
	}
	return out
}

// monitorLine is how nft monitor prints a notice: "add rule ip filter OUTPUT
// counter packets 0 bytes 0 # handle 4", "# new generation 3 by process 7 (nft)".
var (
	generationLine = regexp.MustCompile(`^# new generation (\d+) by process (\d+) \((.*)\)$`)
	objectLine     = regexp.MustCompile(`^(add|create|delete) (table|chain|rule) (\S+) (\S+)(?: (\S+))?`)
	handleText     = regexp.MustCompile(`handle (\d+)$`)
	counterText    = regexp.MustCompile(`counter packets (\d+) bytes (\d+)`)
)

// monitored brings a line to the words of noticeText.
func monitored(line string) string {
	if m := generationLine.FindStringSubmatch(line); m != nil {
		return "generation " + strings.Join(m[1:], " ")
	}
	m := objectLine.FindStringSubmatch(line)
	if m == nil {
		return "other"
	}
	verb, object := map[string]string{"add": "new", "create": "new", "delete": "deleted"}[m[1]], m[2]
	s := strings.Join([]string{verb, object, m[3], m[4]}, " ")
	if object != "table" {
		s += " " + m[5]
	}
	// nft names a deleted chain without its handle, and a deleted rule without
	// its counter.
	if h := handleText.FindStringSubmatch(line); h != nil {
		s += " #" + h[1]
	}
	if c := counterText.FindStringSubmatch(line); c != nil && object == "rule" {
		s += " " + c[1] + ":" + c[2]
	}
	return s
}

// noticeText says of a notice what nft monitor prints.
func noticeText(n *Notice) string {
	switch n.Kind {
	case NoticeOther:
		return "other"
	case NewGen:
		return fmt.Sprintf("generation %d %d %s", n.Gen.ID, n.Gen.ProcPID, n.Gen.ProcName)
	case NewTable, DelTable:
		return fmt.Sprintf("%v %s %s #%d", n.Kind, nftFamily(n.Family), n.Table, n.TableHandle)
	}
	s := fmt.Sprintf("%v %s %s %s", n.Kind, nftFamily(n.Family), n.Table, n.Chain)
	if n.Kind != DelChain {
		s += fmt.Sprintf(" #%d", n.Handle)
	}
	if n.HasCounter && n.Kind == NewRule {
		s += fmt.Sprintf(" %d:%d", n.Counter.Packets, n.Counter.Bytes)
	}
	return s
}

func TestNoticesAsNFTMonitorsThem(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "notices", "monitor.txt"))
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for line := range strings.Lines(string(text)) {
		want = append(want, monitored(strings.TrimRight(line, "\n")))
	}
	var (
		d     NoticeDecoder
		final []netfilter.Counter
		since int // the first notice of the commit
	)
	for _, m := range noticeMessages(t) {
		n, err := d.Decode(&m)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, noticeText(&n))
		if n.Kind == DelRule && n.HasCounter && n.Counter.Packets > 0 {
			final = append(final, n.Counter)
		}
		if n.Kind == NewGen && (n.ResID != uint16(n.Gen.ID) || since == len(got)) {
			t.Errorf("generation %d: %+v", n.Gen.ID, n)
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("notices (-want +got):\n%s", d)
	}
	// Three packets of 33 bytes follow each commit.
	packets := func(n uint64) netfilter.Counter { return netfilter.Counter{Packets: n, Bytes: 33 * n} }
	wantFinal := []netfilter.Counter{
		packets(3),             // restored chain
		packets(6), packets(3), // zeroed
		packets(3),              // replaced
		packets(3),              // flushed
		packets(12),             // whole table restored with counters: one rule begins at 40
		packets(6), packets(46), // table deleted
		packets(6), // ruleset flushed
	}
	if d := cmp.Diff(wantFinal, final); d != "" {
		t.Errorf("final values (-want +got):\n%s", d)
	}
}

// TestNoticesOfARule holds notices against the whole decoder: the payload of
// a rule's notice is that of a dump.
func TestNoticesOfARule(t *testing.T) {
	for typ, kind := range map[uint16]NoticeKind{0xa06: NewRule, 0xa08: DelRule, 0xa1c: DelRule} {
		var d NoticeDecoder
		for _, b := range payloads(t, "kube-proxy", "rules.bin") {
			r, err := DecodeRule(b)
			if err != nil {
				t.Fatal(err)
			}
			h, _, _ := netfilter.DecodeGenMsg(b)
			want := Notice{
				Kind: kind, Type: typ, Family: r.Family, ResID: h.ResID,
				Table: r.Table, Chain: r.Chain, Handle: r.Handle, Payload: b,
			}
			want.Counter, want.HasCounter = r.Counter()
			got, err := d.Decode(&nlattr.Message{Type: typ, Payload: b})
			if d := cmp.Diff(want, got); d != "" || err != nil {
				t.Fatalf("%v (-want +got):\n%s", err, d)
			}
		}
	}
}

// TestDestroyedIsDeleted: messages of the commands of Linux 6.3.
func TestDestroyedIsDeleted(t *testing.T) {
	destroy := map[NoticeKind]uint16{DelTable: 26, DelChain: 27, DelRule: 28}
	seen := 0
	for _, m := range noticeMessages(t) {
		n, err := DecodeNotice(&m)
		if err != nil {
			t.Fatal(err)
		}
		typ, ok := destroy[n.Kind]
		if !ok {
			continue
		}
		seen++
		m.Type = subsystem<<8 | typ
		n.Type = m.Type
		got, err := DecodeNotice(&m)
		if d := cmp.Diff(n, got); d != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, d)
		}
	}
	if seen < 10 {
		t.Errorf("%d messages", seen)
	}
}

func TestNoticesThatSayTooLittle(t *testing.T) {
	head := netfilter.AppendGenMsg(nil, netfilter.GenMsg{Family: netfilter.IPv4})
	rule := nlattr.AppendString(slices.Clone(head), attrRuleTable, "nat")
	rule = nlattr.AppendString(rule, attrRuleChain, "KUBE-A")
	tests := []struct {
		name string
		m    nlattr.Message
		want string // of the error; empty for none
	}{
		{"no header", nlattr.Message{Type: 0xa06}, "notice (new rule): nfgenmsg at offset 0: need 4 bytes, have 0"},
		{"a rule without a handle", nlattr.Message{Type: 0xa08, Payload: rule}, "notice (deleted rule): NFTA_RULE_HANDLE: missing"},
		{"a rule without a name", nlattr.Message{Type: 0xa06, Payload: head}, "notice (new rule): NFTA_RULE_TABLE: missing"},
		{"a chain without a name", nlattr.Message{Type: 0xa03, Payload: head}, "notice (new chain): NFTA_CHAIN_TABLE: missing"},
		{"a table without a name", nlattr.Message{Type: 0xa02, Payload: head}, "notice (deleted table): NFTA_TABLE_NAME: missing"},
		{"a generation without a number", nlattr.Message{Type: 0xa0f, Payload: head}, "notice (new generation): NFTA_GEN_ID: missing"},
		{"another type", nlattr.Message{Type: 0xaff, Payload: head}, ""},
		{"another subsystem", nlattr.Message{Type: 0x106, Payload: head}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n, err := DecodeNotice(&tt.m)
			switch {
			case tt.want == "" && (err != nil || n.Kind != NoticeOther || n.Type != tt.m.Type):
				t.Errorf("got %+v, %v", n, err)
			case tt.want != "" && (err == nil || err.Error() != tt.want):
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}
