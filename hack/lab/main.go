// SPDX-License-Identifier: Apache-2.0

// Command lab runs a Kubernetes node and its control plane in network
// namespaces: real etcd, kube-apiserver and kube-proxy, pods that are
// namespaces with small servers, and a client outside the node. See README.md.
package main

import (
	"os"

	"github.com/svcscope/svcscope/hack/lab/internal/cli"
)

func main() { os.Exit(cli.Run(os.Args[1:])) }
