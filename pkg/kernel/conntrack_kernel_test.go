// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/netfilter/conntrack"
)

func TestConntrackAsTheToolPrintsIt(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		c, err := OpenConntrack()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for i := range 5 {
			kerneltest.Exec(t, "", "conntrack", "-I", "-p", "tcp", "-s", "192.0.2.1", "-d", "192.0.2.2",
				"--sport", strconv.Itoa(1000+i), "--dport", "80", "--state", "ESTABLISHED", "-t", "600")
		}
		got, err := c.Count(t.Context())
		want := strings.TrimSpace(kerneltest.Exec(t, "", "conntrack", "-C"))
		if err != nil || strconv.FormatUint(got, 10) != want || got != 5 {
			t.Errorf("count: got %d, %v; want %s", got, err, want)
		}
		s, err := c.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		sums := map[string]uint64{}
		for _, m := range regexp.MustCompile(`(\w+)=(\d+)`).FindAllStringSubmatch(kerneltest.Exec(t, "", "conntrack", "-S"), -1) {
			n, _ := strconv.ParseUint(m[2], 10, 64)
			sums[m[1]] += n
		}
		delete(sums, "cpu")
		have := map[string]uint64{}
		for name, p := range map[string]*uint64{
			"found": s.Found, "invalid": s.Invalid, "insert": s.Insert, "insert_failed": s.InsertFailed,
			"drop": s.Drop, "early_drop": s.EarlyDrop, "error": s.Error, "search_restart": s.SearchRestart,
			"clash_resolve": s.ClashResolve, "chaintoolong": s.ChainTooLong,
		} {
			if p != nil {
				have[name] = *p
			}
		}
		if d := cmp.Diff(sums, have); d != "" || sums["insert"] != 5 {
			t.Errorf("statistics (-want +got):\n%s", d)
		}
	})
}

// TestFlowsOfTheKernel fills a table, and reads what conntrack -L prints of it;
// with the filter that the kernel applies, what conntrack -L -g prints.
func TestFlowsOfTheKernel(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		const each = 300
		var script strings.Builder
		for i := range each {
			fmt.Fprintf(&script, "-I -p tcp -s 10.244.1.7 -d 10.96.0.10 --sport %d --dport 80 -g 10.244.1.5:8080 --state ESTABLISHED -t 600\n", 1024+i)
			fmt.Fprintf(&script, "-I -p udp -s fd00::7 -d fd00::8 --sport %d --dport 53 -t 600\n", 1024+i)
		}
		script.WriteString("-I -p icmp -s 10.244.1.7 -d 203.0.113.3 --icmp-type 8 --icmp-code 0 --icmp-id 77 -t 600\n")
		kerneltest.Exec(t, script.String(), "conntrack", "-R", "-")
		c, err := OpenConntrack()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, tt := range []struct {
			filter FlowFilter
			tool   []string
			want   int
		}{
			{FlowFilter{}, []string{"-L", "-f", "ipv4"}, 2*each + 1},
			{FlowFilter{DstNAT: true}, []string{"-L", "-f", "ipv4", "-g"}, each},
		} {
			oracle := strings.Count(kerneltest.Exec(t, "", "conntrack", tt.tool...), "\n")
			if len(tt.tool) == 3 {
				oracle += strings.Count(kerneltest.Exec(t, "", "conntrack", "-L", "-f", "ipv6"), "\n")
			}
			d, err := c.Flows(t.Context(), tt.filter, func(*conntrack.Flow) {})
			if err != nil || int(d.Entries) != tt.want || oracle != tt.want || d.Undecoded != 0 {
				t.Errorf("%+v: %+v, %v; conntrack prints %d, want %d", tt.filter, d, err, oracle, tt.want)
			}
			if major, minor := kerneltest.Version(t); tt.filter.DstNAT && major*100+minor >= 601 && !d.Filtered {
				t.Error("the kernel has not filtered")
			}
		}
	})
}
