// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"cmp"
	"slices"
	"time"

	"github.com/svcscope/svcscope/pkg/policy"
)

// LossKey is what packets are told apart by that pods lose to network policies.
type LossKey struct {
	Pod       policy.Object
	Owner     string // of policy.Owners
	Direction policy.Direction
	Policy    policy.Object // the zero value where none is told
}

// compare orders keys by pod first.
func (k LossKey) compare(l LossKey) int {
	return cmp.Or(k.Pod.Compare(l.Pod), cmp.Compare(k.Owner, l.Owner), cmp.Compare(k.Direction, l.Direction), k.Policy.Compare(l.Policy))
}

// String says who drops which packets of the pod.
func (k LossKey) String() string {
	s := "Packets of this pod"
	switch k.Direction {
	case policy.Ingress:
		s = "Packets to this pod"
	case policy.Egress:
		s = "Packets from this pod"
	}
	switch {
	case k.Policy == (policy.Object{}):
		return s + " dropped by network policies (" + k.Owner + ")"
	case k.Policy.Namespace == "":
		return s + " dropped by policy " + k.Policy.Name + " (" + k.Owner + ")"
	}
	return s + " dropped by policy " + k.Policy.Namespace + "/" + k.Policy.Name + " (" + k.Owner + ")"
}

// Loss returns which pod has lost the packet to a network policy; ok is false where no
// pod is known or none did. Where the direction is not told both ends may be pods: then it
// is the one of the policy's namespace, or the one that would have received it.
func (e *DropEvent) Loss() (k LossKey, ok bool) {
	if !e.Refused || !e.Reason.OfPolicy() {
		return LossKey{}, false
	}
	k = LossKey{Pod: e.Pod, Owner: e.Owner, Direction: e.Direction, Policy: e.Policy}
	none := policy.Object{}
	switch from := e.FromPod; {
	case k.Pod != none:
	case e.Direction == policy.Egress:
		k.Pod = from
	default:
		k.Pod = e.ToPod
		if e.Direction != "" || from == none {
			break
		}
		if k.Pod == none || from.Namespace == e.Policy.Namespace && k.Pod.Namespace != from.Namespace {
			k.Pod = from
		}
	}
	return k, k.Pod != none
}

// PodLoss is what a pod has lost since a time.
type PodLoss struct {
	LossKey
	Packets uint64
	Since   time.Time
}

const (
	// tellLossEvery is how often at most a pod's loss to one policy is told.
	tellLossEvery = 5 * time.Minute
	// maxLosses bounds what is remembered; further losses are not told.
	maxLosses = 1000
	// lossKept is for how long a loss that no rule counts any more is remembered.
	lossKept = time.Hour
)

// PodLosses finds the pods of which is to be told that they lose packets to network
// policies: by what rules have counted, and by what witnesses saw. It is for one goroutine.
type PodLosses struct {
	all    map[LossKey]*podLoss
	looked time.Time // when Due was called last
}

// podLoss is what is known of one key.
type podLoss struct {
	// counted are the packets that rules count now, and before those of counts that have
	// begun anew since; seen are those of events.
	counted, before, seen uint64
	told                  uint64
	at                    time.Time // when it was told
	since, known          time.Time
}

// NewPodLosses knows of none until now.
func NewPodLosses(now time.Time) *PodLosses {
	return &PodLosses{all: make(map[LossKey]*podLoss), looked: now}
}

// Witness adds packets of which there were events.
func (l *PodLosses) Witness(more map[LossKey]uint64, now time.Time) {
	for key, n := range more {
		if p := l.of(key, now); p != nil {
			p.seen += n
		}
	}
}

// Count takes what rules have refused until now.
func (l *PodLosses) Count(all []PolicyDropTotal, now time.Time) {
	for i := range all {
		d := &all[i]
		key := LossKey{Pod: d.Pod, Owner: d.Owner, Direction: d.Direction, Policy: d.Policy}
		if d.Pod == (policy.Object{}) || d.Packets == 0 && l.all[key] == nil {
			continue
		}
		p := l.of(key, now)
		if p == nil {
			continue
		}
		if d.Packets < p.counted {
			p.before += p.counted
		}
		p.counted = d.Packets
	}
}

// of returns the state of a key, which is made where there is room.
func (l *PodLosses) of(key LossKey, now time.Time) *podLoss {
	p := l.all[key]
	if p == nil {
		if len(l.all) >= maxLosses {
			return nil
		}
		p = &podLoss{since: l.looked}
		l.all[key] = p
	}
	p.known = now
	return p
}

// Tell has tell be called for the losses that have grown and that may be told again, in order.
// Those of which it returns false are told the next time.
func (l *PodLosses) Tell(now time.Time, tell func(PodLoss) bool) {
	var due []PodLoss
	named := l.named()
	for key, p := range l.all {
		n := p.packets(key, named)
		switch {
		case n > p.told && (p.at.IsZero() || now.Sub(p.at) >= tellLossEvery):
			due = append(due, PodLoss{key, n, p.since})
		case now.Sub(p.known) >= lossKept:
			delete(l.all, key)
		}
	}
	l.looked = now
	slices.SortFunc(due, func(a, b PodLoss) int { return a.compare(b.LossKey) })
	for _, d := range due {
		if p := l.all[d.LossKey]; tell(d) {
			p.told, p.at = d.Packets, now
		}
	}
}

// named sums what witnesses saw of losses to policies that have a name, by keys without it.
func (l *PodLosses) named() map[LossKey]uint64 {
	sums := make(map[LossKey]uint64)
	for key, p := range l.all {
		if key.Policy != (policy.Object{}) {
			key.Policy = policy.Object{}
			sums[key] += p.seen
		}
	}
	return sums
}

// packets is what a pod has lost as a key has it. A rule that counts and a witness tell of
// the same packets. Where the rule names no policy the witness may: those packets are told
// under the policy.
func (p *podLoss) packets(key LossKey, named map[LossKey]uint64) uint64 {
	counted := p.before + p.counted
	if key.Policy != (policy.Object{}) {
		return max(counted, p.seen)
	}
	for _, d := range []policy.Direction{policy.Ingress, policy.Egress, ""} {
		if key.Direction == "" || d == "" || d == key.Direction {
			k := key
			k.Direction = d
			counted -= min(counted, named[k])
		}
	}
	return max(counted, p.seen)
}
