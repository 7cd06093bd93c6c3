// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

var captured = []string{"flows", "flows6"}

// text is the flow as conntrack -L -o extended prints it, but for the timeout
// and what comes after the tuples.
func text(f *Flow) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %d", strings.ToLower(f.Family.String()), f.ProtocolName(), f.Protocol)
	if f.HasState {
		b.WriteString(" " + strings.ToUpper(f.StateName()))
	}
	tuple := func(t Tuple) {
		fmt.Fprintf(&b, " src=%s dst=%s", t.Src.Addr(), t.Dst.Addr())
		switch f.ProtocolName() {
		case "tcp", "udp", "sctp":
			fmt.Fprintf(&b, " sport=%d dport=%d", t.Src.Port(), t.Dst.Port())
		case "icmp", "icmpv6":
			fmt.Fprintf(&b, " id=%d", t.Src.Port())
		}
	}
	tuple(f.Orig)
	if !f.Status.Has(SeenReply) {
		b.WriteString(" [UNREPLIED]")
	}
	tuple(f.Reply)
	if f.Status.Has(Assured) {
		b.WriteString(" [ASSURED]")
	}
	return b.String()
}

// oracle is what conntrack printed of the same table, so that text has it.
func oracle(t *testing.T, name string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	drop := regexp.MustCompile(` (mark|use|type|code|srckey|dstkey)=\S+`)
	head := regexp.MustCompile(`^(\S+)\s+\d+ (\S+)\s+(\d+) \d+`)
	var out []string
	for line := range strings.Lines(string(b)) {
		line = head.ReplaceAllString(strings.TrimSpace(line), "$1 $2 $3")
		out = append(out, drop.ReplaceAllString(line, ""))
	}
	slices.Sort(out)
	return out
}

func TestFlowsAsConntrackPrintsThem(t *testing.T) {
	for _, name := range captured {
		var got []string
		for _, b := range payloads(t, name+".bin") {
			var f Flow
			if err := f.Decode(b); err != nil {
				t.Fatal(err)
			}
			got = append(got, text(&f))
			if !f.HasTimeout || f.Timeout == 0 || f.Timeout > 86400 || !f.Status.Has(Confirmed) {
				t.Errorf("%s: timeout %d, status %#x", text(&f), f.Timeout, f.Status)
			}
			if nat := f.Reply.Src != f.Orig.Dst && f.Protocol != 1 && f.Protocol != 58; nat != f.Status.Has(DstNAT) && f.ProtocolName() != "gre" {
				t.Errorf("%s: status %#x, the reply's source says %v", text(&f), f.Status, nat)
			}
			if masq := f.Orig.Src.Port() == 40003; masq != f.Status.Has(SrcNAT) {
				t.Errorf("%s: status %#x", text(&f), f.Status)
			}
		}
		slices.Sort(got)
		if d := gocmp.Diff(oracle(t, name), got); d != "" {
			t.Errorf("%s (-conntrack +decoded):\n%s", name, d)
		}
	}
}

// TestFlowsOfIPVS: what IPVS sends elsewhere has no DST_NAT, and SRC_NAT where it is
// masqueraded.
func TestFlowsOfIPVS(t *testing.T) {
	for _, name := range []string{"ipvs/flows", "ipvs/flows6"} {
		var got []string
		redirected, masqueraded := 0, 0
		for _, b := range payloads(t, name+".bin") {
			var f Flow
			if err := f.Decode(b); err != nil {
				t.Fatal(err)
			}
			got = append(got, text(&f))
			masq := f.Reply.Dst != f.Orig.Src
			if f.Status.Has(DstNAT) || masq != f.Status.Has(SrcNAT) {
				t.Errorf("%s: status %#x", text(&f), f.Status)
			}
			if f.Reply.Src != f.Orig.Dst {
				redirected++
			}
			if masq {
				masqueraded++
			}
		}
		slices.Sort(got)
		if d := gocmp.Diff(oracle(t, name), got); d != "" {
			t.Errorf("%s (-conntrack +decoded):\n%s", name, d)
		}
		if redirected < 8 || masqueraded < 2 {
			t.Errorf("%s: %d redirected, %d masqueraded", name, redirected, masqueraded)
		}
	}
}

func TestClosing(t *testing.T) {
	closing := []string{"tcp fin_wait", "tcp close_wait", "tcp last_ack", "tcp time_wait", "tcp close", "sctp closed", "sctp shutdown_sent", "sctp shutdown_recd", "sctp shutdown_ack_sent"}
	var got []string
	for _, protocol := range []uint8{6, 132, 17} {
		for s := range State(12) {
			if f := (Flow{Protocol: protocol, State: s, HasState: true}); f.Closing() {
				got = append(got, f.ProtocolName()+" "+f.StateName())
			}
			if f := (Flow{Protocol: protocol, State: s}); f.Closing() || f.StateName() != "unreplied" {
				t.Errorf("%d, state unknown: closing %v, %q", protocol, f.Closing(), f.StateName())
			}
		}
	}
	if d := gocmp.Diff(closing, got); d != "" {
		t.Errorf("closing (-want +got):\n%s", d)
	}
	if f := (Flow{Protocol: 6, State: 99, HasState: true}); f.StateName() != "99" {
		t.Errorf("an unknown state is called %q", f.StateName())
	}
}

// TestDamagedFlows cuts each message at each byte, and changes each byte: there
// is an error or a flow, never a panic, and a cut tuple is no flow.
func TestDamagedFlows(t *testing.T) {
	for _, name := range captured {
		for _, b := range payloads(t, name+".bin") {
			var f Flow
			for n := range b { // the two tuples of IPv4 have 52 bytes each
				if err := f.Decode(b[:n]); err == nil && n < 4+2*52 {
					t.Errorf("%d of %d bytes: decoded as %s", n, len(b), text(&f))
				}
			}
			for n := range b {
				for _, x := range []byte{0, 1, 0x7f, 0xff} {
					c := slices.Clone(b)
					c[n] = x
					if f.Decode(c) == nil {
						_ = text(&f)
					}
				}
			}
		}
	}
}

func TestFlowErrorsNameTheAttribute(t *testing.T) {
	tuple := func(ip, proto []byte) []byte {
		return nlattr.AppendNested(nlattr.AppendNested(nil, ctaTupleIP, ip), ctaTupleProto, proto)
	}
	ip := nlattr.Append(nlattr.Append(nil, ctaIPv4Src, []byte{10, 0, 0, 1}), ctaIPv4Dst, []byte{10, 0, 0, 2})
	proto := nlattr.Append(nil, ctaProtoNum, []byte{6})
	good := tuple(ip, proto)
	for _, tt := range []struct {
		name        string
		orig, reply []byte
		want        string
	}{
		{"no reply", good, nil, "conntrack entry: CTA_TUPLE_REPLY: missing"},
		{"no original", nil, good, "conntrack entry: CTA_TUPLE_ORIG: missing"},
		{"no protocol", tuple(ip, nil), good, "conntrack entry: CTA_PROTO_NUM: missing"},
		{"one address", tuple(ip[:8], proto), good, "conntrack entry: CTA_IP_*: missing"},
		{"short address", tuple(nlattr.Append(nil, ctaIPv6Dst, []byte{1, 2}), proto), good, "conntrack entry: CTA_IP_V6_DST: 2 bytes, want 16"},
		{"as it should be", good, good, ""},
	} {
		b := netfilter.AppendGenMsg(nil, netfilter.GenMsg{Family: netfilter.IPv4})
		if tt.orig != nil {
			b = nlattr.AppendNested(b, ctaTupleOrig, tt.orig)
		}
		if tt.reply != nil {
			b = nlattr.AppendNested(b, ctaTupleReply, tt.reply)
		}
		got := ""
		var f Flow
		if err := f.Decode(b); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestFlowsAreDecodedWithoutAllocation(t *testing.T) {
	all := append(payloads(t, "flows.bin"), payloads(t, "flows6.bin")...)
	var f Flow
	if n := testing.AllocsPerRun(100, func() {
		for _, b := range all {
			if err := f.Decode(b); err != nil {
				t.Fatal(err)
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations for %d flows", n, len(all))
	}
}

func FuzzFlow(f *testing.F) {
	for _, name := range captured {
		b, err := os.ReadFile(filepath.Join("testdata", name+".bin"))
		if err != nil {
			f.Fatal(err)
		}
		for it := nlattr.Messages(b); it.Next(); {
			f.Add(it.Message().Payload)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var flow Flow
		if flow.Decode(b) != nil {
			return
		}
		if !flow.Orig.Src.IsValid() || !flow.Reply.Dst.IsValid() || flow.Orig.Src.Addr().Is4() != flow.Orig.Dst.Addr().Is4() {
			t.Errorf("decoded without addresses: %s", text(&flow))
		}
	})
}

func BenchmarkFlow(b *testing.B) {
	all := append(payloads(b, "flows.bin"), payloads(b, "flows6.bin")...)
	var f Flow
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := f.Decode(all[i%len(all)]); err != nil {
			b.Fatal(err)
		}
	}
}
