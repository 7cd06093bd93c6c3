// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const output = `goos: linux
BenchmarkCost/nft/IPv4/services=1000-2   1  14771 ns/op  170 save-cpu-ms  60 save-sys-ms  9 bare-cpu-ms  20 barechange-cpu-ms  5 idle-cpu-ms  20 active1-cpu-ms  30 active10-cpu-ms  40 changed-cpu-ms
BenchmarkCost/nft/IPv4/services=10000-2  1  14771 ns/op  1700 save-cpu-ms  90 bare-cpu-ms  200 barechange-cpu-ms  50 idle-cpu-ms  200 active1-cpu-ms  300 active10-cpu-ms  400 changed-cpu-ms
BenchmarkCost/legacy/IPv4/services=100-2 1  14771 ns/op  30 save-cpu-ms  2 bare-cpu-ms  4 idle-cpu-ms  4 active1-cpu-ms  4 active10-cpu-ms  4 changed-cpu-ms
BenchmarkScrape/openmetrics-2            8  66609241 ns/op  12.66 MB/scrape  61 cpu-ms/scrape  5333786 B/op  40136 allocs/op
BenchmarkFlows/services/entries=100000-2 1 1 ns/op  180 bare-cpu-ms  216 agent-cpu-ms  540 conntrack-cpu-ms  900 timo-cpu-ms  11 agent-heap-MiB
BenchmarkScrape/text/endpoints-2         7 100840078 ns/op  10379180 B/op  50120 allocs/op
PASS
`

func TestBudgets(t *testing.T) {
	results, err := parse(strings.NewReader(output))
	if err != nil {
		t.Fatal(err)
	}
	rulesets := costs(results)
	var missed, told []string
	for _, c := range append(ruleBudgets(rulesets), otherBudgets(results)...) {
		line := c.what + ": " + c.got() + ", " + c.want()
		if c.missed() {
			missed = append(missed, line)
		} else {
			told = append(told, line)
		}
	}
	// Of 100 Services no ratio is judged.
	want := []string{
		"nft, IPv4, 10000 Services: CPU of one Service changed : the bare requests for it: 2x, at most 1.6x",
		"Scrape/openmetrics: allocated: 5.33 MB, at most 5 MB",
		"Flows/services/entries=100000: heap that grows: 11 MiB, at most 10 MiB",
	}
	if d := cmp.Diff(want, missed); d != "" {
		t.Errorf("missed (-want +got):\n%s", d)
	}
	want = []string{
		"nft, IPv4, 1000 Services: CPU of iptables-nft-save -c : nothing new: 34x, at least 20x",
		"nft, IPv4, 1000 Services: CPU of iptables-nft-save -c : one Service changed: 4.25x, at least 5x",
		"nft, IPv4, 1000 Services: CPU of one Service changed : the bare requests for it: 2x, at most 1.6x",
		"nft, IPv4, 10000 Services: CPU of iptables-nft-save -c : nothing new: 34x, at least 20x",
		"nft, IPv4, 10000 Services: CPU of iptables-nft-save -c : one Service changed: 4.25x, at least 5x",
		"nft, both families, 1000 Services each: share of a core every 15 s, nothing new: 0.0333 %, at most 0.5 %",
		"nft, both families, 10000 Services each: share of a core every 15 s, nothing new: 0.333 %, at most 1.5 %",
		"Scrape/openmetrics: CPU: 61 ms, at most 60 ms",
		"Flows/services/entries=100000: CPU of a reading : the bare dump: 1.2x, at most 1.15x",
		"Flows/services/entries=100000: the same, so that it grows no more: 1.2x, at most 1.5x",
		"Flows/services/entries=100000: CPU of conntrack -L : a reading: 2.5x, at least 1x",
		"Flows/services/entries=100000: CPU of ti-mo/conntrack's Dump : a reading: 4.17x, at least 1x",
	}
	if d := cmp.Diff(want, told); d != "" {
		t.Errorf("told (-want +got):\n%s", d)
	}
	var b strings.Builder
	writeTables(&b, rulesets)
	for _, row := range []string{"| nft, IPv4 | 1000 | 170 (35 %) | 9 (0 %) | 20 (0 %) | | |", "| nft, IPv4 | 1000 | 18.9 | 34.0 | 8.5 | 5.7 | 4.2 | 0.56 | | 2.00 |"} {
		if !strings.Contains(b.String(), row) {
			t.Errorf("the tables lack %q:\n%s", row, b.String())
		}
	}
}
