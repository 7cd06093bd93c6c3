// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// start is when tests begin.
var start = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }

var shop = service.PortName{Name: service.Name{Namespace: "shop", Name: "web"}, Port: "http", Protocol: service.TCP}

// What readings find.
var (
	endpointMissing = Difference{Port: shop, Family: netfilter.IPv4, Kind: MissingEndpoint, Detail: "10.0.0.1:80", InFlight: true}
	chainEmpty      = Difference{Port: shop, Family: netfilter.IPv4, Kind: EmptyChain, Detail: "KUBE-SVC-X"}
	jumpGone        = Difference{Family: netfilter.IPv4, Kind: JumpMissing, Detail: "nat PREROUTING → KUBE-SERVICES"}
	bothModes       = Difference{Family: netfilter.IPv4, Kind: TwoModes, Detail: "iptables and nftables"}
)

// look is one reading of a test.
type look struct {
	at      float64
	found   []Difference
	changed bool    // the catalog of the reading wants something else of shop
	told    float64 // when the API told of that; 0: at the reading
	commits []Commit
	away    bool // the API is not followed
	nobody  bool // kube-proxy is not recognised
	want    string
}

// commit is one between two times.
func commit(after, seen float64) Commit {
	return Commit{Family: netfilter.IPv4, After: at(after), Seen: at(seen)}
}

// half is one of filter alone.
func half(after, seen float64) Commit {
	c := commit(after, seen)
	c.Half = true
	return c
}

// foreign is one of a backend that kube-proxy is not taken to write.
func foreign(after, seen float64) Commit {
	c := commit(after, seen)
	c.Backend = ruleset.Legacy
	return c
}

// reading is what the Judge gets.
func (l *look) reading() *Reading {
	r := &Reading{Time: at(l.at), Current: !l.away, Commits: l.commits, Result: &Result{Differences: l.found}}
	if !l.nobody {
		r.Result.Families = []netfilter.Family{netfilter.IPv4}
		r.Result.Backends = map[netfilter.Family]ruleset.Backend{netfilter.IPv4: ruleset.NFT}
	}
	if l.changed {
		r.Result.Changed = []PortFamily{{shop, netfilter.IPv4}}
	}
	told := l.told
	r.ChangedAt = func(service.Name) time.Time {
		if told == 0 {
			return time.Time{}
		}
		return at(told)
	}
	return r
}

// say is a verdict in short: kinds that are drift with the second since when, what began
// (+) and ended (-), and why nothing is known (?).
func say(v *Verdict) string {
	var out []string
	list := func(mark string, ds []Drift) {
		for _, d := range ds {
			out = append(out, fmt.Sprintf("%s%s@%g", mark, d.Kind, d.Since.Sub(start).Seconds()))
		}
	}
	list("", v.Drifts)
	list("+", v.Began)
	list("-", v.Ended)
	if v.Unknown != "" {
		out = append(out, "?"+string(v.Unknown))
	}
	return strings.Join(out, " ")
}

func TestJudge(t *testing.T) {
	missing, empty, gone := []Difference{endpointMissing}, []Difference{chainEmpty}, []Difference{jumpGone}
	tests := []struct {
		name  string
		looks []look
	}{
		{"a flush needs two readings", []look{
			{at: 0},
			{at: 15, found: gone},
			{at: 30, found: gone, want: "jump_missing@15 +jump_missing@15"},
			{at: 45, found: gone, want: "jump_missing@15"},
			{at: 60, want: "-jump_missing@15"},
			{at: 75},
		}},
		{"two modes, so that none is recognised", []look{
			{at: 0, found: missing},
			{at: 15, found: []Difference{bothModes}, nobody: true, want: "?mode"},
			{at: 30, found: []Difference{bothModes}, nobody: true, want: "two_modes@15 +two_modes@15 ?mode"},
			{at: 45, found: []Difference{bothModes}, nobody: true, away: true, want: "two_modes@15 ?mode"},
			{at: 60, nobody: true, want: "-two_modes@15 ?mode"},
			{at: 75},
		}},
		{"rules of the backend that kube-proxy does not write", []look{
			{at: 0},
			{at: 15, found: missing, changed: true},
			{at: 30, found: missing, commits: []Commit{foreign(15, 30)}},
			{at: 45, found: missing, commits: []Commit{foreign(30, 45)}},
			{at: 75, found: missing, want: "not_syncing@15 +not_syncing@15"},
		}},
		{"one reading is nothing", []look{
			{at: 0}, {at: 15, found: gone}, {at: 30}, {at: 45, found: gone}, {at: 60},
		}},
		{"a chain that is empty needs two readings, whatever the API changes", []look{
			{at: 0},
			{at: 15, found: empty, changed: true},
			{at: 30, found: empty, changed: true, want: "empty_chain@15 +empty_chain@15"},
		}},
		{"an edit without a change of the API needs two readings", []look{
			{at: 0},
			{at: 15, found: missing},
			{at: 30, found: missing, want: "missing_endpoint@15 +missing_endpoint@15"},
			{at: 45, want: "-missing_endpoint@15"},
		}},
		{"an edit waits while readings follow each other", []look{
			{at: 0}, {at: 15, found: missing}, {at: 15.5, found: missing}, {at: 16.9, found: missing},
			{at: 17, found: missing, want: "missing_endpoint@15 +missing_endpoint@15"},
		}},
		{"what comes with a commit may be known to kube-proxy first", []look{
			{at: 0},
			{at: 5, found: missing, commits: []Commit{commit(0, 5)}},
			{at: 10, found: missing},
			{at: 15, found: missing, want: "missing_endpoint@5 +missing_endpoint@5"},
		}},
		{"and the API's news comes", []look{
			{at: 0},
			{at: 5, found: missing, commits: []Commit{commit(0, 5)}},
			{at: 8, changed: true},
			{at: 20},
		}},
		{"two commits after a change", []look{
			{at: 0},
			{at: 15, found: missing, changed: true, told: 14},
			{at: 20, found: missing, commits: []Commit{commit(16, 16)}},
			{at: 23.9, found: missing, commits: []Commit{commit(18, 18)}},
			{at: 24, found: missing, want: "missing_endpoint@15 +missing_endpoint@15"},
		}},
		{"of a commit that may have come before the change nothing is known", []look{
			{at: 0},
			{at: 15, found: missing, changed: true, told: 14, commits: []Commit{commit(0, 15)}},
			{at: 30, found: missing},
			{at: 45, found: missing},
			{at: 60, found: missing, commits: []Commit{commit(45, 60)}},
			{at: 75, found: missing, commits: []Commit{commit(60, 75)}, want: "missing_endpoint@15 +missing_endpoint@15"},
		}},
		{"one commit after a change, and then quiet", []look{
			{at: 0},
			{at: 15, found: missing, changed: true, told: 14},
			{at: 18, found: missing, commits: []Commit{commit(16, 16)}},
			{at: 26, found: missing}, // it may be at work on the next one
			{at: 135.9, found: missing},
			{at: 136, found: missing, want: "missing_endpoint@15 +missing_endpoint@15"},
		}},
		{"after a time without syncs the first commit may be of before", []look{
			{at: 0},
			{at: 15, found: missing, changed: true, told: 14},
			{at: 75, found: missing, want: "not_syncing@14 +not_syncing@14"},
			{at: 90, found: missing, commits: []Commit{commit(84, 90)}, want: "-not_syncing@14"},
			{at: 215, found: missing},
			{at: 230, found: missing, want: "missing_endpoint@15 +missing_endpoint@15"},
		}},
		{"kube-proxy may be slow: then one commit says less", []look{
			{at: 0},
			{at: 15, commits: []Commit{half(0, 15)}},
			{at: 95, commits: []Commit{commit(95, 95)}}, // it took 80 s, of which three quarters count after the next one
			{at: 115, found: missing, changed: true, told: 114},
			{at: 118, found: missing, commits: []Commit{commit(116, 116)}},
			{at: 415, found: missing},
			{at: 416, found: missing, want: "missing_endpoint@115 +missing_endpoint@115"},
		}},
		{"a change that kube-proxy does not write", []look{
			{at: 0},
			{at: 15, found: missing, changed: true, told: 14},
			{at: 73.9, found: missing},
			{at: 74, found: missing, want: "not_syncing@14 +not_syncing@14"},
			{at: 75, found: slices.Concat(missing, gone), want: "not_syncing@14"},
			{at: 90, found: slices.Concat(missing, gone), want: "jump_missing@75 not_syncing@14 +jump_missing@75"},
			{at: 105, commits: []Commit{commit(90, 105)}, want: "-jump_missing@75 -not_syncing@14"},
		}},
		{"endpoints that come and go wait all the same", []look{
			{at: 0},
			{at: 15, found: missing, changed: true},
			{at: 30, found: []Difference{{Port: shop, Family: netfilter.IPv4, Kind: ExtraEndpoint, Detail: "10.0.0.2:80", InFlight: true}}, changed: true},
			{at: 45, found: missing, changed: true},
			{at: 60, found: []Difference{{Port: shop, Family: netfilter.IPv4, Kind: ExtraEndpoint, Detail: "10.0.0.3:80", InFlight: true}}, changed: true},
			{at: 75, found: missing, changed: true, want: "not_syncing@15 +not_syncing@15"},
		}},
		{"not syncing takes longer where syncs do", []look{
			{at: 0},
			{at: 15, commits: []Commit{half(0, 15)}},
			{at: 45, commits: []Commit{commit(45, 45)}}, // it took half a minute
			{at: 60, found: missing, changed: true},
			{at: 209.9, found: missing},
			{at: 210, found: missing, want: "not_syncing@60 +not_syncing@60"},
		}},
		{"drift of a Service is withheld while kube-proxy does not sync, and has not ended", []look{
			{at: 0},
			{at: 15, found: missing},
			{at: 30, found: missing, want: "missing_endpoint@15 +missing_endpoint@15"},
			{at: 45, found: missing, changed: true, want: "missing_endpoint@15"},
			{at: 105, found: missing, want: "not_syncing@45 +not_syncing@45"},
			{at: 120, found: missing, commits: []Commit{commit(119, 119)}, want: "missing_endpoint@15 -not_syncing@45"},
			{at: 135, want: "-missing_endpoint@15"},
		}},
		{"without the API only the node's chains are judged", []look{
			{at: 0},
			{at: 15, found: missing},
			{at: 30, found: missing, want: "missing_endpoint@15 +missing_endpoint@15"},
			{at: 45, found: slices.Concat(missing, gone), away: true, want: "?api"},
			{at: 60, found: slices.Concat(missing, gone), away: true, want: "jump_missing@45 +jump_missing@45 ?api"},
			{at: 75, found: gone, want: "jump_missing@45 -missing_endpoint@15"},
		}},
		{"what the API has changed meanwhile counts from its return", []look{
			{at: 0},
			{at: 15, away: true, want: "?api"},
			{at: 300, found: missing, changed: true, away: true, want: "?api"},
			{at: 315, found: missing},
			{at: 330, found: missing},
			{at: 374, found: missing},
			{at: 375, found: missing, want: "not_syncing@315 +not_syncing@315"},
		}},
		{"nobody is judged who is not there", []look{
			{at: 0, nobody: true, want: "?mode"},
			{at: 15, nobody: true, want: "?mode"},
			{at: 30, found: missing},
			{at: 45, found: missing},
		}},
		{"in the middle of a sync nothing is told of Services", []look{
			{at: 0},
			{at: 15, found: missing, commits: []Commit{half(0, 15)}},
			{at: 30, found: missing},
			{at: 45, found: missing},
			{at: 50, found: missing, commits: []Commit{commit(45, 50)}}, // it took half a minute at least
			{at: 74, found: missing},
			{at: 75, found: missing, want: "missing_endpoint@15 +missing_endpoint@15"},
		}},
		{"but a sync that does not end is no excuse", []look{
			{at: 0},
			{at: 15, found: missing, commits: []Commit{half(0, 15)}},
			{at: 74, found: missing},
			{at: 75, found: missing, want: "missing_endpoint@15 +missing_endpoint@15"},
		}},
		{"rules that come after a change was known are of another one, maybe", []look{
			{at: 0},
			{at: 15, found: []Difference{{Port: shop, Family: netfilter.IPv4, Kind: RejectingWithEndpoints, InFlight: true}}, changed: true, told: 14},
			{at: 30, found: missing, commits: []Commit{commit(15, 30)}},
			{at: 40, found: missing},
			{at: 149, found: missing},
			{at: 150, found: missing, want: "missing_endpoint@30 +missing_endpoint@30"},
		}},
		{"what was there at the start waits for commits", []look{
			{at: 0, found: missing},
			{at: 15, found: missing},
			{at: 30, found: missing, commits: []Commit{commit(15, 30)}},
			{at: 45, found: missing, commits: []Commit{commit(30, 45)}, want: "missing_endpoint@0 +missing_endpoint@0"},
		}},
		{"or for one, and nothing for long", []look{
			{at: 0, found: missing},
			{at: 30, found: missing, commits: []Commit{commit(15, 30)}},
			{at: 149, found: missing},
			{at: 150, found: missing, want: "missing_endpoint@0 +missing_endpoint@0"},
		}},
		{"an edit soon after a change: rules of before may come, and a restore may have failed", []look{
			{at: 0, changed: true, told: 0},
			{at: 15, changed: true, told: 14, commits: []Commit{commit(14, 15)}},
			{at: 18, found: missing, told: 14, commits: []Commit{commit(17, 18)}},
			{at: 30, found: missing, told: 14},
			{at: 62.9, found: missing, told: 14},
			{at: 63, found: missing, told: 14, want: "missing_endpoint@18 +missing_endpoint@18"},
		}},
		{"in x_tables an edit looks like a sync", []look{
			{at: 0, changed: true, told: 0},
			{at: 15, changed: true, told: 14, commits: []Commit{commit(14, 15)}},
			{at: 18, found: missing, told: 14, commits: []Commit{{Family: netfilter.IPv4, Backend: ruleset.Legacy, After: at(17), Seen: at(18)}}},
			{at: 27.9, found: missing, told: 14},
			{at: 28, found: missing, told: 14, want: "missing_endpoint@18 +missing_endpoint@18"},
		}},
		{"unless kube-proxy has written nothing", []look{
			{at: 0, changed: true, told: 0},
			{at: 15, changed: true, told: 14, commits: []Commit{commit(14, 15)}},
			{at: 18, found: missing, told: 14},
			{at: 27.9, found: missing, told: 14},
			{at: 28, found: missing, told: 14, want: "missing_endpoint@18 +missing_endpoint@18"},
		}},
		{"or for nothing to happen for long", []look{
			{at: 0, found: missing}, {at: 15, found: missing}, {at: 119, found: missing},
			{at: 120, found: missing, want: "missing_endpoint@0 +missing_endpoint@0"},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j := NewJudge(0)
			for i := range tt.looks {
				if diff := cmp.Diff(tt.looks[i].want, say(j.Judge(tt.looks[i].reading()))); diff != "" {
					t.Errorf("at %g s (-want +got)\n%s", tt.looks[i].at, diff)
				}
			}
		})
	}
}

// TestGraceIsAFlag: the flag's value counts.
func TestGraceIsAFlag(t *testing.T) {
	j := NewJudge(30 * time.Second)
	looks := []look{
		{at: 0},
		{at: 15, found: []Difference{endpointMissing}, changed: true},
		{at: 20, found: []Difference{endpointMissing}, commits: []Commit{commit(17, 18), commit(18, 19)}},
		{at: 44.9, found: []Difference{endpointMissing}},
		{at: 45, found: []Difference{endpointMissing}, want: "missing_endpoint@15 +missing_endpoint@15"},
	}
	for i := range looks {
		if diff := cmp.Diff(looks[i].want, say(j.Judge(looks[i].reading()))); diff != "" {
			t.Errorf("at %g s (-want +got)\n%s", looks[i].at, diff)
		}
	}
}

// TestWaiting tells since when a change waits.
func TestWaiting(t *testing.T) {
	j := NewJudge(0)
	looks := []look{
		{at: 0}, {at: 15, found: []Difference{endpointMissing}, changed: true, told: 14},
		{at: 30, found: []Difference{endpointMissing}}, {at: 45, commits: []Commit{commit(30, 45)}},
	}
	want := []float64{-1, 14, 14, -1}
	for i := range looks {
		v := j.Judge(looks[i].reading())
		got := -1.0
		if since, ok := v.Waiting[netfilter.IPv4]; ok {
			got = since.Sub(start).Seconds()
		}
		if got != want[i] {
			t.Errorf("at %g s: got %g, want %g", looks[i].at, got, want[i])
		}
	}
}
