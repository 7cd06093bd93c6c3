// SPDX-License-Identifier: Apache-2.0

// Package drift tells where the rules in a node's kernel are not what
// kube-proxy, in its iptables mode, should have made of the API's Services.
//
//	c := new(drift.Comparer)
//	j := drift.NewJudge(drift.DefaultGrace)
//	for each reading of the kernel {
//		result := c.Compare(&drift.Input{Catalog: catalog, Rules: rules})
//		verdict := j.Judge(&drift.Reading{Time: now, Result: result, Current: true, Commits: commits})
//		for _, d := range verdict.Drifts {
//			fmt.Println(d.Since, d.Kind, d.Port, d.Detail)
//		}
//	}
//
// Expect says what one Service port should have, Compare where the rules of
// one moment differ from it, and a Judge which of these differences are drift
// and which only wait for a kube-proxy that is at work.
//
// The rules are those of Kubernetes 1.37 (pkg/proxy/iptables/proxier.go). What
// other supported releases, 1.27 to 1.36, or flags of kube-proxy write
// otherwise is no difference; docs/drift.md lists it.
package drift
