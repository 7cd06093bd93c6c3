// SPDX-License-Identifier: Apache-2.0

// Command clidoc writes docs/cli.md to standard output, from the commands
// themselves.
package main

import (
	"fmt"
	"os"

	"github.com/svcscope/svcscope/pkg/cli"
)

func main() {
	if err := cli.WriteDocs(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "clidoc:", err)
		os.Exit(1)
	}
}
