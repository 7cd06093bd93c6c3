// SPDX-License-Identifier: Apache-2.0

// Command metricsdoc writes docs/metrics.md, made from the catalogue in
// pkg/metrics, to standard output:
//
//	go run ./hack/metricsdoc > docs/metrics.md
package main

import (
	"fmt"
	"os"

	"github.com/svcscope/svcscope/pkg/metrics"
)

func main() {
	if _, err := os.Stdout.WriteString(document(metrics.Catalog())); err != nil {
		fmt.Fprintln(os.Stderr, "metricsdoc:", err)
		os.Exit(1)
	}
}
