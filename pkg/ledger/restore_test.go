// SPDX-License-Identifier: Apache-2.0

package ledger

import (
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

// TestLegacyFalls has what makes values of x_tables fall: kube-proxy's syncs,
// dips, and tables that are restored with their counters or without.
func TestLegacyFalls(t *testing.T) {
	filter := func(packets uint64) Witness {
		return Witness{ID: ID{Table: "filter"}, Packets: packets}
	}
	at := func(nat, inFilter uint64, counters ...Counter) Reading {
		return with(reading(leg, counters...), jump(0, nat), filter(inFilter))
	}
	twice := func(r Reading) []Reading { return []Reading{r, r} }
	before := append(twice(at(500, 500, conn(1, 70), ext(2, 30), refusal(3, 9))),
		twice(at(510, 510, conn(1, 80), ext(2, 34), refusal(3, 19)))...)
	tests := []struct {
		name     string
		readings []Reading // after before
		want     string
		suspect  bool // the first of them
	}{
		{
			name:     "made anew by kube-proxy",
			readings: twice(at(514, 514, conn(1, 4), ext(2, 1), refusal(3, 3))),
			want:     "cluster 9 external 5 refused 13",
		},
		{
			name:     "made anew, with another endpoint",
			readings: twice(at(520, 510, conn(1, 3), conn(9, 5), ext(2, 4), refusal(3, 19))),
			want:     "cluster 10 external 8 refused 10",
		},
		{
			name:     "a dip of one table",
			readings: append(twice(at(1, 511, conn(1, 1), ext(2, 0), refusal(3, 20))), twice(at(515, 511, conn(1, 85), ext(2, 36), refusal(3, 20)))...),
			want:     "cluster 9 external 6 refused 11", suspect: true,
		},
		{
			name: "dips of both, one after the other",
			readings: []Reading{
				at(1, 511, conn(1, 1), ext(2, 0), refusal(3, 20)), at(2, 511, conn(1, 2), ext(2, 0), refusal(3, 20)),
				at(515, 1, conn(1, 85), ext(2, 36), refusal(3, 1)), at(515, 515, conn(1, 85), ext(2, 36), refusal(3, 22)),
			},
			want: "cluster 9 external 6 refused 13", suspect: true,
		},
		{
			name: "all of it made anew",
			readings: append(twice(at(4, 6, conn(1, 4), ext(2, 1), refusal(3, 6))),
				append(twice(at(4, 6, conn(1, 4), ext(2, 1), refusal(3, 6))), at(4, 6, conn(1, 4), ext(2, 1), refusal(3, 6)))...),
			want: "cluster 9 external 5 refused 16", suspect: true,
		},
		{
			name: "restored, saved a moment ago",
			readings: append(twice(at(508, 508, conn(1, 78), ext(2, 33), refusal(3, 18))),
				append(twice(at(509, 510, conn(1, 79), ext(2, 33), refusal(3, 19))), twice(at(511, 512, conn(1, 81), ext(2, 33), refusal(3, 21)))...)...),
			want: "cluster 8 external 4 refused 12", suspect: true,
		},
		{
			name: "restored, saved when the rules had counted little",
			readings: append(twice(at(420, 410, conn(1, 5), ext(2, 2), refusal(3, 1))),
				append(twice(at(420, 410, conn(1, 5), ext(2, 2), refusal(3, 1))), twice(at(422, 412, conn(1, 7), ext(2, 3), refusal(3, 3)))...)...),
			want: "cluster 7 external 5 refused 12", suspect: true,
		},
		{
			name:     "restored, and the jumps have passed what they had counted",
			readings: twice(at(511, 511, conn(1, 20), ext(2, 8), refusal(3, 7))),
			want:     "cluster 6 external 4 refused 10",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(10)
			for _, rd := range before {
				r.apply(rd)
			}
			for i, rd := range tt.readings {
				if out := r.apply(rd); i == 0 && out.Suspect != tt.suspect {
					t.Errorf("suspect: %v, want %v", out.Suspect, tt.suspect)
				}
			}
			if got := total(t, r.Ledger, web); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// TestRestoredWithLittleCounted: a table that was saved when its rules had counted less
// than half of what they had at the last reading, of so little that they may have
// doubled it meanwhile, is not counted a second time.
func TestRestoredWithLittleCounted(t *testing.T) {
	r := newRig(10)
	for _, rd := range []Reading{
		with(reading(nft, conn(1, 0), ext(2, 0)), jump(5, 0)),
		with(reading(nft, conn(1, 0), ext(2, 0)), jump(5, 0)),
		with(reading(nft, conn(1, 10), ext(2, 4)), jump(5, 11)),
		with(reading(nft, conn(11, 4), ext(12, 1)), jump(15, 4)),
	} {
		r.apply(rd)
	}
	if got, want := total(t, r.Ledger, web), "cluster 6 external 4 refused 0"; got != want {
		t.Errorf("restored: got %s, want %s", got, want)
	}
	r.apply(with(reading(nft, conn(11, 14), ext(12, 6)), jump(15, 14)))
	if got, want := total(t, r.Ledger, web), "cluster 11 external 9 refused 0"; got != want {
		t.Errorf("later: got %s, want %s", got, want)
	}
}
