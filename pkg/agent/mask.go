// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"sync"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
)

// masks keeps the newest mask: it costs a look at all endpoints.
type masks struct {
	mu   sync.Mutex
	mask *correlate.Mask // guarded by mu
	renewal
}

// renewal is when something was made, and of what.
type renewal struct {
	with        dropInputs
	made, tried time.Time
}

// due reports whether it is to be made anew of what in returns, which is then in with.
func (r *renewal) due(in func() dropInputs, now time.Time) bool {
	first := r.made.IsZero()
	if !first && now.Sub(r.tried) < renewEvery {
		return false
	}
	r.tried = now
	with := in()
	if !first && now.Sub(r.made) < renewAll && with.same(&r.with) {
		return false
	}
	r.with, r.made = with, now
	return true
}

// get returns the mask of now.
func (m *masks) get(in func() dropInputs, now time.Time) *correlate.Mask {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.due(in, now) {
		m.mask = correlate.NewMask(m.with.flows())
	}
	return m.mask
}

// dropReport formats an event, with --drops.anonymize without the addresses of others. It
// may be called from any goroutine.
func (s *sampler) dropReport(e *correlate.DropEvent) correlate.DropEventReport {
	var mask *correlate.Mask
	if s.cfg.AnonymizeDrops {
		mask = s.masks.get(s.dropInputs, time.Now())
	}
	return correlate.NewDropEventReport(e, s.devices.name, mask)
}
