// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
)

// columns are what is measured, with its heading.
var columns = [...]struct{ key, title string }{
	{"save", "save -c"},
	{"bare", "bare reading"},
	{"barechange", "bare requests after a change"},
	{"warm", "into kept memory"},
	{"first", "first sampling"},
	{"idle", "nothing new"},
	{"active1", "1 % active"},
	{"active10", "10 % active"},
	{"active100", "100 % active"},
	{"changed", "one Service changed"},
}

func writeTables(w io.Writer, rulesets []ruleset) {
	fmt.Fprint(w, "### CPU, milliseconds (share of the kernel), and heap kept\n\n| rules | Services |")
	for _, c := range columns {
		fmt.Fprintf(w, " %s |", c.title)
	}
	fmt.Fprintf(w, " heap, MiB |\n|---|---|%s---|\n", strings.Repeat("---|", len(columns)))
	for i := range rulesets {
		r := &rulesets[i]
		fmt.Fprintf(w, "| %s, %s | %d |", r.backend, r.family, r.services)
		for _, c := range columns {
			if _, ok := r.figures[c.key+"-cpu-ms"]; !ok {
				fmt.Fprint(w, " |")
				continue
			}
			cpu := r.cpu(c.key)
			share := 0.0
			if cpu > 0 {
				share = 100 * r.figures[c.key+"-sys-ms"] / cpu
			}
			fmt.Fprintf(w, " %.3g (%.0f %%) |", cpu, share)
		}
		fmt.Fprintf(w, " %.1f |\n", r.figures["heap-MiB"])
	}
	fmt.Fprint(w, "\n### Ratios of CPU\n\n| rules | Services | save : bare reading | save : nothing new | save : 1 % active | save : 10 % active | save : one Service changed | nothing new : bare reading | into kept memory | one Service changed : bare requests |\n|---|---|---|---|---|---|---|---|---|---|\n")
	for i := range rulesets {
		r := &rulesets[i]
		fmt.Fprintf(w, "| %s, %s | %d |", r.backend, r.family, r.services)
		for _, c := range []string{"bare", "idle", "active1", "active10", "changed"} {
			fmt.Fprintf(w, " %.1f |", r.cpu("save")/r.cpu(c))
		}
		fmt.Fprintf(w, " %.2f |", r.cpu("idle")/r.cpu("bare"))
		if warm := r.cpu("warm"); warm > 0 {
			fmt.Fprintf(w, " %.2f", r.cpu("idle")/warm)
		}
		fmt.Fprint(w, " |")
		if bare := r.cpu("barechange"); bare > 0 {
			fmt.Fprintf(w, " %.2f", r.cpu("changed")/bare)
		}
		fmt.Fprintln(w, " |")
	}
	fmt.Fprintln(w)
}

func writeBudgets(w io.Writer, checks []check) {
	fmt.Fprint(w, "### Budgets\n\n| budget | measured | wanted | |\n|---|---|---|---|\n")
	for _, c := range checks {
		verdict := "met"
		switch {
		case c.missed():
			verdict = "**missed**"
		case !c.ok():
			verdict = "not met, and no gate"
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s |\n", c.what, c.got(), c.want(), verdict)
	}
	fmt.Fprintln(w)
}
