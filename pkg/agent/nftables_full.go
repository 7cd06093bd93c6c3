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
	// wholeEvery is how often all rules are read before what is announced then,
	// and wholeShare the part of the time that it may take.
	wholeEvery = time.Second
	wholeShare = 100
	// fewPorts are so few that a change of some is no full sync.
	fewPorts = 10
)

// fullSyncs is what is known of kube-proxy's full syncs of one family: their time
// tells whether the next change may be one. Its zero value knows of none: then it
// may be.
type fullSyncs struct {
	last time.Time // that was seen
}

// see takes what a reading has changed in the rules of which v was the view: the
// chains of nearly all Services, or of some.
func (s *fullSyncs) see(v *kubeproxy.View, deltas []ruleset.Delta) {
	again := make(map[string]bool)
	for i := range deltas {
		for _, c := range deltas[i].Changed {
			kind, hash := kubeproxy.ParseChain(c.Name)
			if (kind == kubeproxy.KindService || kind == kubeproxy.KindLocal) && deltas[i].Table == "nat" && v.Ports[hash] != nil {
				again[hash] = true
			}
		}
	}
	if n := len(v.Ports); n >= fewPorts && len(again) > n-n/fewPorts {
		s.last = time.Now()
	}
}

// due reports whether all rules may be rewritten with what is announced.
func (s *fullSyncs) due(now time.Time) bool { return now.Sub(s.last) >= fullEvery }

// wholeLooks is when everything was read in case that a full sync comes.
type wholeLooks struct {
	last time.Time
	cost time.Duration
}

// due reports whether to do so again.
func (w *wholeLooks) due(now time.Time) bool {
	return now.Sub(w.last) >= max(wholeEvery, wholeShare*w.cost)
}
