// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"time"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

const (
	// fullEvery is for how long kube-proxy writes nothing but what changed: the
	// first change after an hour makes it write the rules of all Services
	// (FullSyncPeriod in pkg/proxy/util/utils.go, since Kubernetes 1.33).
	fullEvery = 59 * time.Minute
	// wholeEvery is how often all rules are read before what is announced then.
	wholeEvery = time.Second
)

// fullSyncs is what is known of kube-proxy's full syncs: their time tells whether
// the next change may be one. Its zero value knows of none: then it may be.
type fullSyncs struct {
	last  time.Time // that was seen
	whole time.Time // all rules were read in case that one comes
}

// see takes what a reading has changed in the rules of which v was the view.
func (s *fullSyncs) see(v *kubeproxy.View, deltas []ruleset.Delta) {
	again := 0
	for i := range deltas {
		for _, c := range deltas[i].Changed {
			kind, hash := kubeproxy.ParseChain(c.Name)
			if kind == kubeproxy.KindService && deltas[i].Table == "nat" && v.Ports[hash] != nil {
				again++
			}
		}
	}
	if again > 0 && again > len(v.Ports)/2 {
		s.last = time.Now()
	}
}

// due reports whether all rules should be read now, as all may be rewritten with
// what is announced, and notes that they are.
func (s *fullSyncs) due(now time.Time) bool {
	if now.Sub(s.last) < fullEvery || now.Sub(s.whole) < wholeEvery {
		return false
	}
	s.whole = now
	return true
}
