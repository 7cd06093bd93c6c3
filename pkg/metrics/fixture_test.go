// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"net/netip"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/drift"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/policy"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// started is when the agent of the fixture took its first reading.
func started() time.Time { return time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC) }

func portName(namespace, name, port string, proto service.Protocol) service.PortName {
	return service.PortName{Name: service.Name{Namespace: namespace, Name: name}, Port: port, Protocol: proto}
}

// richSnapshot is a dual-stack node with rules in both backends, an API that is
// synced and Services above the cap. It makes every metric of the catalogue.
func richSnapshot() *correlate.Snapshot {
	t0 := started()
	return &correlate.Snapshot{
		Time:     t0.Add(90*time.Second + 250*time.Millisecond),
		Node:     correlate.NodeInfo{Name: "node-a", ProxyMode: "iptables", Backend: "legacy,nft", Kernel: "6.18.0"},
		Kube:     correlate.KubeState{Enabled: true, Synced: true},
		Services: richServices(),
		Other: []correlate.OtherTotal{{
			Protocol: service.TCP, Family: netfilter.IPv4, Created: t0, Cluster: 70, External: 7,
			Rejected: map[correlate.Reason]uint64{correlate.NoEndpoints: 3},
			Rules:    map[string]int{"nat": 120}, APICount: 24, KernelCount: 24, Services: 12,
			Flows: correlate.ServiceFlows{Replied: 50, Stale: 2},
		}},
		Tables: []correlate.TableSize{
			{Backend: ruleset.Legacy, Family: netfilter.IPv4, Table: "nat", Owner: "kube-proxy", Rules: 41, Chains: 17},
			{Backend: ruleset.NFT, Family: netfilter.IPv4, Table: "nat", Owner: "kube-proxy", Rules: 90, Chains: 30},
			{Backend: ruleset.NFT, Family: netfilter.IPv4, Table: "nat", Owner: "other", Rules: 2, Chains: 4},
			{Backend: ruleset.NFT, Family: netfilter.IPv6, Table: "filter", Owner: "kubelet", Rules: 0, Chains: 1},
			{Backend: "nftables", Family: netfilter.IPv4, Table: "caf\xff", Owner: "other", Rules: 1, Chains: 1},
		},
		Dispatch: []correlate.DispatchSize{
			{Backend: ruleset.Legacy, Family: netfilter.IPv4, Rules: 3},
			{Backend: ruleset.NFT, Family: netfilter.IPv4, Rules: 9},
			{Backend: ruleset.NFT, Family: netfilter.IPv6, Rules: 0},
		},
		Changes: []correlate.RulesetChanges{
			{Backend: ruleset.NFT, Writer: "kube-proxy", Total: 31, Created: t0, Last: t0.Add(75 * time.Second)},
			{Backend: ruleset.NFT, Total: 5, Created: t0, Last: t0.Add(80 * time.Second)},
			{Backend: ruleset.Legacy, Family: netfilter.IPv4, Writer: "unknown", Total: 2, Created: t0, Last: t0.Add(60 * time.Second)},
			{Backend: ruleset.Legacy, Family: netfilter.IPv6, Writer: "unknown", Total: 1, Created: t0, Last: t0.Add(70 * time.Second)},
		},
		Conntrack: &correlate.Conntrack{
			Entries: 1200, Peak: 1300, Limit: 262144, Buckets: 65536,
			Stats: correlate.ConntrackStats{
				Found: new(uint64(12)), Invalid: new(uint64(34)), InsertFailed: new(uint64(5)), Drop: new(uint64(6)), EarlyDrop: new(uint64(0)),
				Error: new(uint64(7)), SearchRestart: new(uint64(1 << 33)), ClashResolve: new(uint64(8)), ChainTooLong: new(uint64(9)),
			},
			Filling: true, TimeToFull: 90 * time.Minute,
			Losses: [correlate.NumLossCauses]uint64{correlate.LossClash: 4, correlate.LossChain: 9}, LossesSince: t0,
		},
		Flows:    richFlows(),
		Counting: []correlate.CountingMethod{{What: "connections", Method: "rules"}, {What: "refusals", Method: "rules"}},
		Exact: []correlate.LedgerExact{
			{Backend: ruleset.Legacy, Family: netfilter.IPv4},
			{Backend: ruleset.NFT, Family: netfilter.IPv4, Exact: true},
			{Backend: ruleset.NFT, Family: netfilter.IPv6, Exact: true},
		},
		Blind: []correlate.BlindTime{
			{Backend: ruleset.Legacy, Family: netfilter.IPv4, Table: "nat", Total: 1250 * time.Millisecond, Created: t0},
			{Backend: ruleset.NFT, Family: netfilter.IPv6, Table: "filter", Created: t0},
		},
		Lock: &correlate.LockTime{Open: 37 * time.Second, Created: t0},
		Drops: []correlate.DropTotal{
			{DropLabels: correlate.DropLabels{Reason: "no_endpoints", Hook: "forward+output", Owner: "kube-proxy", Service: service.Name{Namespace: "default", Name: "web"}}, Packets: 4, Created: t0},
			{DropLabels: correlate.DropLabels{Reason: "no_endpoints", Hook: "output", Owner: "kube-proxy", Service: service.Name{Name: correlate.OtherServices}}, Packets: 7, Created: t0},
			{DropLabels: correlate.DropLabels{Reason: "policy_default", Hook: "unknown", Owner: "calico"}, Created: t0},
		},
		PolicyDrops: []correlate.PolicyDropTotal{{
			Owner: "calico", Direction: policy.Ingress, Policy: policy.Object{Namespace: "default", Name: "strict"},
			Pod: policy.Object{Namespace: "default", Name: "web-0"}, Packets: 3, Created: t0,
		}},
		UnnamedDrops: 6,
		Witnessed: []correlate.WitnessedDrops{
			{WitnessKey: correlate.WitnessKey{Source: correlate.SourceNFLOG, Reason: "policy_default", Service: service.Name{Namespace: "default", Name: "web"}}, Packets: 2, Created: t0},
			{WitnessKey: correlate.WitnessKey{Source: correlate.SourceNFLOG, Reason: "rule"}, Packets: 5, Created: t0},
			{WitnessKey: correlate.WitnessKey{Source: correlate.SourceTap, Reason: "no_endpoints", Service: service.Name{Namespace: "default", Name: "web"}}, Packets: 4, Created: t0},
		},
		LogGroups: []correlate.LogGroup{
			{Group: 1, State: correlate.LogGroupHeld, Err: "NFLOG group 1 is held by netlink port 4242", Holder: 4242},
			{Group: 2, State: correlate.LogGroupLeft, Passed: true},
			{Group: 3, State: correlate.LogGroupWaiting, Passed: true},
			{Group: 4, State: correlate.LogGroupNoRule},
			{Group: 5, State: correlate.LogGroupFailed},
			{Group: 6, State: correlate.LogGroupHeld, Passed: true},
			{Group: 100, State: correlate.LogGroupRead, Packets: 9, Lost: 1, Created: t0},
		},
		Tap: &correlate.Tap{
			Active: true, Ways: 4, Log: correlate.LogGroup{Group: 10988, State: correlate.LogGroupRead, Packets: 3, Created: t0},
			Totals: []correlate.TapTotal{
				{Port: service.PortName{Name: service.Name{Name: correlate.OtherServices}, Protocol: service.TCP}, Family: netfilter.IPv4, Cluster: correlate.TapFlows{Attempts: 8, Translated: 8}, Created: t0},
				{
					Port:   service.PortName{Name: service.Name{Namespace: "default", Name: "web"}, Port: "http", Protocol: service.TCP},
					Family: netfilter.IPv4, Cluster: correlate.TapFlows{Attempts: 6, Translated: 5}, External: correlate.TapFlows{Attempts: 2, Translated: 1}, Created: t0,
				},
			},
		},
		Drift: richDrift(),
		Self:  richSelf(),
	}
}

// richDrift has Services with and without series of their own, and a kube-proxy that is late in
// one family.
func richDrift() *correlate.Drift {
	t0 := started()
	web := portName("default", "web", "http", service.TCP)
	found := func(port service.PortName, f netfilter.Family, kind drift.Kind, frontend service.Frontend, detail string) drift.Drift {
		return drift.Drift{Difference: drift.Difference{Port: port, Family: f, Backend: ruleset.NFT, Kind: kind, Frontend: frontend, Detail: detail}, Since: t0}
	}
	other := service.PortName{Name: service.Name{Name: correlate.OtherServices}, Protocol: service.TCP}
	return &correlate.Drift{
		Drifts: []drift.Drift{
			found(service.PortName{}, netfilter.IPv4, drift.JumpMissing, "", "nat OUTPUT → KUBE-SERVICES"),
			found(web, netfilter.IPv4, drift.MissingEndpoint, "", "10.244.1.2:8080"),
			found(web, netfilter.IPv4, drift.MissingEndpoint, "", "10.244.1.3:8080"),
			found(web, netfilter.IPv4, drift.MissingDispatch, service.NodePortFrontend, "port 30080"),
			found(portName("hidden", "hidden", "", service.TCP), netfilter.IPv6, drift.EmptyChain, "", "KUBE-SVC-X"),
		},
		Proxies: []correlate.ProxyState{
			{Family: netfilter.IPv4, LastCommit: t0.Add(20 * time.Second), Waiting: t0.Add(60 * time.Second)},
			{Family: netfilter.IPv6, LastCommit: t0.Add(21 * time.Second)},
		},
		Named: []correlate.NamedDrift{
			{Port: other, Family: netfilter.IPv6, Kind: drift.EmptyChain},
			{Port: web, Family: netfilter.IPv4, Kind: drift.MissingDispatch, Frontend: service.NodePortFrontend},
			{Port: web, Family: netfilter.IPv4, Kind: drift.MissingEndpoint},
		},
	}
}

func richFlows() *correlate.Flows {
	return &correlate.Flows{
		Time: started(), Duration: time.Second, Interval: 50 * time.Second, Entries: 1150,
		Owners: [correlate.NumOwners]uint64{900, 10, 90, 50, 60, 40},
		States: []correlate.StateEntries{
			{Protocol: "tcp", State: "established", Entries: 800},
			{Protocol: "tcp", State: "time_wait", Entries: 200},
			{Protocol: "udp", State: "unreplied", Entries: 150},
		},
		Services: []correlate.ServiceFlows{
			{Port: portName("default", "dns", "dns", service.UDP), Family: netfilter.IPv4, Replied: 10, Unreplied: 5, Stale: 3, UnansweredLocal: 2, UnansweredRemote: 1},
			{Port: portName("default", "gone", "", service.TCP), Family: netfilter.IPv4, Replied: 777},
			{Port: portName("default", "web", "http", service.TCP), Family: netfilter.IPv6, Replied: 700, Closing: 20},
			{Port: portName("hidden", "hidden", "", service.TCP), Family: netfilter.IPv4, Replied: 999},
		},
		Ports: []correlate.PortUse{{Protocol: service.TCP, Source: netip.MustParseAddr("192.168.50.1"), Destination: netip.MustParseAddrPort("203.0.113.1:443"), Used: 16128}},
	}
}

func richServices() []*correlate.ServicePort {
	t0 := started()
	late := t0.Add(30 * time.Second)
	return []*correlate.ServicePort{
		{
			Port: portName("default", "dns", "dns", service.UDP), Family: netfilter.IPv4, Exposed: true,
			Created: t0, Cluster: 1 << 53, Rules: map[string]int{"nat": 4}, APICount: 1, KernelCount: 1,
			Endpoints: []correlate.Endpoint{{Addr: netip.MustParseAddrPort("10.244.1.2:53"), InAPI: true, InKernel: true, Connections: 1 << 53, Created: t0}},
		},
		{
			// New, and not in the kernel yet.
			Port: portName("default", "idle", "", service.TCP), Family: netfilter.IPv4, Exposed: true, Created: late,
			Rules: map[string]int{"filter": 0}, APICount: 1,
			Endpoints: []correlate.Endpoint{{Addr: netip.MustParseAddrPort("10.244.1.3:80"), InAPI: true}},
		},
		{
			Port: portName("default", "web", "http", service.TCP), Family: netfilter.IPv4, Exposed: true,
			Created: t0, Cluster: 75, External: 27,
			Rejected: map[correlate.Reason]uint64{correlate.NoEndpoints: 4, correlate.NoLocalEndpoints: 0, correlate.SourceRange: 2},
			Rules:    map[string]int{"nat": 12, "filter": 1}, APICount: 3, KernelCount: 2,
			Endpoints: []correlate.Endpoint{
				{Addr: netip.MustParseAddrPort("10.244.1.5:8080"), InAPI: true, InKernel: true, Connections: 102, Created: t0},
				{Addr: netip.MustParseAddrPort("10.244.1.6:8080"), InAPI: true, InKernel: true, Created: late},
				{Addr: netip.MustParseAddrPort("10.244.1.7:8080"), InAPI: true},
			},
		},
		{
			Port: portName("default", "web", "http", service.TCP), Family: netfilter.IPv6, Exposed: true,
			Created: t0, Cluster: 3, External: 1, Rejected: map[correlate.Reason]uint64{correlate.NoLocalEndpoints: 9},
			Rules: map[string]int{"nat": 10}, APICount: -1, KernelCount: 1,
			Endpoints: []correlate.Endpoint{{Addr: netip.MustParseAddrPort("[fd00::5]:8080"), InKernel: true, Connections: 4, Created: t0}},
		},
		{
			// Above the cap: nothing of it may be seen.
			Port: portName("hidden", "hidden", "", service.TCP), Family: netfilter.IPv4, Created: t0, Cluster: 999, External: 999,
			Rejected: map[correlate.Reason]uint64{correlate.NoEndpoints: 999}, Rules: map[string]int{"nat": 999}, APICount: 999, KernelCount: 999,
			Endpoints: []correlate.Endpoint{{Addr: netip.MustParseAddrPort("10.244.1.9:80"), InKernel: true, Connections: 999}},
		},
		{
			Port: portName("telecom", "diameter", "", service.SCTP), Family: netfilter.IPv6, Exposed: true, Created: t0, External: 11,
			Rules: map[string]int{"nat": 5}, APICount: 1, KernelCount: 1,
		},
	}
}

func richSelf() correlate.Self {
	t0 := started()
	return correlate.Self{
		Started: t0,
		Collectors: []correlate.CollectorState{
			{Name: "conntrack", Success: true, Duration: 1500 * time.Microsecond, LastSuccess: t0.Add(90 * time.Second)},
			{Name: "conntrack_entries", Success: true, Duration: time.Second, LastSuccess: t0.Add(60 * time.Second)},
			{Name: "kube", Success: true, LastSuccess: t0.Add(20 * time.Second)},
			{Name: "legacy", Duration: time.Second, Err: "read table nat: operation not permitted"},
			{Name: "nfacct", Success: true, Duration: 20 * time.Microsecond, LastSuccess: t0.Add(90 * time.Second)},
			{Name: "nflog", Err: "NFLOG group 1 is held by netlink port 4242"},
			{Name: "nftables", Success: true, Duration: 70 * time.Millisecond, LastSuccess: t0.Add(90 * time.Second)},
			{Name: "tap", Success: true},
		},
		Undecoded:   map[string]uint64{"match/quota2": 3, "expression/\xfe": 1},
		EventsLost:  map[string]uint64{"nftables": 0, "conntrack": 17},
		SeriesLimit: 500, SeriesDropped: 12,
		Reads: []correlate.KernelReads{
			{Collector: "conntrack_entries", Bytes: 1 << 21, Messages: 1150, Interrupted: 1},
			{Collector: "legacy", Bytes: 1 << 20, Messages: 8},
			{Collector: "nftables", Bytes: 1 << 33, Messages: 1 << 20, Interrupted: 3},
		},
	}
}
