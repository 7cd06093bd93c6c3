// SPDX-License-Identifier: Apache-2.0

// Package dashboards makes the Grafana dashboards from Go values.
//
// It writes Grafana's classic JSON model in two forms. The current form has
// schemaVersion 36, Grafana 9.0's: every later release migrates it when it
// loads it, and 9.0 finds nothing in it that it does not know. The form for
// Grafana 7.5 has schemaVersion 27 and names data sources by string.
//
// The types hold exactly the part of the model that is in use. What the
// dashboards say is in overview.go, service.go, conntrack.go and rules.go;
// each panel answers a question and says what is bad and what to do next.
//
// All expressions work where no scrape rule adds the labels cluster and node:
// their variables then offer All only, which stands for ".*", and an absent
// label matches that. Series of nodes are kept apart by instance too.
package dashboards
