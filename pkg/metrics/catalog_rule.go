// SPDX-License-Identifier: Apache-2.0

package metrics

const generationInterface = "NFT_MSG_GETGEN (nf_tables); what changed between two readings (legacy)"

func backendLabel(values ...string) Label {
	return Label{Name: "backend", Values: values, Question: "Which kernel interface holds them, or which mode of kube-proxy wrote them?"}
}

func ruleMetrics() []Metric {
	sizeLabels := []Label{
		backendLabel("legacy", "nft", "nftables"),
		familyLabel(),
		{Name: "table", Bound: "the tables of the node's network namespace", Question: "In which table are they?"},
		{
			Name: "owner", Bound: "a fixed list (kube-proxy, kubelet, calico, kube-router, …); what is not known is `other`",
			Question: "Who wrote them?",
		},
	}
	return []Metric{
		{
			Name: "svcscope_rules", Type: Gauge, Unit: unitRules, Help: "Rules in the kernel by table and owner",
			Labels: sizeLabels, Stability: Stable, Kernel: sizeInterface, Cost: CostRules, When: "the table exists and could be read",
		},
		{
			Name: "svcscope_chains", Type: Gauge, Unit: unitChains, Help: "Chains in the kernel by table and owner",
			Labels: sizeLabels, Stability: Stable, Kernel: sizeInterface, Cost: CostRules, When: "the table exists and could be read",
		},
		{
			Name: "svcscope_dispatch_rules", Type: Gauge, Unit: unitRules,
			Help: "Rules in the nat chain KUBE-SERVICES. The first packet of a connection passes half of them on average " +
				"and all of them at worst: their order is random at each sync. In kube-proxy's nftables mode they look Services " +
				"up in maps, and are as many whatever the number of Services",
			Labels:    []Label{backendLabel("legacy", "nft", "nftables"), familyLabel()},
			Stability: Stable, Kernel: sizeInterface, Cost: CostRules, When: "the chain exists",
		},
		{
			Name: "svcscope_ruleset_changes_total", Type: Counter, Unit: unitCommits,
			Help: "Changes of the ruleset since the agent started. In nf_tables these are commits of the whole network " +
				"namespace (ip_family is empty); in legacy, readings that differ from the one before",
			Labels: []Label{
				backendLabel("legacy", "nft"),
				{Name: "ip_family", Values: []string{"", "IPv4", "IPv6"}, Question: "Which ruleset, where the backend tells them apart?"},
				{
					Name:     "writer",
					Values:   []string{"kube-proxy", "nft", "calico", "kube-router", "docker", "other", "unknown"},
					Question: "Who changed it? `unknown` unless the agent listens to nf_tables' notices",
				},
			},
			Stability: Stable, Kernel: generationInterface, Cost: CostCall, When: "the backend could be read",
		},
		{
			Name: "svcscope_ruleset_last_change_timestamp_seconds", Type: Gauge, Unit: unitTimestamp,
			Help:   "When the agent last saw the ruleset change",
			Labels: []Label{backendLabel("legacy", "nft")}, Stability: Stable, Kernel: generationInterface, Cost: CostCall,
			When: "a change was seen since the agent started",
		},
	}
}
