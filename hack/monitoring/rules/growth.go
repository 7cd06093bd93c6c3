// SPDX-License-Identifier: Apache-2.0

package rules

// theTable says which table of which cluster.
const theTable = `Table {{ $labels.table }} of {{ $labels.ip_family }} ({{ $labels.backend }})` + inCluster

func growthAlerts() []alert {
	return []alert{
		{
			name: "SvcscopeRulesHigh", severity: warning, hold: "1h",
			expr:    `cluster:svcscope_rules:max{backend=~"legacy|nft"} > __RULES_BUDGET__`,
			summary: "A node has more iptables rules than it should",
			description: theTable + ` has {{ $value | printf "%.0f" }} rules on the node with the most, more than __RULES_BUDGET__: ` +
				`kube-proxy's syncs and each new connection take long.`,
		},
		{
			name: "SvcscopeRulesGrowthForecast", severity: info, hold: "1h",
			expr:    growthForecast,
			summary: "Iptables rules will be more than they should within two weeks",
			description: theTable + ` will have {{ $value | printf "%.0f" }} rules in 14 days if it grows as in the last 7, more than ` +
				`__RULES_BUDGET__.`,
		},
	}
}

// growthForecast looks back half as far as it looks ahead, so that a step of
// one release is not taken for a trend; a young or small cluster is left alone,
// and so is one that SvcscopeRulesHigh tells already.
const growthForecast = `
predict_linear(cluster:svcscope_rules:max{backend=~"legacy|nft"}[7d], 14 * 86400) > __RULES_BUDGET__
and cluster:svcscope_rules:max > __RULES_BUDGET__ / 2
and cluster:svcscope_rules:max <= __RULES_BUDGET__
and cluster:svcscope_rules:max offset 7d
`
