// SPDX-License-Identifier: Apache-2.0

package metrics

import "github.com/svcscope/svcscope/pkg/correlate"

const (
	rulesInterface = "rule counters: IPT_SO_GET_ENTRIES (legacy), NFT_MSG_GETRULE (nf_tables)"
	sizeInterface  = "IPT_SO_GET_INFO and IPT_SO_GET_ENTRIES (legacy), NFT_MSG_GETCHAIN and NFT_MSG_GETRULE (nf_tables)"
)

const (
	flowsInterface = "IPCTNL_MSG_CT_GET, a dump"
	flowsWhen      = "not zero, and the entries were read"
)

const (
	tapInterface = "counters of set elements in the agent's own nf_tables table"
	tapWhen      = "only with `--tap`; via cluster from 0, external where not zero; of a Service while it exists"
)

// serviceLabels returns the labels of every Service metric, extra ones after.
func serviceLabels(extra ...Label) []Label {
	return append([]Label{
		{
			Name: "service_namespace", Bound: "the namespaces of the Services; empty in `_other`",
			Question: "Whose Service is it?",
		},
		{
			Name: "service_name", Bound: "`--metrics.max-services` (default 500), and `_other`",
			Question: "Which Service is it?",
		},
		{
			Name: "port_name", Bound: "the ports of the Service; empty for an unnamed port and in `_other`",
			Question: "Which of its ports?",
		},
		{Name: "protocol", Values: []string{"TCP", "UDP", "SCTP"}, Question: "Over which transport?"},
		familyLabel(),
	}, extra...)
}

func viaLabel() Label {
	return Label{
		Name: "via", Values: []string{viaCluster, viaExternal},
		Question: "Did the client use the cluster IP, or a node port, external or load-balancer address?",
	}
}

func familyLabel() Label {
	return Label{Name: "ip_family", Values: []string{"IPv4", "IPv6"}, Question: "Which of the two rulesets?"}
}

// reasons returns the closed set of the label reason, in the order of exposition.
func reasons() []correlate.Reason {
	return []correlate.Reason{correlate.NoEndpoints, correlate.NoLocalEndpoints, correlate.SourceRange}
}

func reasonLabel() Label {
	l := Label{Name: "reason", Question: "Why was the packet refused?"}
	for _, r := range reasons() {
		l.Values = append(l.Values, string(r))
	}
	return l
}

func serviceMetrics() []Metric {
	return []Metric{
		{
			Name: "svcscope_service_connections_total", Type: Counter, Unit: unitConnections,
			Help: "New connections that this node's rules sent to an endpoint of the Service. It counts first packets " +
				"in the nat table: a connection that is dropped or refused later and tried again counts again",
			Labels:    serviceLabels(viaLabel()),
			Stability: Stable, Kernel: rulesInterface, Cost: CostRules,
			When: "from 0 for every Service while there are at most `--metrics.max-services` of them, else for active ones",
		},
		{
			Name: "svcscope_service_endpoint_connections_total", Type: Counter, Unit: unitConnections,
			Help: "New connections that this node's rules sent to this endpoint of the Service",
			Labels: serviceLabels(Label{
				Name: "endpoint_address", Bound: "the endpoints of the exposed Services in this node's rules",
				Question: "To which address and port did they go?",
			}),
			Stability: Stable, Kernel: rulesInterface, Cost: CostRules,
			When: "only with `--metrics.endpoints`; from 0 for every endpoint in the rules; not for `_other`",
		},
		{
			Name: "svcscope_service_rejected_packets_total", Type: Counter, Unit: unitPackets,
			Help: "Packets for the Service that kube-proxy's filter rules refused. Retransmissions count: " +
				"these are packets, not connections",
			Labels: serviceLabels(reasonLabel()), Stability: Stable, Kernel: rulesInterface, Cost: CostRules,
			When: "not zero",
		},
		{
			Name: "svcscope_service_attempts_total", Type: Counter, Unit: unitConnections,
			Help: "New flows to an address of the Service that came to this node's rules, be they sent to an endpoint or not. " +
				"One that is dropped later and tried again counts again",
			Labels: serviceLabels(viaLabel()), Stability: Stable, Kernel: tapInterface, Cost: CostTap, When: tapWhen,
		},
		{
			Name: "svcscope_service_translated_attempts_total", Type: Counter, Unit: unitConnections,
			Help:      "Of svcscope_service_attempts_total, those that were sent to an endpoint: the others were refused, or no rule was there for them. 0 where IPVS sends them",
			Labels:    serviceLabels(viaLabel()),
			Stability: Stable, Kernel: tapInterface, Cost: CostTap, When: tapWhen,
		},
		{
			Name: "svcscope_service_rules", Type: Gauge, Unit: unitRules,
			Help: "Rules that the Service costs this node",
			Labels: serviceLabels(Label{
				Name: "table", Bound: "the tables that kube-proxy writes: nat and filter, or kube-proxy in its nftables mode",
				Question: "In which table are they?",
			}),
			Stability: Stable, Kernel: sizeInterface, Cost: CostRules, When: "not zero",
		},
		{
			Name: "svcscope_service_endpoints", Type: Gauge, Unit: unitEndpoints,
			Help: "Endpoints of the Service that the API lets this node expect (source api), " +
				"and those that its rules hold (source kernel)",
			Labels: serviceLabels(Label{
				Name: "source", Values: []string{sourceAPI, sourceKernel},
				Question: "Who says so: the intent or the kernel?",
			}),
			Stability: Stable, Kernel: sizeInterface, Cost: CostRules,
			When: "not zero; source api only while the API is synced",
		},
		{
			Name: "svcscope_service_conntrack_entries", Type: Gauge, Unit: unitEntries,
			Help: "Entries of connection tracking that this node sends to an endpoint by an address of the Service. " +
				"An endpoint's own entry for a connection that another node sent here is not among them",
			Labels: serviceLabels(Label{
				Name: "state", Values: []string{stateReplied, stateUnreplied, stateClosing},
				Question: "Did anything come back, and is the connection on its way out?",
			}),
			Stability: Stable, Kernel: flowsInterface, Cost: CostEntries, When: flowsWhen,
		},
		{
			Name: "svcscope_service_conntrack_stale_entries", Type: Gauge, Unit: unitEntries,
			Help: "Of the Service's entries, those that lead to an address which has been no endpoint of it for 30 seconds. " +
				"UDP clients that go on sending reach nobody; TCP connections hang until their timeout. What is closing is not counted",
			Labels: serviceLabels(), Stability: Stable, Kernel: flowsInterface, Cost: CostEntries, When: flowsWhen,
		},
		{
			Name: "svcscope_service_conntrack_unanswered_entries", Type: Gauge, Unit: unitEntries,
			Help: "Of the Service's entries, those toward an endpoint from which nothing has come back: SYNs that wait, or UDP " +
				"without an answer. Protocols that never answer have them always",
			Labels: serviceLabels(Label{
				Name: "where", Values: []string{whereLocal, whereRemote},
				Question: "Is the endpoint on this node or on another?",
			}),
			Stability: Stable, Kernel: flowsInterface, Cost: CostEntries, When: flowsWhen,
		},
	}
}
