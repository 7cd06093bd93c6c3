// SPDX-License-Identifier: Apache-2.0

package dashboards

func datasourceVariable() Variable {
	return Variable{
		Name: "datasource", Label: "Data source", Type: "datasource", Query: "prometheus",
		Refresh: 1, Options: []string{},
	}
}

// oneOf is a variable with one value, which query finds.
func oneOf(name, text, query string) Variable {
	return Variable{
		Name: name, Label: text, Type: "query", Datasource: prometheus(),
		Query: query, Refresh: 2, Sort: 1, Options: []string{},
	}
}

// anyOf is a variable with any number of values. All stands for ".*", which
// also matches series without the label.
func anyOf(name, text, query string) Variable {
	v := oneOf(name, text, query)
	selected := true
	v.Multi, v.IncludeAll, v.AllValue = true, true, ".*"
	v.Current = Current{Selected: &selected, Text: []string{"All"}, Value: []string{"$__all"}}
	return v
}

const serviceNamespaces = `label_values(svcscope_service_connections_total{cluster=~"$cluster", node=~"$node"}, service_namespace)`

// nodeVariables choose the data source, clusters and nodes.
func nodeVariables() []Variable {
	return []Variable{
		datasourceVariable(),
		anyOf("cluster", "Cluster", "label_values(svcscope_build_info, cluster)"),
		anyOf("node", "Node", `label_values(svcscope_build_info{cluster=~"$cluster"}, node)`),
	}
}

// namespaceVariables choose namespaces of Services besides.
func namespaceVariables() []Variable {
	return append(nodeVariables(), anyOf("namespace", "Namespace", serviceNamespaces))
}

// serviceVariables choose one Service.
func serviceVariables() []Variable {
	return append(nodeVariables(),
		oneOf("namespace", "Namespace", serviceNamespaces),
		oneOf("service", "Service",
			`label_values(svcscope_service_connections_total{cluster=~"$cluster", node=~"$node", service_namespace="$namespace"}, service_name)`),
	)
}
