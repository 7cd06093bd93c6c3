// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// in places a counter in a chain.
func in(chain string, c Counter) Counter {
	c.Chain = chain
	return c
}

func cover(chains ...string) Cover {
	c := make(Cover)
	for _, name := range chains {
		c[ChainName{Table: "nat", Chain: name}] = struct{}{}
	}
	return c
}

// listening makes a reading of a source whose commits are told.
func listening(counters ...Counter) Reading {
	r := reading(nft, counters...)
	r.Listening = true
	return r
}

func partial(c Cover, counters ...Counter) Reading {
	r := reading(nft, counters...)
	r.Cover = c
	return r
}

func commit(ended, begun []Counter) Commit {
	return Commit{Source: nft, Ended: ended, Begun: begun}
}

func TestCommits(t *testing.T) {
	type list = []Counter
	base := listening(conn(1, 10), ext(2, 4), refusal(3, 5))
	tests := []struct {
		name  string
		after []any // Readings and Commits after two of base
		want  string
	}{
		{
			name:  "final values close the account",
			after: []any{commit(list{conn(1, 30), ext(2, 9)}, list{conn(11, 0), ext(12, 0)})},
			want:  "cluster 15 external 5 refused 0",
		},
		{
			name: "and the next one starts at 0",
			after: []any{
				commit(list{conn(1, 30), ext(2, 9)}, list{conn(11, 0), ext(12, 0)}),
				listening(conn(11, 7), ext(12, 3), refusal(3, 5)),
			},
			want: "cluster 19 external 8 refused 0",
		},
		{
			name: "an external packet in flight does not make up for later ones",
			after: []any{
				commit(list{conn(1, 30), ext(2, 27)}, list{conn(11, 0), ext(12, 0)}),
				listening(conn(11, 7), ext(12, 3), refusal(3, 5)),
			},
			want: "cluster 4 external 26 refused 0",
		},
		{
			name: "where External rules end first, packets in flight are held back",
			after: []any{Commit{
				Source: nft, InFlight: 2,
				Ended: list{ext(2, 9), conn(1, 30)}, Begun: list{conn(11, 0), ext(12, 0)},
			}},
			want: "cluster 13 external 5 refused 0",
		},
		{
			name:  "connections whose External rule lives on wait for its value",
			after: []any{commit(list{conn(1, 30)}, list{conn(11, 0)})},
			want:  "cluster 0 external 0 refused 0",
		},
		{
			name: "and get it from the next reading",
			after: []any{
				commit(list{conn(1, 30)}, list{conn(11, 0)}),
				listening(conn(11, 2), ext(2, 8), refusal(3, 5)),
			},
			want: "cluster 18 external 4 refused 0",
		},
		{
			name: "an External rule that ends alone keeps the account open",
			after: []any{
				commit(list{ext(2, 9)}, list{ext(12, 0)}),
				listening(conn(1, 32), ext(12, 1), refusal(3, 5)),
			},
			want: "cluster 16 external 6 refused 0",
		},
		{
			name:  "a rule that no reading saw",
			after: []any{commit(nil, list{conn(21, 0)}), commit(list{conn(21, 6), refusal(22, 3)}, nil), listening(conn(1, 10), ext(2, 4))},
			want:  "cluster 6 external 0 refused 3",
		},
		{
			name:  "one ID ends and begins, as iptables -Z makes it",
			after: []any{commit(list{conn(1, 30), ext(2, 9)}, list{conn(1, 0), ext(2, 0)}), listening(conn(1, 40), ext(2, 1))},
			want:  "cluster 54 external 6 refused 0",
		},
		{
			name:  "absence ends nothing while listening",
			after: []any{listening(), listening(conn(1, 15), ext(2, 5))},
			want:  "cluster 4 external 1 refused 0",
		},
		{
			name: "a restore with counters",
			after: []any{
				commit(list{conn(1, 100), refusal(3, 7)}, list{conn(11, 95), refusal(13, 6)}),
				listening(conn(11, 97), ext(2, 4), refusal(13, 8)),
			},
			want: "cluster 92 external 0 refused 4",
		},
		{
			name: "small values that are restored",
			after: []any{
				commit(list{refusal(3, 7)}, list{refusal(13, 6)}),
				listening(conn(1, 10), ext(2, 4), refusal(13, 8)),
			},
			want: "cluster 0 external 0 refused 4",
		},
		{
			name: "a table that is written as a whole begins with what was saved long before",
			after: []any{
				Commit{
					Source: nft, Whole: map[string]bool{"nat": true},
					Ended: list{conn(1, 100), ext(2, 4)}, Begun: list{conn(11, 30), ext(12, 2)},
				},
				listening(conn(11, 35), ext(12, 2), refusal(3, 5)),
			},
			want: "cluster 95 external 0 refused 0",
		},
		{
			name: "and so it does when it was gone",
			after: []any{
				commit(list{conn(1, 100), ext(2, 4)}, nil),
				Commit{Source: nft, Whole: map[string]bool{"nat": true}, Begun: list{conn(11, 95), ext(12, 4)}},
				listening(conn(11, 97), ext(12, 4), refusal(3, 5)),
			},
			want: "cluster 92 external 0 refused 0",
		},
		{
			name: "a busy rule that is made anew is not restored",
			after: []any{
				commit(list{conn(1, 1000), ext(2, 4)}, list{conn(11, 3), ext(12, 0)}),
				listening(conn(11, 20), ext(12, 0), refusal(3, 5)),
			},
			want: "cluster 1010 external 0 refused 0",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(10)
			r.apply(base)
			r.apply(base)
			for _, s := range tt.after {
				r.take(s)
			}
			if got := total(t, r.Ledger, web); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// take applies a Reading or a Commit.
func (r *rig) take(s any) {
	switch s := s.(type) {
	case Reading:
		r.apply(s)
	case Commit:
		r.apply(Reading{Source: leg}) // another source's rounds do not matter
		r.Commit(s, r.now)
	}
}

func TestPartialReadings(t *testing.T) {
	r := newRig(10)
	shop := svcPort("shop")
	r.know(web, shop)
	all := func(a, b, c uint64) []Counter {
		return []Counter{in("A", conn(1, a)), in("AX", ext(2, b)), of(shop, in("B", conn(3, c)))}
	}
	r.apply(reading(nft, all(5, 2, 7)...))
	r.apply(reading(nft, all(5, 2, 7)...))
	expect := func(when, wantWeb, wantShop string) {
		t.Helper()
		got := []string{total(t, r.Ledger, web), total(t, r.Ledger, shop)}
		if diff := cmp.Diff([]string{wantWeb, wantShop}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
	}
	r.apply(partial(cover("A", "AX"), all(9, 3, 0)[:2]...))
	expect("covered ones are counted", "cluster 3 external 1 refused 0", "cluster 0 external 0 refused 0")
	out := r.apply(partial(cover("A", "AX"), in("A", conn(11, 4)), in("AX", ext(12, 1))))
	expect("missing ones of covered chains are gone", "cluster 6 external 2 refused 0", "cluster 0 external 0 refused 0")
	if since, ok := out.Replaced["nat"]; len(out.Replaced) != 1 || !ok || since.After(r.now) {
		t.Errorf("replaced %v, want nat, since a time that is over", out.Replaced)
	}
	out = r.apply(reading(nft, in("A", conn(11, 4)), in("AX", ext(12, 1)), of(shop, in("B", conn(3, 9)))))
	expect("the rest goes on", "cluster 6 external 2 refused 0", "cluster 2 external 0 refused 0")
	if out.Replaced != nil {
		t.Errorf("replaced %v, want none", out.Replaced)
	}
	if got := len(r.sources[nft].chains); got != 3 {
		t.Errorf("%d chains, want 3", got)
	}
}

func TestChanged(t *testing.T) {
	r := newRig(10)
	shop := svcPort("shop")
	r.know(web, shop)
	read := func(a, b uint64) {
		r.apply(reading(nft, in("A", conn(1, a)), of(shop, in("B", conn(2, b)))))
	}
	read(1, 1)
	read(1, 1)
	names := func(since uint64) (got []string, version uint64) {
		ports, version := r.Changed(since)
		for _, p := range ports {
			got = append(got, p.Port.Service.Name)
		}
		return got, version
	}
	got, v := names(0)
	if len(got) != 2 {
		t.Fatalf("at first %v, want both", got)
	}
	read(1, 1)
	if got, v = names(v); got != nil {
		t.Errorf("without traffic %v, want none", got)
	}
	read(1, 3)
	got, v = names(v)
	if diff := cmp.Diff([]string{"shop"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	r.know(web)
	if got, _ := names(v); got != nil {
		t.Errorf("after a deletion %v, want none", got)
	}
	if _, ok := r.Total(shop); ok {
		t.Error("a port that is gone has a total")
	}
}
