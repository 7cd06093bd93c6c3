// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
)

// check is one budget. Ratios and allocations gate; times depend on the machine
// and are told only.
type check struct {
	what        string
	value       float64
	least, most float64 // one of them is 0: no bound
	unit        string
	gates       bool
}

func (c *check) ok() bool {
	return (c.least == 0 || c.value >= c.least) && (c.most == 0 || c.value <= c.most)
}

func (c *check) missed() bool { return c.gates && !c.ok() }

func (c *check) got() string { return fmt.Sprintf("%.3g%s", c.value, c.unit) }

func (c *check) want() string {
	if c.least != 0 {
		return fmt.Sprintf("at least %g%s", c.least, c.unit)
	}
	return fmt.Sprintf("at most %g%s", c.most, c.unit)
}

const (
	// fewest is from how many Services on ratios gate: below it both sides are
	// dominated by what a process and a sampling cost without any rule.
	fewest = 1000
	// many is from how many on it gates what a change costs: that is some tens of
	// milliseconds of 1,000, too few to be sure of.
	many     = 10000
	interval = 15000 // of sampling, milliseconds
)

// ruleBudgets are those of reading rules.
func ruleBudgets(rulesets []ruleset) []check {
	var all []check
	idle := make(map[string]float64) // a sampling's CPU, the families together
	for i := range rulesets {
		r := &rulesets[i]
		idle[fmt.Sprintf("%s %d", r.backend, r.services)] += r.cpu("idle")
		if r.services < fewest {
			continue
		}
		name := func(what string) string {
			return fmt.Sprintf("%s, %s, %d Services: %s", r.backend, r.family, r.services, what)
		}
		ratio := func(what string, value, least, most float64) {
			all = append(all, check{name(what), value, least, most, "x", true})
		}
		if r.backend == "nft" {
			ratio("CPU of iptables-nft-save -c : nothing new", r.cpu("save")/r.cpu("idle"), 20, 0)
			all = append(all, check{name("CPU of iptables-nft-save -c : one Service changed"), r.cpu("save") / r.cpu("changed"), 5, 0, "x", false})
			if bare := r.cpu("barechange"); bare > 0 {
				all = append(all, check{name("CPU of one Service changed : the bare requests for it"), r.cpu("changed") / bare, 0, 1.6, "x", r.services >= many})
			}
		} else {
			ratio("CPU of nothing new : bare GET_ENTRIES", r.cpu("idle")/r.cpu("bare"), 0, 1.3)
			if warm := r.cpu("warm"); warm > 0 {
				all = append(all, check{name("CPU of nothing new : GET_ENTRIES into kept memory"), r.cpu("idle") / warm, 0, 1.3, "x", false})
			}
			all = append(all, check{name("CPU of iptables-legacy-save -c : nothing new"), r.cpu("save") / r.cpu("idle"), 3, 0, "x", false})
		}
	}
	for _, backend := range []string{"nft", "legacy"} {
		for _, limit := range []struct {
			services int
			most     float64
		}{{1000, 0.5}, {10000, 1.5}} {
			if cpu, ok := idle[fmt.Sprintf("%s %d", backend, limit.services)]; ok {
				all = append(all, check{
					fmt.Sprintf("%s, both families, %d Services each: share of a core every 15 s, nothing new", backend, limit.services),
					100 * cpu / interval, 0, limit.most, " %", false,
				})
			}
		}
	}
	return all
}

// otherBudgets are those of the scrape and of a whole agent's memory.
func otherBudgets(results []result) []check {
	var all []check
	for _, r := range results {
		switch {
		case strings.HasPrefix(r.name, "Scrape/"):
			if strings.Contains(r.name, "endpoints") {
				continue // three times the series, and only when asked for
			}
			all = append(all,
				check{r.name + ": allocated", r.figures["B/op"] / 1e6, 0, 5, " MB", true},
				check{r.name + ": CPU", r.figures["cpu-ms/scrape"], 0, 60, " ms", false})
		case strings.HasPrefix(r.name, "Flows/"):
			all = append(all,
				check{r.name + ": CPU of a reading : the bare dump", r.figures["agent-cpu-ms"] / r.figures["bare-cpu-ms"], 0, 1.15, "x", false},
				check{r.name + ": the same, so that it grows no more", r.figures["agent-cpu-ms"] / r.figures["bare-cpu-ms"], 0, grownMost(r.name), "x", true},
				check{r.name + ": CPU of conntrack -L : a reading", r.figures["conntrack-cpu-ms"] / r.figures["agent-cpu-ms"], 1, 0, "x", true},
				check{r.name + ": CPU of ti-mo/conntrack's Dump : a reading", r.figures["timo-cpu-ms"] / r.figures["agent-cpu-ms"], 1, 0, "x", true},
				check{r.name + ": heap that grows", r.figures["agent-heap-MiB"], 0, 10, " MiB", true})
		case strings.HasPrefix(r.name, "AgentMemory/"):
			all = append(all, check{r.name + ": resident", r.figures["rss-MiB"], 0, 80, " MiB", false})
		}
	}
	return all
}

// grownMost is what a reading of entries takes of the bare dump at most: more where
// each entry has a destination of its own, of which nothing is known from others.
func grownMost(name string) float64 {
	if strings.HasPrefix(name, "Flows/egress/") {
		return 2
	}
	return 1.5
}
