// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	nft   = Source{Backend: "nft", Family: 2}
	leg   = Source{Backend: "legacy", Family: 2}
	web   = svcPort("web")
	ep1   = netip.MustParseAddrPort("10.1.0.1:8080")
	ep2   = netip.MustParseAddrPort("10.1.0.2:8080")
)

func svcPort(name string) Port {
	return Port{Service: Service{Namespace: "default", Name: name}, Protocol: "TCP", Family: 2}
}

func conn(handle, packets uint64) Counter {
	return Counter{ID: ID{Table: "nat", RuleHandle: handle}, Kind: Connection, Port: web, Endpoint: ep1, Packets: packets}
}

func ext(handle, packets uint64) Counter {
	return Counter{ID: ID{Table: "nat", RuleHandle: handle}, Kind: External, Port: web, Packets: packets}
}

func refusal(handle, packets uint64) Counter {
	return Counter{ID: ID{Table: "filter", RuleHandle: handle}, Kind: Refusal, Port: web, Reason: "no_endpoints", Packets: packets}
}

func of(p Port, c Counter) Counter {
	c.Port = p
	return c
}

// reading makes a Reading with the properties that its source has.
func reading(s Source, counters ...Counter) Reading {
	if s == leg {
		counters = digests(counters)
	}
	return Reading{Source: s, Counters: counters, ConnectionsFirst: s == nft, Dips: s == leg}
}

// writing has a reading made while a writer is at work.
func writing(r Reading) Reading {
	r.Writing = map[string]bool{"nat": true, "filter": true}
	return r
}

// digests gives counters the identities of x_tables rules.
func digests(counters []Counter) []Counter {
	counters = slices.Clone(counters)
	for i := range counters {
		id := &counters[i].ID
		*id = ID{Table: id.Table, Digest: [16]byte{byte(id.RuleHandle)}}
	}
	return counters
}

// total is what a port has counted, as a short text.
func total(t *testing.T, l *Ledger, p Port) string {
	t.Helper()
	for pt := range l.Ports() {
		if pt.Port == p {
			return fmt.Sprintf("cluster %d external %d refused %d", pt.Cluster, pt.External, pt.Rejected["no_endpoints"])
		}
	}
	return "none"
}

// rig drives a ledger that knows web.
type rig struct {
	*Ledger
	now time.Time
}

func newRig(maxServices int) *rig {
	r := &rig{Ledger: New(maxServices), now: start}
	r.know(web)
	return r
}

func (r *rig) know(ports ...Port) {
	r.now = r.now.Add(time.Second)
	r.Know(Known{Ports: ports, Complete: true}, r.now)
}

func (r *rig) apply(rd Reading) Outcome {
	r.now = r.now.Add(time.Second)
	return r.Apply(rd, r.now)
}

func TestSequences(t *testing.T) {
	tests := []struct {
		name     string
		readings []Reading // the first two are the baseline
		want     string
		outcome  Outcome // of the last reading
	}{
		{
			name:     "what stood before the start is not counted",
			readings: []Reading{reading(nft, conn(1, 70)), reading(nft, conn(1, 70))},
			want:     "cluster 0 external 0 refused 0",
		},
		{
			name:     "growth is counted by way",
			readings: []Reading{reading(nft, conn(1, 7), ext(2, 3)), reading(nft, conn(1, 7), ext(2, 3)), reading(nft, conn(1, 107), ext(2, 23))},
			want:     "cluster 80 external 20 refused 0",
		},
		{
			name:     "a rule that appears later starts at 0",
			readings: []Reading{reading(nft), reading(nft), reading(nft, conn(1, 5), ext(2, 2))},
			want:     "cluster 3 external 2 refused 0",
		},
		{
			name: "a value that falls under the same nf_tables handle is a reset",
			readings: []Reading{
				reading(nft, conn(1, 7)), reading(nft, conn(1, 7)), reading(nft, conn(1, 10)),
				reading(nft, conn(1, 4)),
			},
			want: "cluster 7 external 0 refused 0",
		},
		{
			name: "a rewritten Service counts on from new handles",
			readings: []Reading{
				reading(nft, conn(1, 7), ext(2, 3)), reading(nft, conn(1, 7), ext(2, 3)),
				reading(nft, conn(1, 17), ext(2, 6)), reading(nft, conn(11, 9), ext(12, 4)),
			},
			want: "cluster 12 external 7 refused 0",
		},
		{
			name: "a re-created table starts its counters at 0",
			readings: []Reading{
				reading(nft, conn(1, 7)), reading(nft, conn(1, 7)),
				reading(nft, Counter{ID: ID{Table: "nat", TableHandle: 9, RuleHandle: 1}, Kind: Connection, Port: web, Packets: 8}),
			},
			want: "cluster 8 external 0 refused 0",
		},
		{
			name: "the dip counts nothing, once or twice",
			readings: []Reading{
				reading(leg, conn(1, 70)), reading(leg, conn(1, 70)), reading(leg, conn(1, 75)),
				reading(leg, conn(1, 0)), reading(leg, conn(1, 76)),
			},
			want: "cluster 6 external 0 refused 0",
		},
		{
			name: "a value that fell is held",
			readings: []Reading{
				reading(leg, conn(1, 70), conn(2, 5)), reading(leg, conn(1, 70), conn(2, 5)),
				reading(leg, conn(1, 75), conn(2, 5)), reading(leg, conn(1, 2), conn(2, 6)),
			},
			want: "cluster 5 external 0 refused 0", outcome: Outcome{Suspect: true},
		},
		{
			name: "a confirmed fall is a reset",
			readings: []Reading{
				reading(leg, conn(1, 70), conn(2, 5)), reading(leg, conn(1, 70), conn(2, 5)),
				reading(leg, conn(1, 75), conn(2, 5)), reading(leg, conn(1, 2), conn(2, 6)), reading(leg, conn(1, 3), conn(2, 6)),
				reading(leg, conn(1, 4), conn(2, 6)),
			},
			want: "cluster 10 external 0 refused 0",
		},
		{
			name: "a writer that waits for a processor within its dip",
			readings: []Reading{
				reading(leg, conn(1, 70), conn(2, 5)), reading(leg, conn(1, 70), conn(2, 5)),
				writing(reading(leg, conn(1, 0), conn(2, 0))), writing(reading(leg, conn(1, 9), conn(2, 6))),
				writing(reading(leg, conn(1, 18), conn(2, 12))), writing(reading(leg, conn(1, 27), conn(2, 18))),
				reading(leg, conn(1, 100), conn(2, 25)),
			},
			want: "cluster 50 external 0 refused 0",
		},
		{
			name: "two dips in a row that empty the table are no reset",
			readings: []Reading{
				reading(leg, conn(1, 70), conn(2, 5)), reading(leg, conn(1, 70), conn(2, 5)),
				reading(leg, conn(1, 0), conn(2, 0)), reading(leg, conn(1, 0), conn(2, 0)), reading(leg, conn(1, 71), conn(2, 5)),
			},
			want: "cluster 1 external 0 refused 0",
		},
		{
			name: "three in a row are",
			readings: []Reading{
				reading(leg, conn(1, 70), conn(2, 5)), reading(leg, conn(1, 70), conn(2, 5)),
				reading(leg, conn(1, 0), conn(2, 0)), reading(leg, conn(1, 1), conn(2, 0)), reading(leg, conn(1, 2), conn(2, 1)),
				reading(leg, conn(1, 3), conn(2, 1)),
			},
			want: "cluster 3 external 0 refused 0",
		},
		{
			name: "a dip at the start does not lower the baseline",
			readings: []Reading{
				reading(leg, conn(1, 0), ext(2, 0)), reading(leg, conn(1, 70), ext(2, 30)),
				reading(leg, conn(1, 73), ext(2, 31)), reading(leg, conn(1, 73), ext(2, 31)),
			},
			want: "cluster 2 external 1 refused 0",
		},
		{
			name: "x_tables connections wait for the externals read after them",
			readings: []Reading{
				reading(leg, conn(1, 0), ext(2, 0)), reading(leg, conn(1, 0), ext(2, 0)),
				reading(leg, conn(1, 10), ext(2, 3)),
			},
			want: "cluster 0 external 3 refused 0", outcome: Outcome{Pending: true},
		},
		{
			name: "and get them from the second reading",
			readings: []Reading{
				reading(leg, conn(1, 0), ext(2, 0)), reading(leg, conn(1, 0), ext(2, 0)),
				reading(leg, conn(1, 10), ext(2, 3)), reading(leg, conn(1, 10), ext(2, 6)),
			},
			want: "cluster 4 external 6 refused 0",
		},
		{
			name: "x_tables ports without external rules wait for nothing",
			readings: []Reading{
				reading(leg, conn(1, 0)), reading(leg, conn(1, 0)),
				reading(leg, conn(1, 10)),
			},
			want: "cluster 10 external 0 refused 0",
		},
		{
			name: "externals that came between the two halves of the baseline are not taken for cluster",
			readings: []Reading{
				reading(nft, conn(1, 5), ext(2, 5)), reading(nft, conn(1, 5), ext(2, 8)),
				reading(nft, conn(1, 8), ext(2, 8)),
			},
			want: "cluster 0 external 0 refused 0",
		},
		{
			name: "externals read ahead of their connections are made up for",
			readings: []Reading{
				reading(nft, conn(1, 0), ext(2, 0)), reading(nft, conn(1, 0), ext(2, 0)),
				reading(nft, conn(1, 10), ext(2, 4)), reading(nft, conn(1, 14), ext(2, 4)),
			},
			want: "cluster 10 external 4 refused 0",
		},
		{
			name: "an external rule reset alone does not make its connections cluster ones",
			readings: []Reading{
				reading(nft, conn(1, 0), ext(2, 0)), reading(nft, conn(1, 0), ext(2, 0)),
				reading(nft, conn(1, 4), ext(2, 4)), reading(nft, conn(1, 9), ext(3, 0)), reading(nft, conn(1, 12), ext(3, 1)),
			},
			want: "cluster 2 external 5 refused 0",
		},
		{
			name: "an x_tables rewrite under load gives each way what is counted after it is seen",
			readings: []Reading{
				reading(leg, conn(1, 9), ext(2, 4), conn(5, 1)), reading(leg, conn(1, 9), ext(2, 4), conn(5, 1)),
				reading(leg, conn(1, 5), ext(2, 2)), reading(leg, conn(1, 5), ext(2, 2)), reading(leg, conn(1, 5), ext(2, 2)),
				reading(leg, conn(1, 5), ext(2, 2)), reading(leg, conn(1, 9), ext(2, 4)), reading(leg, conn(1, 9), ext(2, 4)),
			},
			want: "cluster 2 external 2 refused 0",
		},
		{
			name: "refusals are counted by reason, over rewrites of their chain",
			readings: []Reading{
				reading(nft, refusal(1, 3)), reading(nft, refusal(1, 3)), reading(nft, refusal(1, 5)),
				reading(nft, refusal(9, 4)),
			},
			want: "cluster 0 external 0 refused 6",
		},
		{
			name: "a source that is gone and comes back starts at 0",
			readings: []Reading{
				reading(leg, conn(1, 3)), reading(leg, conn(1, 3)), reading(leg, conn(1, 5)),
				reading(leg), reading(leg, conn(1, 4)),
			},
			want: "cluster 6 external 0 refused 0",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(10)
			var got Outcome
			for _, rd := range tt.readings {
				got = r.apply(rd)
			}
			if diff := cmp.Diff(tt.want, total(t, r.Ledger, web)); diff != "" {
				t.Errorf("totals (-want +got):\n%s", diff)
			}
			got.Replaced = nil
			if diff := cmp.Diff(tt.outcome, got); len(tt.readings) > 2 && diff != "" {
				t.Errorf("outcome (-want +got):\n%s", diff)
			}
		})
	}
}

func TestBaselineTakesTwoReadings(t *testing.T) {
	for _, s := range []Source{nft, leg} {
		r := newRig(10)
		if got := r.apply(reading(s, conn(1, 4))); !got.Suspect || r.Counting() {
			t.Errorf("%s: after one reading: suspect %v, counting %v; want another reading", s.Backend, got.Suspect, r.Counting())
		}
		if got := r.apply(reading(s, conn(1, 4))); got.Suspect || !r.Baselined(s) {
			t.Errorf("%s: after two readings: suspect %v, baselined %v", s.Backend, got.Suspect, r.Baselined(s))
		}
	}
}

func TestBackendsAreSummed(t *testing.T) {
	r := newRig(10)
	for _, n := range []uint64{5, 5, 8} {
		r.apply(reading(nft, conn(1, n)))
		r.apply(reading(leg, conn(1, 2*n)))
	}
	if got, want := total(t, r.Ledger, web), "cluster 9 external 0 refused 0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestEndpointsFollowTheRules(t *testing.T) {
	r := newRig(10)
	second := conn(2, 0)
	second.Endpoint = ep2
	r.apply(reading(nft, conn(1, 1), second))
	r.apply(reading(nft, conn(1, 1), second))
	second.Packets = 3
	r.apply(reading(nft, conn(1, 5), second))
	if diff := cmp.Diff(map[netip.AddrPort]uint64{ep1: 4, ep2: 3}, endpoints(r)); diff != "" {
		t.Errorf("endpoints (-want +got):\n%s", diff)
	}
	r.apply(reading(nft, conn(1, 6)))
	if diff := cmp.Diff(map[netip.AddrPort]uint64{ep1: 5}, endpoints(r)); diff != "" {
		t.Errorf("after one is gone (-want +got):\n%s", diff)
	}
}

// TestEndpointsOutliveACommit has the rules removed by one commit and written
// again by the next, with no reading in between.
func TestEndpointsOutliveACommit(t *testing.T) {
	r := newRig(10)
	r.apply(reading(nft, conn(1, 1)))
	r.apply(reading(nft, conn(1, 1)))
	r.Commit(commit([]Counter{conn(1, 8)}, nil), r.now)
	r.Commit(commit(nil, []Counter{conn(11, 0)}), r.now)
	r.apply(listening(conn(11, 2)))
	if diff := cmp.Diff(map[netip.AddrPort]uint64{ep1: 9}, endpoints(r)); diff != "" {
		t.Errorf("endpoints (-want +got):\n%s", diff)
	}
	r.Commit(commit([]Counter{conn(11, 4)}, nil), r.now)
	r.apply(listening())
	if got := endpoints(r); len(got) != 0 {
		t.Errorf("after a reading without it: %v", got)
	}
}

func endpoints(r *rig) map[netip.AddrPort]uint64 {
	got := make(map[netip.AddrPort]uint64)
	for p := range r.Ports() {
		for _, e := range p.Endpoints {
			got[e.Addr] += e.Connections
		}
	}
	return got
}

func TestMemoryIsBounded(t *testing.T) {
	r := newRig(10)
	for i := range uint64(1000) {
		r.apply(reading(nft, conn(2*i, 1), ext(2*i+1, 1)))
	}
	r.apply(reading(nft))
	src := r.sources[nft]
	if len(src.chains) != 0 || len(src.accounts) != 0 || len(endpoints(r)) != 0 {
		t.Errorf("%d chains, %d accounts and %d endpoints are kept of rules that are gone",
			len(src.chains), len(src.accounts), len(endpoints(r)))
	}
}
