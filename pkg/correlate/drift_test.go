// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/svcscope/svcscope/pkg/drift"
	"github.com/svcscope/svcscope/pkg/internal/iptsave"
	"github.com/svcscope/svcscope/pkg/internal/realcluster"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/service"
)

func driftPort(name string) service.PortName {
	return service.PortName{Name: service.Name{Namespace: "shop", Name: name}, Port: "http", Protocol: service.TCP}
}

func drifted(name string, kind drift.Kind, detail string) drift.Drift {
	return drift.Drift{Difference: drift.Difference{Port: driftPort(name), Family: netfilter.IPv4, Kind: kind, Detail: detail}}
}

// TestDriftIsOfServices counts Services, not what is wrong with them; kinds without any are 0.
func TestDriftIsOfServices(t *testing.T) {
	node := drift.Drift{Difference: drift.Difference{Family: netfilter.IPv4, Kind: drift.JumpMissing, Detail: "nat"}}
	v := &drift.Verdict{
		Drifts:  []drift.Drift{node, drifted("a", drift.MissingEndpoint, "1"), drifted("a", drift.MissingEndpoint, "2"), drifted("b", drift.MissingEndpoint, "1")},
		Waiting: map[netfilter.Family]time.Time{netfilter.IPv4: time.Unix(5, 0)},
	}
	waits := drift.Difference{Port: driftPort("c"), Family: netfilter.IPv4, Kind: drift.ExtraEndpoint}
	r := &drift.Result{Families: []netfilter.Family{netfilter.IPv4}, Differences: []drift.Difference{node.Difference, v.Drifts[1].Difference, waits}}
	last := map[netfilter.Family]time.Time{netfilter.IPv4: time.Unix(3, 0)}
	d := NewDrift(v, r, last, func(n service.Name) bool { return n.Name == "a" })
	if len(d.Pending) != 1 || d.Pending[0] != waits {
		t.Errorf("pending %v, want the one that is no drift", d.Pending)
	}
	if len(d.Named) != 2 || d.Named[0].Port.Name.Name != "a" || d.Named[1].Port.Name.Name != "b" {
		t.Errorf("named %v, want one series of each", d.Named)
	}
	if p := d.Proxies; len(p) != 1 || !p[0].LastCommit.Equal(time.Unix(3, 0)) || !p[0].Waiting.Equal(time.Unix(5, 0)) {
		t.Errorf("kube-proxy %v", p)
	}
	for _, c := range d.Counts() {
		want := 0
		switch {
		case c.OfNode && c.Kind == drift.JumpMissing:
			want = 1
		case !c.OfNode && c.Kind == drift.MissingEndpoint:
			want = 2
		}
		if c.Count != want || c.Family != netfilter.IPv4 {
			t.Errorf("%+v, want %d", c, want)
		}
	}
	if got, want := len(d.Counts()), len(drift.NodeKinds())+len(drift.ServiceKinds()); got != want {
		t.Errorf("%d counts, want %d", got, want)
	}
	d.Unknown = drift.APIUnknown
	if got, want := len(d.Counts()), len(drift.NodeKinds())-2; got != want {
		t.Errorf("%d counts without the API, want the node's %d: two kinds are told by the API, too", got, want)
	}
}

// TestOneCausePends: what many Services lack of a chain that was emptied waits as one difference, and is
// no second one when it is told.
func TestOneCausePends(t *testing.T) {
	r := realcluster.All()[0]
	text, err := r.Text()
	if err != nil {
		t.Fatal(err)
	}
	_, nat, _ := strings.Cut(text, "*nat")
	rules := strings.TrimSuffix(text, nat) + regexp.MustCompile(`(?m)^.*-A KUBE-NODEPORTS .*\n`).ReplaceAllString(nat, "")
	set, err := iptsave.Parse(r.Family, r.Backend, rules)
	if err != nil {
		t.Fatal(err)
	}
	catalog, err := realcluster.Catalog()
	if err != nil {
		t.Fatal(err)
	}
	result := drift.Compare(&drift.Input{Catalog: catalog, Rules: []drift.Rules{{View: kubeproxy.NewView(set), Set: set}}})
	if len(result.Differences) < 2 {
		t.Fatalf("got %v", result.Differences)
	}
	own := func(service.Name) bool { return true }
	waits := NewDrift(&drift.Verdict{}, result, nil, own).Pending
	if len(waits) != 1 || waits[0].Kind != drift.EmptyChain || !waits[0].OfNode() {
		t.Fatalf("pending %v, want the chain alone", waits)
	}
	told := NewDrift(&drift.Verdict{Drifts: []drift.Drift{{Difference: waits[0]}}}, result, nil, own)
	if len(told.Pending) > 0 {
		t.Errorf("pending beside the drift %v", told.Pending)
	}
}

// TestForeignDriftIsBounded: rules of many Services that have no series are named up to a number.
func TestForeignDriftIsBounded(t *testing.T) {
	v := &drift.Verdict{}
	for i := range maxForeign + 20 {
		v.Drifts = append(v.Drifts, drifted(fmt.Sprintf("s%03d", i), drift.ExtraDispatch, ""))
	}
	d := NewDrift(v, &drift.Result{}, nil, func(service.Name) bool { return false })
	if len(d.Named) != maxForeign+1 || d.Named[0].Port.Name.Name != OtherServices {
		t.Errorf("%d series, the first one of %s", len(d.Named), d.Named[0].Port.Name.Name)
	}
}

// TestConfirm: what differs at two readings is drift since the first one.
func TestConfirm(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	report := func(details ...string) DriftReport {
		s := &Snapshot{Time: at, Drift: &Drift{}}
		for _, d := range details {
			s.Drift.Pending = append(s.Drift.Pending, drifted("web", drift.MissingEndpoint, d).Difference)
		}
		return NewDriftReport(s)
	}
	first, second := report("a", "b"), report("b", "c")
	second.Confirm(&first)
	if len(second.Items) != 1 || second.Items[0].Detail != "b" || !second.Items[0].Since.Equal(at) || second.Items[0].Remedy == "" {
		t.Errorf("drift %+v, want b since the first reading", second.Items)
	}
	if len(second.Pending) != 1 || second.Pending[0].Detail != "c" {
		t.Errorf("pending %+v, want c", second.Pending)
	}
	if none := NewDriftReport(&Snapshot{}); none.Unknown != RulesUnread {
		t.Errorf("unknown %q before rules were compared", none.Unknown)
	}
}

// TestTwoModesAreCounted: kube-proxy is not recognised in the family then.
func TestTwoModesAreCounted(t *testing.T) {
	both := drift.Drift{Difference: drift.Difference{Family: netfilter.IPv4, Kind: drift.TwoModes, Detail: "iptables and nftables"}}
	result := &drift.Result{Differences: []drift.Difference{both.Difference}, Families: []netfilter.Family{netfilter.IPv6}}
	d := NewDrift(&drift.Verdict{Drifts: []drift.Drift{both}}, result, nil, func(service.Name) bool { return true })
	counts := d.Counts()
	if got, want := counts[0], (DriftCount{drift.TwoModes, netfilter.IPv4, true, 1}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if n := len(drift.NodeKinds()) + len(drift.ServiceKinds()); len(counts) != 1+n {
		t.Errorf("%d counts, want 1 and %d of IPv6", len(counts), n)
	}
	if i := slices.IndexFunc(counts[1:], func(c DriftCount) bool { return c.Family != netfilter.IPv6 || c.Count != 0 }); i >= 0 {
		t.Errorf("%+v is counted, too", counts[1+i])
	}
}
