// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"slices"
	"testing"
)

// jump is a witness in nat.
func jump(handle, packets uint64) Witness {
	return Witness{ID: ID{Table: "nat", RuleHandle: handle}, Rule: [16]byte{1}, Packets: packets}
}

func with(r Reading, ws ...Witness) Reading {
	r.Witnesses = ws
	return r
}

func TestRestoredTables(t *testing.T) {
	before := with(reading(nft, conn(1, 70), ext(2, 30), refusal(3, 9)), jump(5, 70))
	output := func(handle, packets uint64) Witness {
		w := jump(handle, packets)
		w.Rule = [16]byte{2}
		return w
	}
	again := conn(14, 4)
	again.Endpoint = ep2
	tests := []struct {
		name     string
		readings []Reading // after two of before
		want     string
	}{
		{
			name:     "with counters",
			readings: []Reading{with(reading(nft, conn(11, 70), ext(12, 30), refusal(3, 9)), jump(15, 70))},
			want:     "cluster 0 external 0 refused 0",
		},
		{
			name:     "with counters, and packets before and after",
			readings: []Reading{with(reading(nft, conn(11, 75), ext(12, 31), refusal(3, 9)), jump(15, 75))},
			want:     "cluster 4 external 1 refused 0",
		},
		{
			name: "twice",
			readings: []Reading{
				with(reading(nft, conn(11, 75), ext(12, 31), refusal(3, 9)), jump(15, 75)),
				with(reading(nft, conn(21, 76), ext(22, 31), refusal(3, 9)), jump(25, 76)),
			},
			want: "cluster 5 external 1 refused 0",
		},
		{
			name:     "with counters saved before the last reading",
			readings: []Reading{with(reading(nft, conn(11, 69), ext(12, 30), refusal(3, 9)), jump(15, 69))},
			want:     "cluster 0 external 0 refused 0",
		},
		{
			name:     "with counters saved long before",
			readings: []Reading{with(reading(nft, conn(11, 40), ext(12, 20), refusal(3, 9)), jump(15, 40))},
			want:     "cluster 0 external 0 refused 0",
		},
		{
			name:     "without counters",
			readings: []Reading{with(reading(nft, conn(11, 6), ext(12, 2), refusal(3, 9)), jump(15, 6))},
			want:     "cluster 4 external 2 refused 0",
		},
		{
			name:     "without counters and traffic",
			readings: []Reading{with(reading(nft, conn(11, 0), ext(12, 0), refusal(3, 9)), jump(15, 0))},
			want:     "cluster 0 external 0 refused 0",
		},
		{
			name:     "a Service made anew that passes its old value is not restored",
			readings: []Reading{with(reading(nft, conn(11, 80), ext(12, 30), refusal(3, 9)), jump(5, 150))},
			want:     "cluster 50 external 30 refused 0",
		},
		{
			name:     "nor is one of another table",
			readings: []Reading{with(reading(nft, conn(11, 75), ext(12, 31), refusal(13, 9)), jump(15, 75))},
			want:     "cluster 4 external 1 refused 9",
		},
		{
			name: "nor is one when only one jump was made anew",
			readings: []Reading{
				with(reading(nft, conn(1, 70), ext(2, 30)), jump(5, 70), output(6, 1)),
				with(reading(nft, conn(11, 80), ext(2, 30)), jump(15, 80), output(6, 1)),
			},
			want: "cluster 80 external 0 refused 0",
		},
		{
			name: "a rule that the table did not have starts at 0",
			readings: []Reading{
				with(reading(nft, conn(11, 75), again, ext(12, 30), refusal(3, 9)), jump(15, 79)),
			},
			// The External rule may have been made anew with it.
			want: "cluster 0 external 0 refused 0",
		},
		{
			name: "a table of another handle",
			readings: []Reading{
				with(reading(nft, Counter{
					ID: ID{Table: "nat", TableHandle: 2, RuleHandle: 1}, Kind: Connection, Port: web, Endpoint: ep1, Packets: 73,
				}, Counter{ID: ID{Table: "nat", TableHandle: 2, RuleHandle: 2}, Kind: External, Port: web, Packets: 30}, refusal(3, 9)),
					Witness{ID: ID{Table: "nat", TableHandle: 2, RuleHandle: 5}, Rule: [16]byte{1}, Packets: 73}),
			},
			want: "cluster 3 external 0 refused 0",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(10)
			for _, rd := range append([]Reading{before, before}, tt.readings...) {
				r.apply(rd)
			}
			if got := total(t, r.Ledger, web); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// TestEqualRulesAreCarriedInOrder has what affinity makes: two jumps of one
// chain to one endpoint.
func TestEqualRulesAreCarriedInOrder(t *testing.T) {
	r := newRig(10)
	before := with(reading(nft, conn(2, 3), conn(1, 70)), jump(5, 73))
	r.apply(before)
	r.apply(before)
	r.apply(with(reading(nft, conn(12, 4), conn(11, 72)), jump(15, 76)))
	if got, want := total(t, r.Ledger, web), "cluster 3 external 0 refused 0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := endpoints(r)[ep1]; got != 3 {
		t.Errorf("endpoint %d, want 3", got)
	}
}

// TestRestoredLegacyTables has what iptables-legacy-restore -c makes of a table
// that was saved at some time before: older values under the same identities.
func TestRestoredLegacyTables(t *testing.T) {
	before := []Reading{
		reading(leg, conn(1, 70), ext(2, 30), refusal(3, 9)), reading(leg, conn(1, 70), ext(2, 30), refusal(3, 9)),
		reading(leg, conn(1, 80), ext(2, 34), refusal(3, 19)), reading(leg, conn(1, 80), ext(2, 34), refusal(3, 19)),
	}
	sure := func(counters ...Counter) Reading { // at the end of a writer's session
		r := reading(leg, counters...)
		r.Dips = false
		return r
	}
	tests := []struct {
		name     string
		readings []Reading // after before
		want     string
	}{
		{
			name: "saved a moment ago",
			readings: []Reading{
				sure(conn(1, 78), ext(2, 33), refusal(3, 18)),
				sure(conn(1, 79), ext(2, 33), refusal(3, 19)), sure(conn(1, 79), ext(2, 33), refusal(3, 19)),
			},
			want: "cluster 7 external 4 refused 11",
		},
		{
			name: "saved long before",
			readings: []Reading{
				sure(conn(1, 45), ext(2, 20), refusal(3, 10)),
				sure(conn(1, 48), ext(2, 20), refusal(3, 12)), sure(conn(1, 48), ext(2, 20), refusal(3, 12)),
			},
			want: "cluster 9 external 4 refused 12",
		},
		{
			name: "within a dip",
			readings: []Reading{
				reading(leg, conn(1, 1), ext(2, 0), refusal(3, 0)),
				reading(leg, conn(1, 60), ext(2, 20), refusal(3, 10)), reading(leg, conn(1, 60), ext(2, 20), refusal(3, 10)),
				reading(leg, conn(1, 60), ext(2, 20), refusal(3, 10)), reading(leg, conn(1, 62), ext(2, 21), refusal(3, 10)),
				reading(leg, conn(1, 62), ext(2, 21), refusal(3, 10)),
			},
			want: "cluster 7 external 5 refused 10",
		},
		{
			name:     "made anew, with another endpoint whose connections may all be external ones",
			readings: []Reading{sure(conn(1, 3), conn(9, 5), ext(2, 8))},
			want:     "cluster 6 external 12 refused 10",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(10)
			for _, rd := range append(slices.Clone(before), tt.readings...) {
				r.apply(rd)
			}
			if got := total(t, r.Ledger, web); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}
