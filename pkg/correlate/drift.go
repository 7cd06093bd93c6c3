// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"cmp"
	"slices"
	"time"

	"github.com/svcscope/svcscope/pkg/drift"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/service"
)

// Drift is where the rules of the node are not what kube-proxy should have made of the
// API's Services.
type Drift struct {
	// Drifts is sorted, and so is Pending: differences that kube-proxy may yet remove.
	Drifts  []drift.Drift
	Pending []drift.Difference
	// Unknown is why nothing is said of Services; empty: something is.
	Unknown drift.Unknown
	// Proxies are those families in which kube-proxy's iptables mode is recognised.
	Proxies []ProxyState
	// Named are the Services whose drift has series of its own, by what the series tell.
	Named []NamedDrift
}

// ProxyState is how kube-proxy is known to work in one family.
type ProxyState struct {
	Family Family
	// LastCommit is when its chains were last seen to be others; zero: never yet.
	LastCommit time.Time
	// Waiting is since when a change of the API waits to be written; zero: none does.
	Waiting time.Time
}

// NamedDrift is one series of svcscope_service_drift.
type NamedDrift struct {
	Port     service.PortName
	Family   Family
	Kind     drift.Kind
	Frontend service.Frontend
}

// compare orders series by what they tell.
func (n NamedDrift) compare(m NamedDrift) int {
	return cmp.Or(n.Port.Compare(m.Port), cmp.Compare(n.Family, m.Family), cmp.Compare(n.Kind, m.Kind), cmp.Compare(n.Frontend, m.Frontend))
}

// maxForeign bounds the Services that are named although they have no series: rules may
// lead to what the API has no more.
const maxForeign = 100

// NewDrift makes the state of a verdict about result; own tells whose Services have series
// of their own. The others are named together.
func NewDrift(v *drift.Verdict, result *drift.Result, last map[netfilter.Family]time.Time, own func(service.Name) bool) *Drift {
	d := &Drift{Drifts: v.Drifts, Unknown: v.Unknown}
	for _, f := range result.Families {
		d.Proxies = append(d.Proxies, ProxyState{Family: f, LastCommit: last[f], Waiting: v.Waiting[f]})
	}
	known := make(map[drift.Difference]bool, len(v.Drifts))
	for i := range v.Drifts {
		known[v.Drifts[i].Difference] = true
	}
	for i := range result.Differences {
		if at := result.Cause(&result.Differences[i]); !known[at] {
			known[at] = true
			d.Pending = append(d.Pending, at)
		}
	}
	slices.SortFunc(d.Pending, drift.Difference.Compare)
	d.name(own)
	return d
}

// name fills Named.
func (d *Drift) name(own func(service.Name) bool) {
	foreign := make(map[service.Name]bool)
	for i := range d.Drifts {
		at := &d.Drifts[i]
		if at.OfNode() {
			continue
		}
		port := at.Port
		if !own(port.Name) && !foreign[port.Name] {
			if len(foreign) < maxForeign {
				foreign[port.Name] = true
			} else {
				port = service.PortName{Protocol: port.Protocol}
				port.Name.Name = OtherServices
			}
		}
		d.Named = append(d.Named, NamedDrift{port, at.Family, at.Kind, at.Frontend})
	}
	slices.SortFunc(d.Named, NamedDrift.compare)
	d.Named = slices.Compact(d.Named)
}

// DriftCount is how many Services, or places of the node, are drifting in one way.
type DriftCount struct {
	Kind   drift.Kind
	Family Family
	OfNode bool
	Count  int
}

// Counts returns the counts of all kinds that are judged, those without any too.
func (d *Drift) Counts() []DriftCount {
	type key struct {
		kind   drift.Kind
		family Family
		node   bool
	}
	places := make(map[key]int)
	services := make(map[key]map[service.Name]bool)
	for i := range d.Drifts {
		at := &d.Drifts[i]
		k := key{at.Kind, at.Family, at.OfNode()}
		if k.node {
			places[k]++
			continue
		}
		if services[k] == nil {
			services[k] = make(map[service.Name]bool)
		}
		services[k][at.Port.Name] = true
	}
	var out []DriftCount
	for k, n := range places {
		if !slices.ContainsFunc(d.Proxies, func(p ProxyState) bool { return p.Family == k.family }) {
			out = append(out, DriftCount{k.kind, k.family, true, n}) // two modes, so that none is recognised
		}
	}
	slices.SortFunc(out, func(a, b DriftCount) int { return cmp.Compare(a.Family, b.Family) })
	for _, p := range d.Proxies {
		for _, kind := range drift.NodeKinds() {
			if d.Unknown == "" || kind != drift.NotSyncing && kind != drift.ExtraDispatch {
				out = append(out, DriftCount{kind, p.Family, true, places[key{kind, p.Family, true}]})
			}
		}
		if d.Unknown != "" {
			continue
		}
		for _, kind := range drift.ServiceKinds() {
			out = append(out, DriftCount{kind, p.Family, false, len(services[key{kind, p.Family, false}])})
		}
	}
	return out
}
