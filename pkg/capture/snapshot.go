// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"encoding/json"
	"slices"
)

// FormatVersion is that of the files that Write makes. Read takes no other.
const FormatVersion = 1

// format is what a file says that it is.
const format = "svcscope snapshot"

// Snapshot is a node at one time, as a file holds it.
type Snapshot struct {
	Node *Node
	// Version is that of the svcscope that made it.
	Version string
	// Mask is empty where the addresses are the node's own. Snapshots of which it is
	// the same have had their addresses replaced in the same way.
	Mask string
	// Reports are the documents that the node gave at that time, by their names below
	// /api/v1, as JSON. Unreported is why one of ReportNames is missing.
	Reports    map[string]json.RawMessage
	Unreported map[string]string
}

// ReportNames are those of the reports that a file may hold.
func ReportNames() []string { return []string{"services", "conntrack", "drops", "drift", "history"} }

func isReport(name string) bool { return slices.Contains(ReportNames(), name) }
