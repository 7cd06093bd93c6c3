// SPDX-License-Identifier: Apache-2.0

// Package nodediff tells what differs between two readings of nodes: why a Service
// works on one and not on the other.
//
//	report, err := nodediff.Compare(a, b, nodediff.Selection{Namespace: "shop", Name: "web"})
//	for _, d := range report.Node {
//		fmt.Println(d.What, d.Object, d.A, d.B)
//	}
//
// What is chance is no difference: counters, handles, the order of rules in chains
// of all Services. What the API has decided for each node in its own way, as policies
// that are Local and hints do, is told as explained.
package nodediff
