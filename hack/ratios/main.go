// SPDX-License-Identifier: Apache-2.0

// Command ratios makes the tables of docs/performance.md from the output of
// `go test -bench`, on standard input, and holds the budgets: it exits with 1
// and a line for each that is missed. hack/bench.sh runs it.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

func main() {
	results, err := parse(os.Stdin)
	if err != nil {
		fmt.Fprintf(os.Stderr, "ratios: read benchmarks: %v\n", err)
		os.Exit(1)
	}
	rulesets := costs(results)
	writeTables(os.Stdout, rulesets)
	checks := append(ruleBudgets(rulesets), otherBudgets(results)...)
	writeBudgets(os.Stdout, checks)
	missed := false
	for _, c := range checks {
		if c.missed() {
			fmt.Fprintf(os.Stderr, "ratios: budget missed: %s: %s, want %s\n", c.what, c.got(), c.want())
			missed = true
		}
	}
	if missed {
		os.Exit(1)
	}
}

// result is one line of a benchmark: its name without the number of
// processors, and its figures by unit.
type result struct {
	name    string
	figures map[string]float64
}

func parse(r io.Reader) ([]result, error) {
	var all []result
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		name := f[0]
		if i := strings.LastIndexByte(name, '-'); i > 0 {
			if _, err := strconv.Atoi(name[i+1:]); err == nil {
				name = name[:i]
			}
		}
		one := result{name: strings.TrimPrefix(name, "Benchmark"), figures: make(map[string]float64)}
		for i := 2; i+1 < len(f); i += 2 {
			v, err := strconv.ParseFloat(f[i], 64)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			one.figures[f[i+1]] = v
		}
		all = append(all, one)
	}
	return all, lines.Err()
}

// ruleset is what BenchmarkCost has measured with one set of rules; times are
// in milliseconds.
type ruleset struct {
	backend, family string
	services        int
	figures         map[string]float64
}

func (r *ruleset) cpu(what string) float64 { return r.figures[what+"-cpu-ms"] }

// costs picks the results of BenchmarkCost.
func costs(results []result) []ruleset {
	var all []ruleset
	for _, r := range results {
		part := strings.Split(r.name, "/")
		if part[0] != "Cost" || len(part) != 4 {
			continue
		}
		n, err := strconv.Atoi(strings.TrimPrefix(part[3], "services="))
		if err != nil {
			continue
		}
		all = append(all, ruleset{part[1], part[2], n, r.figures})
	}
	return all
}
