// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/service"
)

// namePods has the rules that refuse packets told again where the pods are others: what
// they count from now on is told by the pods' names.
func (s *sampler) namePods() {
	pods, _ := s.kube.pods()
	if s.names.SamePods(pods) {
		return
	}
	s.names = s.names.WithPods(pods)
	for _, src := range s.sources {
		for _, f := range src.families() {
			f.refused.moved = true
		}
	}
}

// watchLosses notes of which pods is to be told that they lose packets.
func (s *sampler) watchLosses() {
	if s.cfg.KubeEvents {
		s.losses = correlate.NewPodLosses(s.started)
		s.groups.events.losses = make(map[correlate.LossKey]uint64)
	}
}

// tellLosses writes Events of pods that lose packets to network policies, by what rules
// have refused until now and what witnesses saw.
func (s *sampler) tellLosses(refused []correlate.PolicyDropTotal, now time.Time) {
	if s.losses == nil {
		return
	}
	s.losses.Witness(s.groups.events.takeLosses(), now)
	s.losses.Count(refused, now)
	w := s.kube.watcher()
	if w == nil || w.Pods() == nil { // they are told once it is known whose they are
		return
	}
	s.losses.Tell(now, func(l correlate.PodLoss) bool {
		// One that has gone, or is not this node's, has no Event.
		p := w.Pods().ByName(service.Name{Namespace: l.Pod.Namespace, Name: l.Pod.Name})
		return p == nil || w.Lost(p, l.String(), l.Packets, l.Since)
	})
}
