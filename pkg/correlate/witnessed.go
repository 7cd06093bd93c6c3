// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"cmp"
	"slices"
	"time"

	"github.com/svcscope/svcscope/pkg/service"
)

// WitnessKey is what svcscope_drop_witnessed_packets_total tells packets apart by.
type WitnessKey struct {
	Source DropSource
	Reason string // as DropLabels.Reason
	// Service is the one that the packet was sent to; the zero value where that is not
	// known.
	Service service.Name
}

// Key is what the event is counted by.
func (e *DropEvent) Key() WitnessKey {
	return WitnessKey{Source: e.Source, Reason: string(e.Reason), Service: e.Service.Name}
}

// WitnessedDrops counts packets that a witness saw being refused. It only grows.
type WitnessedDrops struct {
	WitnessKey
	Packets uint64
	Created time.Time
}

// Witnessed sums what witnesses have seen. It is for one goroutine.
type Witnessed struct {
	own    func(service.Name) bool
	totals map[WitnessKey]*WitnessedDrops
}

// NewWitnessed returns one that has counted nothing. own tells which Services have
// totals of their own; those of others share OtherServices.
func NewWitnessed(own func(service.Name) bool) *Witnessed {
	return &Witnessed{own: own, totals: make(map[WitnessKey]*WitnessedDrops)}
}

// Add counts further packets.
func (w *Witnessed) Add(more map[WitnessKey]uint64, now time.Time) {
	for key, n := range more {
		key.Service = ownOrOther(key.Service, w.own)
		t := w.totals[key]
		if t == nil {
			t = &WitnessedDrops{WitnessKey: key, Created: now}
			w.totals[key] = t
		}
		t.Packets += n
	}
}

// Totals returns the packets seen since the start, in order. Those of a Service that
// keep does not want are left out, and forgotten.
func (w *Witnessed) Totals(keep func(service.Name) bool) []WitnessedDrops {
	out := make([]WitnessedDrops, 0, len(w.totals))
	for key, t := range w.totals {
		if unwanted(key.Service, keep) {
			delete(w.totals, key)
			continue
		}
		out = append(out, *t)
	}
	slices.SortFunc(out, func(a, b WitnessedDrops) int {
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Reason, b.Reason), a.Service.Compare(b.Service))
	})
	return out
}
