// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/ledger"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// randomNode is a node whose rules, API and traffic change at random.
type randomNode struct {
	t       *testing.T
	rand    *rand.Rand
	ledger  *ledger.Ledger
	names   *Names
	rules   []Rules
	packets [4]int // as the arguments of save
	text    func(string) string
	in      Inputs
	now     time.Time
}

// step changes one thing.
func (n *randomNode) step() {
	n.now = n.now.Add(time.Duration(n.rand.IntN(240)) * time.Second) // the ledger forgets after minutes
	switch n.rand.IntN(8) {
	case 0: // other rules
		gone := []string{"shop/ghost has no endpoints", "shop/web:http external IP", "shop/web:http -> 10.244.0.3:8080", "nothing"}
		without := gone[n.rand.IntN(len(gone))]
		n.text = func(s string) string {
			var b strings.Builder
			for line := range strings.Lines(s) {
				if !strings.Contains(line, without) {
					b.WriteString(line)
				}
			}
			return b.String()
		}
		n.rules = nil
	case 1: // another API, or none
		c := catalog()
		switch n.rand.IntN(5) {
		case 0:
			c = nil
		case 1:
			c.Services = c.Services[1:]
		case 2:
			c.Endpoints[web] = c.Endpoints[web][:1]
		case 3:
			c.Services[1].InternalLocal = true // its endpoints depend on the node
		}
		n.names = NewNames(c, nil)
	case 2: // the same names
		same := *n.names
		n.names = &same
	case 3:
		n.in.Unread = bothFamilies()[:n.rand.IntN(2)]
	case 4:
		n.in.Kube.NodeMissing = n.rand.IntN(2) == 0
	default: // traffic
		for i := range n.packets {
			n.packets[i] += n.rand.IntN(3)
		}
	}
	n.read()
}

// read gives the ledger a reading. The view is a new one only where the rules
// are: counters alone leave it as it is.
func (n *randomNode) read() {
	rs := parse(n.t, ruleset.NFT, n.text(save(n.packets[0], n.packets[1], n.packets[2], n.packets[3])))
	fresh := NewRules(rs)
	if n.rules == nil {
		n.rules = []Rules{fresh}
	}
	n.ledger.Know(KnownPorts([]Rules{fresh}, n.names), n.now)
	n.ledger.Apply(Reading(rs, fresh.View, n.names), n.now)
	n.in.Names, n.in.Rules, n.in.Ledger = n.names, n.rules, n.ledger
}

// TestBuilderMakesWhatBuildMakes goes on for long enough that every change
// meets every state.
func TestBuilderMakesWhatBuildMakes(t *testing.T) {
	for seed := range uint64(20) {
		n := &randomNode{
			t: t, rand: rand.New(rand.NewPCG(seed, 1)), ledger: ledger.New(1 + int(seed%3)*2),
			names: NewNames(nil, nil), text: func(s string) string { return s }, now: at,
		}
		n.read()
		n.in.Self.SeriesLimit = 1 + int(seed%3)*2
		b := &Builder{}
		var last *Snapshot
		var lastRows []ServicePort
		for range 200 {
			n.step()
			got, want := b.Build(n.in, n.now), Build(n.in, n.now)
			if diff := cmp.Diff(want, got, addrs); diff != "" {
				t.Fatalf("seed %d (-Build +Builder):\n%s", seed, diff)
			}
			if last != nil {
				checkLast(t, last, lastRows, got)
			}
			last, lastRows = got, nil
			for _, p := range got.Services {
				lastRows = append(lastRows, clone(p))
			}
		}
	}
}

func clone(p *ServicePort) ServicePort {
	c := *p
	c.Endpoints = append([]Endpoint(nil), p.Endpoints...)
	c.Rules, c.Rejected = copyMap(p.Rules), copyMap(p.Rejected)
	return c
}

// checkLast fails where a row of the last snapshot was written to, or made
// again as it was.
func checkLast(t *testing.T, last *Snapshot, rows []ServicePort, next *Snapshot) {
	t.Helper()
	for i, p := range last.Services {
		if diff := cmp.Diff(rows[i], clone(p), addrs); diff != "" {
			t.Fatalf("a row that was given out has changed (-then +now):\n%s", diff)
		}
		for _, q := range next.Services {
			if p != q && p.same(q) {
				t.Fatalf("row made again: %+v", *q)
			}
		}
	}
}

func TestBuilderFollowsActivity(t *testing.T) {
	c := newCluster(t, 20)
	names := NewNames(c.catalog, nil)
	b := &Builder{}
	first := b.Build(c.inputs(names), at)
	if again := b.Build(c.inputs(names), at); &again.Services[0] != &first.Services[0] {
		t.Error("nothing changed, and the rows are in another slice")
	}
	c.traffic(3)
	second := b.Build(c.inputs(names), at)
	changed := 0
	for i, p := range second.Services {
		if p == first.Services[i] {
			continue
		}
		if changed++; p.Cluster != first.Services[i].Cluster+clusterEndpoints {
			t.Errorf("%v: %d connections after %d", p.Port, p.Cluster, first.Services[i].Cluster)
		}
	}
	if changed != 2*3 {
		t.Errorf("%d rows made, want those of 3 Services in 2 families", changed)
	}
	c.rules[0].View.Version++
	if third := b.Build(c.inputs(names), at); third.Services[7] != second.Services[7] {
		t.Error("other rules, and a row that says the same was made again")
	}
}

// TestSameSeesEveryField changes one field of a row after another.
func TestSameSeesEveryField(t *testing.T) {
	row := ServicePort{Endpoints: []Endpoint{{}}, Rules: map[string]int{}, Rejected: map[Reason]uint64{}}
	change := func(v reflect.Value) {
		switch v.Interface().(type) {
		case service.PortName:
			v.Set(reflect.ValueOf(web))
		case netip.Addr:
			v.Set(reflect.ValueOf(netip.MustParseAddr("10.96.0.10")))
		case netip.AddrPort:
			v.Set(reflect.ValueOf(pod1))
		case time.Time:
			v.Set(reflect.ValueOf(at))
		case map[string]int:
			v.Set(reflect.ValueOf(map[string]int{"nat": 1}))
		case map[Reason]uint64:
			v.Set(reflect.ValueOf(map[Reason]uint64{NoEndpoints: 1}))
		case []Endpoint:
			v.Set(reflect.ValueOf([]Endpoint{{}, {}}))
		default:
			switch v.Kind() {
			case reflect.Bool:
				v.SetBool(true)
			case reflect.String:
				v.SetString("x")
			case reflect.Int:
				v.SetInt(1)
			default:
				v.SetUint(1)
			}
		}
	}
	for i := range reflect.TypeFor[ServicePort]().NumField() {
		other := clone(&row)
		change(reflect.ValueOf(&other).Elem().Field(i))
		if row.same(&other) || !other.same(&other) {
			t.Errorf("%s is not compared", reflect.TypeFor[ServicePort]().Field(i).Name)
		}
	}
	for i := range reflect.TypeFor[Endpoint]().NumField() {
		var other Endpoint
		change(reflect.ValueOf(&other).Elem().Field(i))
		if other.same(Endpoint{}) {
			t.Errorf("Endpoint.%s is not compared", reflect.TypeFor[Endpoint]().Field(i).Name)
		}
	}
}
