// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"github.com/svcscope/svcscope/pkg/ledger"
	"github.com/svcscope/svcscope/pkg/service"
)

// few reports whether the Services are not more than may have series of their
// own. It decides while the ledger does not: that one has no totals to share
// before it has read rules, which it never does without the capability.
func (j *join) few() bool {
	names := make(map[service.Name]bool)
	for key := range j.ports {
		names[key.name.Name] = true
	}
	return len(names) <= j.in.Self.SeriesLimit
}

func otherTotal(m map[ledger.OtherKey]*OtherTotal, key ledger.OtherKey) *OtherTotal {
	o := m[key]
	if o == nil {
		o = &OtherTotal{Protocol: service.Protocol(key.Protocol), Family: Family(key.Family)}
		m[key] = o
	}
	return o
}

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
