// SPDX-License-Identifier: Apache-2.0

package ledger

import "testing"

// TestDispatchTellsTheWay has one reading settle which way connections came,
// where KUBE-SERVICES tells; and never more than it tells.
func TestDispatchTellsTheWay(t *testing.T) {
	rules := func(connections, external, dispatched uint64) Reading {
		d := conn(9, dispatched)
		d.Kind, d.Endpoint = Dispatch, ep2
		return reading(leg, ext(2, external), d, conn(1, connections))
	}
	r := newRig(10)
	r.apply(rules(100, 40, 60))
	r.apply(rules(100, 40, 60))
	expect := func(what string, rd Reading, pending bool, want string) {
		t.Helper()
		out := r.apply(rd)
		if got := total(t, r.Ledger, web); got != want || out.Pending != pending {
			t.Errorf("%s: %s, pending %v, want %s and %v", what, got, out.Pending, want, pending)
		}
	}
	expect("both ways", rules(110, 43, 67), false, "cluster 7 external 3 refused 0")
	expect("KUBE-SERVICES was written, 2 of 5 are known", rules(115, 43, 2), true, "cluster 9 external 3 refused 0")
	expect("the next reading knows them", rules(115, 43, 2), false, "cluster 12 external 3 refused 0")
	expect("and counts go on", rules(119, 44, 5), false, "cluster 15 external 4 refused 0")
}
