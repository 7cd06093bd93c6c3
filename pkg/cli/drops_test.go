// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"time"

	"github.com/svcscope/svcscope/pkg/agent"
	"github.com/svcscope/svcscope/pkg/correlate"
)

// dropsAnswer is a node that reads the groups which are named, if one is held, and sees
// a packet of each that it reads.
func dropsAnswer(c agent.Config, w agent.DropWatch) error {
	if c.Tap {
		w.Started([]correlate.LogGroup{{Group: 10988, Bound: true}})
		w.Visit(&correlate.DropEventReport{
			Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Source: "tap", Group: new(uint16(10988)), Hook: "output", Refused: true,
			Reason: "no_endpoints", Owner: "kube-proxy", Service: &correlate.ObjectReport{Namespace: "shop", Name: "dns"}, SentTo: "10.96.0.10:53",
			Protocol: "UDP", From: "10.244.2.9:40000", To: "10.96.0.10:53", Table: "filter", Chain: "KUBE-SERVICES",
		})
		return nil
	}
	switch c.NFLOGGroup {
	case "auto":
		w.Started(nil)
		return nil
	case "1":
		w.Started([]correlate.LogGroup{{Group: 1, Err: "NFLOG group 1 is held by netlink port 4242"}})
		return nil
	case "100":
		w.Started([]correlate.LogGroup{{Group: 100, Bound: true}})
		w.Visit(&correlate.DropEventReport{
			Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Source: "nflog", Group: new(uint16(100)), Hook: "forward", Refused: true,
			Reason: "policy_default", Owner: "kube-router", Pod: &correlate.ObjectReport{Namespace: "shop", Name: "web-0"},
			Protocol: "TCP", From: "10.244.2.9:40000", To: "10.244.1.5:8080", Missed: 3,
		})
		return nil
	}
	if c.NFLOGGroup == "101" {
		w.Started([]correlate.LogGroup{{Group: 101, Bound: true}})
		w.Visit(&correlate.DropEventReport{
			Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Source: "nflog", Hook: "forward", Reason: "rule", Owner: "other",
			Prefix: fmt.Sprintf("pods %v, policies %v, anonymized %v", c.KubePods, c.KubePolicies, c.AnonymizeDrops),
		})
		return nil
	}
	return fmt.Errorf("group %q was not expected", c.NFLOGGroup)
}
