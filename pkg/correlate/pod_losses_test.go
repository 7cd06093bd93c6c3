// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/policy"
)

var (
	webPod   = policy.Object{Namespace: "shop", Name: "web-0"}
	probePod = policy.Object{Namespace: "ops", Name: "probe"}
	strict   = policy.Object{Namespace: "shop", Name: "strict"}
)

// TestLossOfAnEvent: whose loss it is.
func TestLossOfAnEvent(t *testing.T) {
	for _, tt := range []struct {
		name             string
		from, to, before policy.Object
		f                policy.Refuser
		logged           bool
		want             string
	}{
		{name: "to the pod", from: probePod, to: webPod, f: policy.Refuser{Reason: policy.DefaultDeny, Direction: policy.Ingress}, want: "shop/web-0"},
		{name: "out of it", from: probePod, to: webPod, f: policy.Refuser{Reason: policy.NoProfile, Direction: policy.Egress}, want: "ops/probe"},
		{name: "to one elsewhere", from: probePod, f: policy.Refuser{Reason: policy.DefaultDeny, Direction: policy.Ingress}, want: "-"},
		{name: "the one of the rule", from: probePod, to: probePod, before: webPod, f: policy.Refuser{Reason: policy.DefaultDeny, Direction: policy.Egress}, want: "shop/web-0"},
		{name: "either, by who receives", from: probePod, to: webPod, f: policy.Refuser{Reason: policy.DefaultDeny}, want: "shop/web-0"},
		{name: "either, by the policy's namespace", from: webPod, to: probePod, f: policy.Refuser{Reason: policy.DefaultDeny, Policy: strict}, want: "shop/web-0"},
		{name: "the only one", from: probePod, f: policy.Refuser{Reason: policy.DeniedByRule}, want: "ops/probe"},
		{name: "no policy's", to: webPod, f: policy.Refuser{Reason: policy.Invalid, Direction: policy.Ingress}, want: "-"},
		{name: "somebody's rule", to: webPod, f: policy.Refuser{Reason: policy.ByRule}, want: "-"},
		{name: "logged only", to: webPod, f: policy.Refuser{Reason: policy.DefaultDeny}, logged: true, want: "-"},
		{name: "no pod", f: policy.Refuser{Reason: policy.DefaultDeny}, want: "-"},
	} {
		tt.f.Pod = tt.before
		e := &DropEvent{DropRule: &DropRule{Refused: !tt.logged, Refuser: tt.f}, FromPod: tt.from, ToPod: tt.to}
		got := "-"
		if k, ok := e.Loss(); ok {
			got = slashed(k.Pod)
		}
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// lossScene takes what is seen minute by minute.
type lossScene struct {
	*testing.T
	l   *PodLosses
	now time.Time
}

func newLossScene(t *testing.T) *lossScene {
	now := time.Unix(1_700_000_000, 0).UTC()
	return &lossScene{t, NewPodLosses(now), now}
}

// counted is what rules have counted of web-0.
func counted(owner string, d policy.Direction, of policy.Object, n uint64) PolicyDropTotal {
	return PolicyDropTotal{Owner: owner, Direction: d, Policy: of, Pod: webPod, Packets: n}
}

// after takes totals and events some minutes later.
func (s *lossScene) after(minutes int, totals []PolicyDropTotal, events map[LossKey]uint64, want ...string) {
	s.Helper()
	s.now = s.now.Add(time.Duration(minutes) * time.Minute)
	s.l.Witness(events, s.now)
	s.l.Count(totals, s.now)
	var got []string
	s.l.Tell(s.now, func(PodLoss) bool { return false }) // they are told the next time
	s.l.Tell(s.now, func(d PodLoss) bool {
		got = append(got, fmt.Sprintf("%s %s: %d since %s", slashed(d.Pod), d, d.Packets, d.Since.Format("15:04")))
		return true
	})
	if d := cmp.Diff(want, got); d != "" {
		s.Errorf("%s (-want +got):\n%s", s.now.Format("15:04"), d)
	}
}

// TestPodLosses tells of each at most every five minutes, and of what has grown only.
func TestPodLosses(t *testing.T) {
	s := newLossScene(t) // at 22:13
	none := policy.Object{}
	rules := func(n uint64) []PolicyDropTotal {
		return []PolicyDropTotal{counted("calico", policy.Ingress, none, n), {Owner: "calico", Policy: strict, Packets: 77}}
	}
	s.after(1, rules(0), nil)
	s.after(1, rules(3), nil, "shop/web-0 Packets to this pod dropped by network policies (calico): 3 since 22:14")
	s.after(1, rules(9), nil)
	s.after(3, rules(12), nil)
	s.after(1, rules(12), nil, "shop/web-0 Packets to this pod dropped by network policies (calico): 12 since 22:14")
	s.after(9, rules(12), nil)
	s.after(1, rules(2), nil, "shop/web-0 Packets to this pod dropped by network policies (calico): 14 since 22:14") // it was forgotten, and counts anew

	// What is not there any more is forgotten.
	s.after(59, nil, nil)
	if n := len(s.l.all); n != 1 {
		t.Errorf("%d are remembered, want 1", n)
	}
	s.after(1, nil, nil)
	if n := len(s.l.all); n != 0 {
		t.Errorf("%d are remembered, want none", n)
	}
}

// TestPodLossesAreToldOnce: a rule counts the packets that a witness sees.
func TestPodLossesAreToldOnce(t *testing.T) {
	none := policy.Object{}
	key := func(owner string, d policy.Direction, of policy.Object) LossKey {
		return LossKey{Pod: webPod, Owner: owner, Direction: d, Policy: of}
	}
	const byPolicy, byNone = "shop/web-0 Packets of this pod dropped by policy shop/strict (kube-router): ", "shop/web-0 Packets of this pod dropped by network policies (kube-router): "
	// kube-router's rule does not tell the policy, its log does.
	s := newLossScene(t)
	s.after(1, nil, map[LossKey]uint64{key("kube-router", "", strict): 4}, byPolicy+"4 since 22:13")
	s.after(1, []PolicyDropTotal{counted("kube-router", "", none, 4)}, nil)
	// What was not logged, or not received.
	s.after(1, []PolicyDropTotal{counted("kube-router", "", none, 10)}, nil, byNone+"6 since 22:14")

	// Both tell the same of it.
	s = newLossScene(t)
	s.after(1, []PolicyDropTotal{counted("kube-router", "", none, 10)}, map[LossKey]uint64{key("kube-router", "", none): 3}, byNone+"10 since 22:13")

	// Calico's end of a tier is another rule than a policy's.
	s = newLossScene(t)
	s.after(1, []PolicyDropTotal{counted("calico", policy.Ingress, none, 5)},
		map[LossKey]uint64{key("calico", policy.Ingress, none): 5, key("calico", policy.Ingress, strict): 5, key("calico", policy.Egress, policy.Object{Name: "gate"}): 2},
		"shop/web-0 Packets from this pod dropped by policy gate (calico): 2 since 22:13",
		"shop/web-0 Packets to this pod dropped by network policies (calico): 5 since 22:13",
		"shop/web-0 Packets to this pod dropped by policy shop/strict (calico): 5 since 22:13")
}

// TestPodLossesAreBounded: further ones are not told.
func TestPodLossesAreBounded(t *testing.T) {
	s := newLossScene(t)
	events := make(map[LossKey]uint64)
	for n := range maxLosses + 7 {
		events[LossKey{Pod: policy.Object{Namespace: "shop", Name: fmt.Sprint(n)}}] = 1
	}
	s.l.Witness(events, s.now)
	var due []PodLoss
	s.l.Tell(s.now, func(d PodLoss) bool {
		due = append(due, d)
		return true
	})
	if len(due) != maxLosses || len(s.l.all) != maxLosses {
		t.Errorf("%d are told, %d remembered", len(due), len(s.l.all))
	}
	for _, d := range due {
		if strings.ContainsAny(d.String(), "0123456789:") {
			t.Fatalf("%q: there are numbers in what tells them apart", d)
		}
	}
}
