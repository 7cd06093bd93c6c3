// SPDX-License-Identifier: Apache-2.0

// Command ratios compares, in one run and on the same rules, what svcscope's
// readers cost with what iptables-save costs, and prints rows of a Markdown
// table. It must run in a network namespace of its own (hack/bench.sh does
// that), because it loads rules.
//
//	ratios [services...]
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
)

func main() {
	sizes := []int{100, 1000, 10000}
	if len(os.Args) > 1 {
		sizes = nil
		for _, a := range os.Args[1:] {
			n, err := strconv.Atoi(a)
			if err != nil {
				fmt.Fprintf(os.Stderr, "ratios: number of services %q: %v\n", a, err)
				os.Exit(2)
			}
			sizes = append(sizes, n)
		}
	}
	for _, n := range sizes {
		if err := compare(context.Background(), n); err != nil {
			fmt.Fprintf(os.Stderr, "ratios: %d services: %v\n", n, err)
			os.Exit(1)
		}
	}
}
