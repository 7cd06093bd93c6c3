// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/ledger"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// randomNode is a node whose rules, API and traffic change at random.
type randomNode struct {
	t       *testing.T
	rand    *rand.Rand
	ledger  *ledger.Ledger
	api     *service.Catalog
	local   *service.Service // web with internalTrafficPolicy Local
	names   *Names
	rules   []Rules
	packets [4]int // as the arguments of save
	text    func(string) string
	in      Inputs
	now     time.Time
	gone    []*kubeproxy.PortChains // taken out of the view
}

// step changes one thing at most, and has traffic.
func (n *randomNode) step() {
	n.now = n.now.Add(time.Duration(n.rand.IntN(240)) * time.Second) // the ledger forgets after minutes
	switch n.rand.IntN(14) {
	case 5, 6: // other chains of a port in the same view, or none
		if n.rules != nil {
			n.rewrite(n.rules[0].View)
		}
	case 7, 10: // other endpoints of the same Services
		n.names = n.names.Next(n.moved(n.names.catalog))
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
		n.rules, n.gone = nil, nil
	case 1: // another API, or none
		n.names = NewNames(n.variant())
	case 2: // the same names
		same := *n.names
		n.names = &same
	case 8: // other rules elsewhere
		if n.rules != nil {
			n.rules[0].View.Version++
		}
	case 9: // another view with the same chains
		if n.rules != nil {
			v := *n.rules[0].View
			v.Refusals, v.Version = v.Refusals[:n.rand.IntN(1+len(v.Refusals))], v.Version+1
			n.rules, n.gone = []Rules{{View: &v}}, nil
		}
	case 3:
		n.in.Unread = bothFamilies()[:n.rand.IntN(2)]
	case 4:
		n.in.Kube.NodeMissing = n.rand.IntN(2) == 0
	}
	for i := range n.packets {
		n.packets[i] += n.rand.IntN(4) / 2
	}
	n.read()
}

// rewrite does to a view what an update in place does.
func (n *randomNode) rewrite(v *kubeproxy.View) {
	v.Version++
	for hash, p := range v.Ports {
		switch other := *p; n.rand.IntN(4) {
		case 0:
			delete(v.Ports, hash)
			n.gone = append(n.gone, p)
		case 1:
			other.Endpoints = other.Endpoints[:n.rand.IntN(1+len(other.Endpoints))]
			v.Ports[hash] = &other
		}
	}
	if len(n.gone) > 0 && n.rand.IntN(2) == 0 {
		for _, p := range n.gone {
			v.Ports[p.Hash] = p
		}
		n.gone = nil
	}
	v.Dispatch = v.Dispatch[:n.rand.IntN(1+len(v.Dispatch))]
	v.Refusals = v.Refusals[:n.rand.IntN(1+len(v.Refusals))]
}

// moved returns the catalog after c with other endpoints of some Services.
func (n *randomNode) moved(c *service.Catalog) *service.Catalog {
	if c == nil {
		return nil
	}
	ch := &service.Change{Node: c.Node, Endpoints: make(map[service.Name][]service.PortEndpoints)}
	for _, svc := range c.Services {
		if n.rand.IntN(2) == 0 {
			continue
		}
		for i := range svc.Ports {
			name := svc.PortName(&svc.Ports[i])
			all := n.api.Endpoints[name]
			ch.Endpoints[svc.Name] = append(ch.Endpoints[svc.Name], service.PortEndpoints{
				Port: name.Port, Protocol: name.Protocol, Endpoints: all[:n.rand.IntN(1+len(all))],
			})
		}
	}
	if c.Endpoints != nil { // written down as one value, which no agent has
		c = &service.Catalog{Synced: true, Node: c.Node, Services: c.Services}
	}
	return c.Next(ch)
}

// variant returns a catalog that shares with the others what it says alike.
func (n *randomNode) variant() *service.Catalog {
	c := &service.Catalog{Synced: true, Node: n.api.Node, Services: slices.Clone(n.api.Services), Endpoints: maps.Clone(n.api.Endpoints)}
	switch n.rand.IntN(7) {
	case 0:
		return nil
	case 1:
		c.Services = c.Services[1:]
	case 2:
		c.Endpoints[web] = c.Endpoints[web][:1]
	case 3:
		c.Services[1] = n.local // its endpoints depend on the node
	case 4:
		c.Services[1], c.Node.Name = n.local, "node-b"
	}
	return c
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
	n.ledger.Apply(wholeReading(rs, fresh.View, n.names), n.now)
	n.in.Names, n.in.Rules, n.in.Ledger = n.names, n.rules, n.ledger
}

// TestBuilderMakesWhatBuildMakes goes on for long enough that every change
// meets every state.
func TestBuilderMakesWhatBuildMakes(t *testing.T) {
	for seed := range uint64(20) {
		n := &randomNode{
			t: t, rand: rand.New(rand.NewPCG(seed, 1)), ledger: ledger.New(1 + int(seed%3)*2),
			api: catalog(), names: NewNames(nil), text: func(s string) string { return s }, now: at,
		}
		n.api.Endpoints[web][0].NodeName = "node-a"
		local := *n.api.Services[1]
		local.InternalLocal, n.local = true, &local
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
	names := NewNames(c.catalog)
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
	ghost := c.catalog.Services[4]
	c.catalog = c.catalog.Next(&service.Change{
		Node: c.catalog.Node, Services: map[service.Name]*service.Service{ghost.Name: nil},
	})
	c.ledger.Know(KnownPorts(nil, NewNames(c.catalog)), at)
	names = NewNames(c.catalog)
	c.rules[0].View.Version++
	if third := b.Build(c.inputs(names), at); len(third.Services) != 38 || third.Services[0] != second.Services[0] ||
		third.Services[37] != second.Services[39] {
		t.Errorf("%d rows after a Service is gone; or others were made again", len(third.Services))
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

func TestBuilderSeesThatTheNodeIsAnother(t *testing.T) {
	c := catalog()
	c.Services[1].InternalLocal, c.Services[1].Ports[0].NodePort = true, 0
	c.Endpoints[web][0].NodeName = "node-a"
	l := ledger.New(10)
	for range 2 {
		l.Apply(ledger.Reading{Source: LedgerSource(ruleset.NFT, netfilter.IPv4)}, at)
	}
	b := &Builder{}
	for _, tt := range []struct {
		node string
		want int
	}{{"node-a", 1}, {"node-b", 0}, {"node-a", 1}} {
		c = c.Next(&service.Change{Node: service.Node{Name: tt.node}})
		s := b.Build(Inputs{Names: NewNames(c), Ledger: l}, at)
		if got := s.Services[1].APICount; got != tt.want {
			t.Errorf("on %s %d endpoints are expected, want %d", tt.node, got, tt.want)
		}
	}
}
