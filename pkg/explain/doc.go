// SPDX-License-Identifier: Apache-2.0

// Package explain tells which way connections to a Service go on one node: rule by
// rule from the built-in chains to the endpoints, with the rules' live counters,
// beside what the API wants and the entries of connection tracking.
//
//	r, err := explain.New(node, explain.Query{Service: name, Port: "http"})
//	if err != nil {
//		return err
//	}
//	return explain.Write(os.Stdout, r, explain.Options{Width: 100})
//
// All of it is made of one capture.Node; nothing is read, and no time is looked at.
package explain
