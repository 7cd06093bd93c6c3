// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"time"

	"github.com/svcscope/svcscope/pkg/agent"
	"github.com/svcscope/svcscope/pkg/correlate"
)

// dropsSnapshot has these groups, and no tap.
func dropsSnapshot(why correlate.NoEvents, groups ...correlate.LogGroup) *correlate.Snapshot {
	return &correlate.Snapshot{
		LogGroups: groups, NoGroups: why,
		Tables: []correlate.TableSize{{Owner: "cilium"}}, Node: correlate.NodeInfo{ProxyMode: "nftables"},
	}
}

// dropsAnswer is a node that reads the groups which are named, if one is held, and sees
// a packet of each that it reads.
func dropsAnswer(c agent.Config, w agent.DropWatch) error {
	sources := func(s *correlate.Snapshot) {
		w.Sources(new(correlate.NewDropsReport(s, nil, nil)))
	}
	read := func(group uint16) *correlate.Snapshot {
		return dropsSnapshot("", correlate.LogGroup{Group: group, State: correlate.LogGroupRead, HasFlows: true, Rules: 1})
	}
	if c.Tap {
		s := dropsSnapshot(correlate.NoEventsRule)
		s.Tap = &correlate.Tap{Active: true, Log: correlate.LogGroup{Group: 10988, State: correlate.LogGroupRead}}
		sources(s)
		w.Visit(&correlate.DropEventReport{
			Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Source: "tap", Group: new(uint16(10988)), Hook: "output", Refused: true,
			Reason: "no_endpoints", Owner: "kube-proxy", Service: &correlate.ObjectReport{Namespace: "shop", Name: "dns"}, SentTo: "10.96.0.10:53",
			Protocol: "UDP", From: "10.244.2.9:40000", To: "10.96.0.10:53", Table: "filter", Chain: "KUBE-SERVICES",
		})
		return nil
	}
	switch c.NFLOGGroup {
	case "auto":
		sources(dropsSnapshot(correlate.NoEventsRule))
		return nil
	case "1":
		sources(dropsSnapshot("", correlate.LogGroup{
			Group: 1, State: correlate.LogGroupHeld, Holder: 4242, Err: "NFLOG group 1 is held by netlink port 4242", Rules: 1,
			Next: time.Date(2026, 3, 1, 12, 0, 17, 0, time.UTC),
		}))
		s := read(1) // it has become free
		s.LogGroups[0].HasFlows = false
		sources(s)
		return nil
	case "100":
		sources(read(100))
		w.Visit(&correlate.DropEventReport{
			Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Source: "nflog", Group: new(uint16(100)), Hook: "forward", Refused: true,
			Reason: "policy_default", Owner: "kube-router", Pod: &correlate.ObjectReport{Namespace: "shop", Name: "web-0"},
			Protocol: "TCP", From: "10.244.2.9:40000", To: "10.244.1.5:8080", Missed: 3,
		})
		return nil
	}
	if c.NFLOGGroup == "101" {
		sources(read(101))
		w.Visit(&correlate.DropEventReport{
			Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Source: "nflog", Hook: "forward", Reason: "rule", Owner: "other",
			Prefix: fmt.Sprintf("pods %v, policies %v, anonymized %v", c.KubePods, c.KubePolicies, c.AnonymizeDrops),
		})
		return nil
	}
	return fmt.Errorf("group %q was not expected", c.NFLOGGroup)
}
