// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"time"

	"github.com/svcscope/svcscope/pkg/service"
)

// Sighting is a difference of the node, or of one of its Services, that an agent has
// seen.
type Sighting struct {
	// Port is zero for what is the node's.
	Port     service.PortName
	IPFamily string
	// Difference has the words that are compared; InFlight is not among them.
	Difference Difference
}

// Differs reports whether the report has a difference.
func (r *Report) Differs() bool {
	found := false
	r.eachDifference(func(service.PortName, string, *Difference) { found = true })
	return found
}

// Recall adds to the report's differences what an agent, which had compared last at a
// time, has seen of them. Of Services it may not tell anything; what it tells of, and has
// not seen, is no drift.
func (r *Report) Recall(at time.Time, all []Sighting, ofServices bool) {
	r.Watched = &at
	r.eachDifference(func(port service.PortName, family string, d *Difference) {
		if port != (service.PortName{}) && !ofServices {
			return
		}
		d.Drift, d.Since = new(false), nil
		for i := range all {
			s := &all[i]
			if s.Port == port && s.IPFamily == family && s.Difference.is(d) {
				d.Drift, d.Since = s.Difference.Drift, s.Difference.Since
				return
			}
		}
	})
}

// is reports whether two are of the same thing.
func (d *Difference) is(other *Difference) bool {
	return d.Kind == other.Kind && d.Frontend == other.Frontend && d.Detail == other.Detail
}

// eachDifference calls f for all differences, with the port and the family that they
// are of; those of the node have no port.
func (r *Report) eachDifference(f func(port service.PortName, family string, d *Difference)) {
	for i := range r.Families {
		for j := range r.Families[i].Differences {
			f(service.PortName{}, r.Families[i].IPFamily, &r.Families[i].Differences[j])
		}
	}
	for i := range r.Paths {
		p := &r.Paths[i]
		port := service.PortName{
			Name: service.Name{Namespace: r.Service.Namespace, Name: r.Service.Name}, Port: p.PortName, Protocol: service.Protocol(p.Protocol),
		}
		for j := range p.Differences {
			f(port, p.IPFamily, &p.Differences[j])
		}
	}
}
