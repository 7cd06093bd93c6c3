// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCap(t *testing.T) {
	ports := []Port{svcPort("a"), svcPort("b"), svcPort("c"), svcPort("d")}
	r := newRig(2)
	read := func(values ...uint64) {
		var cs []Counter
		for i, v := range values {
			cs = append(cs, of(ports[i], conn(uint64(i+1), v)))
		}
		r.apply(reading(nft, cs...))
	}
	r.know(ports...)
	read(5, 5, 5, 5)
	read(5, 5, 5, 5)
	expect := func(when string, want map[string]uint64) {
		t.Helper()
		got := map[string]uint64{}
		for p := range r.Ports() {
			got[p.Port.Service.Name] = p.Cluster
		}
		for k, o := range r.Others() {
			got[fmt.Sprintf("_other/%s/%d", k.Protocol, k.Family)] = o.Cluster
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
		r.Changed(0) // a snapshot tells of it
	}
	expect("without activity nobody is a member", map[string]uint64{"_other/TCP/2": 0})
	read(5, 6, 5, 5)
	expect("activity makes one, which starts at 0", map[string]uint64{"b": 0, "_other/TCP/2": 1})
	read(5, 6, 8, 5)
	read(9, 6, 8, 5)
	expect("the rest goes to others when full", map[string]uint64{"b": 0, "c": 0, "_other/TCP/2": 8})
	r.know(ports[0], ports[2], ports[3])
	read(9, 6, 9, 5)
	expect("membership is sticky, deletion ends it", map[string]uint64{"c": 1, "_other/TCP/2": 8})
	read(11, 6, 9, 5)
	expect("one admitted later starts at 0", map[string]uint64{"a": 0, "c": 1, "_other/TCP/2": 10})
	for p := range r.Ports() {
		if p.Port.Service.Name == "a" && !p.Created.Equal(r.now) {
			t.Errorf("a was created at %v, want the time of its admission %v", p.Created, r.now)
		}
	}
	if r.Folded() != 1 {
		t.Errorf("folded %d, want 1", r.Folded())
	}
}

// TestCapIsPassedAtZeroInBothFamilies reads both families in one pass: what the
// second one has counted of a Service that passed the cap with the first must
// not be the first sample of its series.
func TestCapIsPassedAtZeroInBothFamilies(t *testing.T) {
	r := newRig(1)
	a, b := svcPort("a"), svcPort("b")
	a6 := a
	a6.Family = 10
	nft6 := nft
	nft6.Family = 10
	r.know(a, a6, b)
	pass := func(v4, v6 uint64) {
		r.apply(reading(nft, of(a, conn(1, v4))))
		r.apply(reading(nft6, of(a6, conn(1, v6))))
	}
	pass(5, 5)
	pass(5, 5)
	r.Changed(0)
	pass(6, 8)
	for _, port := range []Port{a, a6} {
		if got, want := total(t, r.Ledger, port), "cluster 0 external 0 refused 0"; got != want {
			t.Errorf("as it passes the cap, %v: %s, want %s", port, got, want)
		}
	}
	r.Changed(0)
	pass(7, 10)
	var others uint64
	for _, o := range r.Others() {
		others += o.Cluster
	}
	if v4, v6 := total(t, r.Ledger, a), total(t, r.Ledger, a6); v4 != "cluster 1 external 0 refused 0" || v6 != "cluster 2 external 0 refused 0" || others != 4 {
		t.Errorf("afterwards: %s and %s, %d in others; want 1, 2 and 4", v4, v6, others)
	}
}

func TestAtMostMaxServicesAreAllExposedFromZero(t *testing.T) {
	r := newRig(2)
	r.know(svcPort("a"), svcPort("b"))
	r.apply(reading(nft))
	r.apply(reading(nft))
	n := 0
	for p := range r.Ports() {
		n++
		if p.Cluster != 0 || !p.Created.Equal(r.now) {
			t.Errorf("%v: cluster %d created %v, want 0 at the baseline %v", p.Port, p.Cluster, p.Created, r.now)
		}
	}
	if n != 2 || len(r.Others()) != 0 {
		t.Errorf("%d ports and %d others, want 2 and none", n, len(r.Others()))
	}
}

func TestDeletedServiceStartsAnew(t *testing.T) {
	r := newRig(10)
	for _, v := range []uint64{5, 5, 9} {
		r.apply(reading(nft, conn(1, v)))
	}
	r.know()
	if got := total(t, r.Ledger, web); got != "none" {
		t.Errorf("after deletion: %s", got)
	}
	r.apply(reading(nft, conn(1, 20))) // its rules outlive it for a while
	r.know(web)
	created := r.now
	r.apply(reading(nft, conn(1, 21)))
	if got, want := total(t, r.Ledger, web), "cluster 1 external 0 refused 0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for p := range r.Ports() {
		if !p.Created.Equal(created) {
			t.Errorf("created %v, want %v", p.Created, created)
		}
	}
}

func TestRulesMayPrecedeTheAPI(t *testing.T) {
	r := newRig(10)
	late := svcPort("late")
	r.apply(reading(nft, of(late, conn(1, 100))))
	r.apply(reading(nft, of(late, conn(1, 100))))
	r.apply(reading(nft, of(late, conn(1, 103)), of(late, conn(2, 4))))
	r.know(web, late)
	r.apply(reading(nft, of(late, conn(1, 105)), of(late, conn(2, 4))))
	if got, want := total(t, r.Ledger, late), "cluster 9 external 0 refused 0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestWithoutAPIAbsenceNeedsTime(t *testing.T) {
	l := New(10)
	l.Know(Known{Ports: []Port{web}}, start)
	l.Apply(reading(nft, conn(1, 1)), start)
	l.Apply(reading(nft, conn(1, 1)), start)
	l.Apply(reading(nft, conn(1, 4)), start)
	l.Know(Known{}, start.Add(absentAfter-time.Second))
	if got, want := total(t, l, web), "cluster 3 external 0 refused 0"; got != want {
		t.Errorf("before ten minutes: %s, want %s", got, want)
	}
	l.Know(Known{}, start.Add(absentAfter))
	if got := total(t, l, web); got != "none" {
		t.Errorf("after ten minutes: %s", got)
	}
}

func TestValuesGivenOutDoNotChange(t *testing.T) {
	r := newRig(10)
	r.apply(reading(nft, refusal(1, 0)))
	r.apply(reading(nft, refusal(1, 0)))
	r.apply(reading(nft, refusal(1, 1)))
	for p := range r.Ports() {
		r.apply(reading(nft, refusal(1, 7)))
		if p.Rejected["no_endpoints"] != 1 {
			t.Errorf("a total that was given out grew to %d", p.Rejected["no_endpoints"])
		}
	}
}
