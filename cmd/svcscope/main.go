// SPDX-License-Identifier: Apache-2.0

// Command svcscope shows what a Kubernetes node's kernel really does with
// Services. The agent and the command line are this one binary.
package main

import (
	"os"

	"github.com/svcscope/svcscope/pkg/cli"
)

func main() { os.Exit(cli.Run(os.Args[1:], os.Stdout, os.Stderr)) }
