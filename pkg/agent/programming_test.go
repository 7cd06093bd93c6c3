// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/drift"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// programmingWith is a catalog whose web has these endpoints, by the last byte of their
// addresses; nil: there is no web.
func programmingWith(last *service.Catalog, version uint64, endpoints []byte) *service.Catalog {
	ch := service.Change{Version: version, Node: service.Node{Name: "node-a"}}
	ch.Services = map[service.Name]*service.Service{webPort.Name: nil}
	if endpoints != nil {
		ch.Services[webPort.Name] = &service.Service{
			Name: webPort.Name, Type: "ClusterIP", ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.10")},
			Ports: []service.Port{{Name: webPort.Port, Protocol: webPort.Protocol, Port: 80}},
		}
	}
	at := service.PortEndpoints{Port: webPort.Port, Protocol: webPort.Protocol}
	for _, e := range endpoints {
		at.Endpoints = append(at.Endpoints, service.Endpoint{Addr: programmingEndpoint(e), Ready: true, Serving: true})
	}
	ch.Endpoints = map[service.Name][]service.PortEndpoints{webPort.Name: {at}}
	return last.Next(&ch)
}

func programmingEndpoint(last byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 77, 0, last}), 8080)
}

// programmingChains are the names of endpoints' chains.
func programmingChains(endpoints []byte) (names []string) {
	for _, e := range endpoints {
		names = append(names, kubeproxy.EndpointChain(webPort, programmingEndpoint(e)))
	}
	slices.Sort(names)
	return names
}

// TestProgrammingWaitsForTheCatalog: a change counts from when it was announced, which is
// before a catalog has it, and once.
func TestProgrammingWaitsForTheCatalog(t *testing.T) {
	const told, quiet = true, false
	// step is a call, a second after the last one: whether web is among the names,
	// with which version the answer comes, and that and the endpoints of the catalog.
	type step struct {
		told     bool
		version  uint64
		catalog  uint64
		has      []byte
		programs []byte // what the rules then lead to; nil: they stay
	}
	tests := []struct {
		name  string
		steps []step
		want  string // since which step what is waited for
	}{
		{"nothing changes", []step{{quiet, 1, 1, []byte{2}, nil}}, ""},
		{"the catalog has it at once", []step{{told, 2, 2, []byte{2, 3}, nil}}, "1: +3"},
		{"the catalog comes later", []step{{told, 2, 1, []byte{2}, nil}, {quiet, 2, 2, []byte{2, 3}, nil}}, "1: +3"},
		{"another change is announced before", []step{
			{told, 2, 1, []byte{2}, nil}, {told, 3, 1, []byte{2}, nil}, {quiet, 3, 3, []byte{3}, nil},
		}, "1: -2 +3"},
		{"the catalog has it before its version", []step{{told, 3, 2, []byte{2, 3}, nil}, {quiet, 3, 3, []byte{2, 3}, nil}}, "1: +3"},
		{"of two changes the catalog has one", []step{
			{told, 2, 1, []byte{2}, nil}, {told, 3, 2, []byte{2, 3}, nil}, {quiet, 3, 3, []byte{3}, nil},
		}, "1: +3, 2: -2"},
		{"the first one is written before the second", []step{
			{told, 2, 1, []byte{2}, nil}, {told, 3, 2, []byte{2, 3}, []byte{2, 3}}, {quiet, 3, 3, []byte{3}, nil},
		}, "2: -2"},
		{"it is no change of endpoints", []step{{told, 2, 1, []byte{2}, nil}, {quiet, 2, 2, []byte{2}, nil}, {quiet, 4, 4, []byte{3}, nil}}, ""},
		{"taken back", []step{{told, 2, 2, []byte{2, 3}, nil}, {told, 3, 3, []byte{2}, nil}}, ""},
		{"in part taken back", []step{{told, 2, 2, []byte{3, 4}, nil}, {told, 3, 3, []byte{2, 4}, nil}}, "1: +4"},
		{"in part written", []step{{told, 2, 2, []byte{3, 4}, []byte{2, 3}}}, "1: -2 +4"},
		{"the rules follow, and are never what is said at the time", []step{
			{told, 2, 2, []byte{2, 3}, []byte{2}}, {told, 3, 3, []byte{2, 3, 4}, []byte{2, 3}}, {told, 4, 4, []byte{3, 4, 5}, []byte{2, 3, 4}},
		}, "3: -2 +5"},
		{"written", []step{{told, 2, 2, []byte{2, 3}, []byte{2, 3}}}, ""},
		{"another one is written", []step{{told, 2, 2, []byte{2, 3}, []byte{2, 4}}}, "1: +3"},
		{"the Service goes", []step{{told, 2, 2, []byte{2, 3}, nil}, {told, 3, 3, nil, nil}}, ""},
		{"the Service is new", []step{{told, 2, 2, nil, nil}, {told, 3, 3, []byte{2}, nil}}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := fakeSampler(&fakeBackend{answers: []answer{{set: emptyRules()}}}, nil, nil).programming
			start := time.Unix(1_000_000, 0)
			catalog := programmingWith(&service.Catalog{}, 1, []byte{2})
			p.announce(nil, 1, catalog, start)
			at := drift.PortFamily{Port: webPort, Family: netfilter.IPv4}
			for i, s := range tt.steps {
				if s.catalog != catalog.Version {
					catalog = programmingWith(catalog, s.catalog, s.has)
				}
				var names []service.Name
				if s.told {
					names = []service.Name{webPort.Name}
				}
				now := start.Add(time.Duration(i+1) * time.Second)
				p.announce(names, s.version, catalog, now)
				if s.programs != nil {
					p.found(ruleset.NFT, at, programmingChains(s.programs), sight{now, now})
				}
			}
			var got []string
			for _, w := range p.waiting {
				for _, c := range w.changes {
					got = append(got, fmt.Sprintf("%d: %s", int(c.since.Sub(start).Seconds()), describeChange(&c)))
				}
			}
			if diff := cmp.Diff(tt.want, strings.Join(got, ", ")); diff != "" {
				t.Errorf("waiting (-want +got)\n%s", diff)
			}
		})
	}
}

// describeChange is which endpoints are to come (+) and to go (-), by the last byte.
func describeChange(c *endpointChange) string {
	var out []string
	for e := range byte(10) {
		switch there, ok := c.left[kubeproxy.EndpointChain(webPort, programmingEndpoint(e))]; {
		case ok && there:
			out = append(out, fmt.Sprintf("+%d", e))
		case ok:
			out = append(out, fmt.Sprintf("-%d", e))
		}
	}
	return strings.Join(out, " ")
}

// TestProgrammingLooksAgain: when another catalog says what is waited for, it is looked for,
// although nothing was committed since the last look.
func TestProgrammingLooksAgain(t *testing.T) {
	p := fakeSampler(&fakeBackend{answers: []answer{{set: emptyRules()}}}, nil, nil).programming
	now := time.Unix(1_000_000, 0)
	catalog := programmingWith(&service.Catalog{}, 1, []byte{2})
	p.announce(nil, 1, catalog, now)
	for i, endpoints := range [][]byte{{2, 3}, {3}} {
		p.fresh = false
		version := uint64(i + 2)
		catalog = programmingWith(catalog, version, endpoints)
		p.announce([]service.Name{webPort.Name}, version, catalog, now)
		if !p.fresh {
			t.Errorf("a change to %v is not looked for", endpoints)
		}
	}
}
