// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"slices"
	"time"

	"github.com/svcscope/svcscope/pkg/drift"
)

// DriftReport is a Snapshot's drift in the shape that the HTTP path /api/v1/drift returns
// and that `svcscope drift -o json` prints. Its JSON names are a contract (docs/api.md).
type DriftReport struct {
	ReportHead
	// Unknown is why nothing is said of Services: api, mode or rules; empty: something is.
	Unknown drift.Unknown `json:"unknown,omitempty"`
	// KubeProxy has one element a family in which kube-proxy's iptables mode is
	// recognised.
	KubeProxy []ProxyReport `json:"kubeProxy"`
	// Items are drift, those of the node first.
	Items []DriftItem `json:"items"`
	// Pending are differences that kube-proxy may yet remove: while a Service has one, not all of
	// what the API wants of it is in this kernel. Since is not told.
	Pending []DriftItem `json:"pending"`
}

// ProxyReport is how kube-proxy works in one family.
type ProxyReport struct {
	IPFamily string `json:"ipFamily"`
	// LastCommit is when its chains were last seen to be others; nil: never yet.
	LastCommit *time.Time `json:"lastCommit,omitempty"`
	// PendingSince is since when a change of the API waits to be written.
	PendingSince *time.Time `json:"pendingSince,omitempty"`
}

// DriftItem is one place where rules are not what they should be. Namespace and Name are
// empty for the kinds of the node.
type DriftItem struct {
	Namespace string     `json:"namespace,omitempty"`
	Name      string     `json:"name,omitempty"`
	PortName  string     `json:"portName,omitempty"`
	Protocol  string     `json:"protocol,omitempty"`
	IPFamily  string     `json:"ipFamily"`
	Backend   string     `json:"backend,omitempty"`
	Kind      drift.Kind `json:"kind"`
	Frontend  string     `json:"frontend,omitempty"` // cluster, nodeport, external, loadbalancer
	Detail    string     `json:"detail,omitempty"`
	Since     *time.Time `json:"since,omitempty"`
	Remedy    string     `json:"remedy,omitempty"`
}

// NewDriftReport formats s. What was not judged is unknown.
func NewDriftReport(s *Snapshot) DriftReport {
	r := DriftReport{ReportHead: newReportHead(s), KubeProxy: []ProxyReport{}, Items: []DriftItem{}, Pending: []DriftItem{}}
	d := s.Drift
	if d == nil {
		r.Unknown = RulesUnread
		return r
	}
	r.Unknown = d.Unknown
	for _, p := range d.Proxies {
		r.KubeProxy = append(r.KubeProxy, ProxyReport{
			IPFamily: p.Family.String(), LastCommit: reportTime(p.LastCommit), PendingSince: reportTime(p.Waiting),
		})
	}
	for i := range d.Drifts {
		item := newDriftItem(&d.Drifts[i].Difference)
		item.Since, item.Remedy = reportTime(d.Drifts[i].Since), d.Drifts[i].Kind.Remedy()
		r.Items = append(r.Items, item)
	}
	for i := range d.Pending {
		r.Pending = append(r.Pending, newDriftItem(&d.Pending[i]))
	}
	return r
}

// RulesUnread says that nothing is known, as rules could not be read.
const RulesUnread drift.Unknown = "rules"

func newDriftItem(d *drift.Difference) DriftItem {
	return DriftItem{
		Namespace: d.Port.Namespace, Name: d.Port.Name.Name, PortName: d.Port.Port, Protocol: string(d.Port.Protocol),
		IPFamily: d.Family.String(), Backend: string(d.Backend), Kind: d.Kind, Frontend: string(d.Frontend), Detail: d.Detail,
	}
}

// Confirm makes those of r's pending differences drift that an earlier report has, too. It
// is for two readings without an agent.
func (r *DriftReport) Confirm(earlier *DriftReport) {
	rest := r.Pending[:0:0]
	for _, d := range r.Pending {
		if !slices.Contains(earlier.Pending, d) {
			rest = append(rest, d)
			continue
		}
		d.Since, d.Remedy = reportTime(earlier.Time), d.Kind.Remedy()
		r.Items = append(r.Items, d)
	}
	r.Pending = append([]DriftItem{}, rest...)
}
