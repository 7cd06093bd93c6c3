// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"cmp"
	"slices"

	"github.com/svcscope/svcscope/pkg/ledger"
	"github.com/svcscope/svcscope/pkg/service"
)

// few reports whether the Services are not more than may have series of their
// own. It decides while the ledger does not: that one has no totals to share
// before it has read rules, which it never does without the capability.
func (j *join) few() bool {
	names := make(map[service.Name]bool)
	for i := range j.entries {
		names[j.entries[i].key.name.Name] = true
	}
	return len(names) <= j.in.Self.SeriesLimit
}

// fold sums the gauges of rows above the cap.
func fold(rows []*ServicePort) map[ledger.OtherKey]*OtherTotal {
	folded := make(map[ledger.OtherKey]*OtherTotal)
	for _, p := range rows {
		if !p.Exposed {
			otherTotal(folded, ledger.OtherKey{Protocol: string(p.Port.Protocol), Family: uint8(p.Family)}).fold(p)
		}
	}
	return folded
}

// others returns what the Services above the cap sum to, in order.
func (b *Builder) others(in *Inputs) []OtherTotal {
	others := make(map[ledger.OtherKey]*OtherTotal, len(b.folded))
	for key, o := range b.folded {
		others[key] = new(*o)
	}
	for key, t := range in.Ledger.Others() {
		o := otherTotal(others, key)
		o.Created, o.Cluster, o.External, o.Rejected = t.Created, t.Cluster, t.External, reasons(t.Rejected)
	}
	b.foldFlows(in.Flows, others)
	var out []OtherTotal
	for _, o := range others {
		o.Uncounted = b.shape.uncounted.has(o.Family)
		out = append(out, *o)
	}
	slices.SortFunc(out, func(a, b OtherTotal) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Family, b.Family))
	})
	return out
}

// foldFlows adds the entries of Services above the cap.
func (b *Builder) foldFlows(f *Flows, others map[ledger.OtherKey]*OtherTotal) {
	if f == nil {
		return
	}
	for i := range f.Services {
		n := &f.Services[i]
		if at, ok := b.at[portKey{n.Port, n.Family}]; ok && !b.rows[at].Exposed {
			otherTotal(others, ledger.OtherKey{Protocol: string(n.Port.Protocol), Family: uint8(n.Family)}).Flows.add(n)
		}
	}
}

func otherTotal(m map[ledger.OtherKey]*OtherTotal, key ledger.OtherKey) *OtherTotal {
	o := m[key]
	if o == nil {
		o = &OtherTotal{Protocol: service.Protocol(key.Protocol), Family: Family(key.Family)}
		m[key] = o
	}
	return o
}

// fold adds the gauges of p; of a negative one nothing is known.
func (o *OtherTotal) fold(p *ServicePort) {
	o.Services++
	o.KernelCount += max(0, p.KernelCount)
	o.APICount += max(0, p.APICount)
	for table, n := range p.Rules {
		if o.Rules == nil {
			o.Rules = make(map[string]int, 2)
		}
		o.Rules[table] += n
	}
}
