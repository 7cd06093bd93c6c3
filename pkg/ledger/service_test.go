// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// knowUID tells the ledger web's UID; an empty one that web is gone.
func (r *rig) knowUID(uid string) {
	r.now = r.now.Add(time.Second)
	k := Known{Complete: true, UIDs: map[Service]string{web.Service: uid}}
	if uid != "" {
		k.Ports = []Port{web}
	}
	r.Know(k, r.now)
}

func TestServicesThatComeBack(t *testing.T) {
	tests := []struct {
		name   string
		after  func(*rig)
		want   string
		anew   bool
		absent bool
	}{
		{name: "one that stays", after: func(r *rig) { r.knowUID("a") }, want: "cluster 5 external 0 refused 0"},
		{name: "one that is gone", after: func(r *rig) { r.knowUID("") }, want: "none", absent: true},
		{
			name:  "the same one, within the grace",
			after: func(r *rig) { r.knowUID(""); r.now = r.now.Add(grace - 3*time.Second); r.knowUID("a") },
			want:  "cluster 5 external 0 refused 0",
		},
		{
			name:  "the same one, after the grace",
			after: func(r *rig) { r.knowUID(""); r.now = r.now.Add(grace); r.knowUID("a") },
			want:  "cluster 0 external 0 refused 0", anew: true,
		},
		{
			name:  "another one",
			after: func(r *rig) { r.knowUID(""); r.knowUID("b") },
			want:  "cluster 0 external 0 refused 0", anew: true,
		},
		{
			name:  "another one, at once",
			after: func(r *rig) { r.knowUID("b") },
			want:  "cluster 0 external 0 refused 0", anew: true,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(10)
			r.knowUID("a")
			for _, v := range []uint64{10, 10, 15} {
				r.apply(reading(nft, conn(1, v)))
			}
			before, _ := r.Total(web)
			tt.after(r)
			if got := total(t, r.Ledger, web); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if got, ok := r.Total(web); ok && got.Created.Equal(before.Created) == tt.anew {
				t.Errorf("created %v, before %v; want another series: %v", got.Created, before.Created, tt.anew)
			}
			// What was counted before, and between, does not go to another one.
			r.apply(reading(nft, conn(1, 17)))
			r.apply(reading(nft, conn(1, 20)))
			got, _ := r.Total(web)
			want := uint64(3)
			switch {
			case tt.absent:
				want = 0
			case !tt.anew:
				want = 10
			}
			if got.Cluster != want {
				t.Errorf("later %d, want %d", got.Cluster, want)
			}
		})
	}
}

func TestPacketsBeforeTheServiceIsKnown(t *testing.T) {
	r := newRig(10)
	late := svcPort("late")
	r.apply(reading(nft))
	r.apply(reading(nft))
	unnamed := func(c Counter) Counter {
		c.Port, c.Group = Port{}, "HASH"
		return c
	}
	named := of(late, conn(9, 7))
	r.Commit(commit([]Counter{of(late, conn(1, 9)), of(late, ext(2, 4)), of(late, refusal(3, 2))}, nil), r.now)
	r.Commit(commit([]Counter{unnamed(conn(4, 30)), unnamed(ext(5, 10))}, []Counter{unnamed(conn(9, 0))}), r.now)
	r.know(web, late)
	if got, want := total(t, r.Ledger, late), "cluster 5 external 4 refused 2"; got != want {
		t.Errorf("by the port's name %s, want %s", got, want)
	}
	named.Group = "HASH"
	r.apply(listening(named))
	if got, want := total(t, r.Ledger, late), "cluster 32 external 14 refused 2"; got != want {
		t.Errorf("and by its chains' %s, want %s", got, want)
	}
	if got := len(r.sources[nft].debts); got != 0 {
		t.Errorf("%d debts are left", got)
	}
}

func TestDebtsAreBounded(t *testing.T) {
	r := newRig(10)
	r.apply(reading(nft))
	r.apply(reading(nft))
	ports, counters := many(5000)
	for i := range counters {
		counters[i].Packets = 1
	}
	r.Commit(commit(counters, nil), r.now)
	if got := len(r.sources[nft].debts); got != maxDebts {
		t.Errorf("%d debts, want %d", got, maxDebts)
	}
	r.now = r.now.Add(grace)
	r.know(web)
	if got := len(r.sources[nft].debts); got != 0 {
		t.Errorf("%d debts after the grace", got)
	}
	r.know(ports...)
	for _, o := range r.Others() {
		if o.Cluster+o.External > 0 {
			t.Errorf("%+v of debts that are too old", o)
		}
	}
}

// TestManyServicesComeAndGo creates and deletes 10,000 Services, with rules
// and traffic, and looks at what is left.
func TestManyServicesComeAndGo(t *testing.T) {
	r := newRig(500)
	r.apply(reading(nft))
	r.apply(reading(nft))
	cycle := func() {
		ports, counters := many(10000)
		r.know(ports...)
		r.apply(reading(nft, counters...))
		for i := range counters {
			counters[i].Packets = 3
		}
		r.apply(reading(nft, counters...))
		r.know()
		r.apply(reading(nft))
		r.now = r.now.Add(grace)
		r.know()
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	cycle()
	before := heap()
	for range 3 {
		cycle()
	}
	src := r.sources[nft]
	type left struct{ services, members, gone, recent, chains, accounts, debts int }
	got := left{len(r.services), r.members, len(r.gone), r.recent.Len(), len(src.chains), len(src.accounts), len(src.debts)}
	if diff := cmp.Diff(left{}, got, cmp.AllowUnexported(left{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// One Service with its five counters takes about 2 KiB.
	if after := heap(); after > before+4<<20 {
		t.Errorf("the heap grew from %d to %d KiB", before>>10, after>>10)
	}
	runtime.KeepAlive(r)
}
