// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/svcscope/svcscope/pkg/service"
)

// catalogText writes all endpoints that a catalog has under the names of these
// tests, with their conditions.
func catalogText(c *service.Catalog) map[string]string {
	out := map[string]string{}
	for _, ns := range []string{"ns", "other"} {
		for _, name := range []string{"web", "api", "s0", "s1", "s2", "s3"} {
			for _, port := range []string{"http", "p0", "p1"} {
				p := service.PortName{Name: service.Name{Namespace: ns, Name: name}, Port: port, Protocol: service.TCP}
				var text []string
				for _, e := range slices.Concat(c.EndpointsOf(p, false), c.EndpointsOf(p, true)) {
					text = append(text, endpointText(e))
				}
				if len(text) > 0 {
					out[fmt.Sprintf("%s/%s", p, p.Protocol)] = strings.Join(text, ",")
				}
			}
		}
	}
	return out
}

func TestSlicesOfOneServiceAreMerged(t *testing.T) {
	ts := newTables("node-1")
	ending := apiSlice("ns", "web", "a", "10.1.0.1", "10.1.0.3")
	for i := range ending.Endpoints {
		ending.Endpoints[i].Conditions = discoveryv1.EndpointConditions{Ready: new(false), Terminating: new(true)}
	}
	v6 := apiSlice("ns", "web", "v6", "fd01::1")
	v6.AddressType = discoveryv1.AddressTypeIPv6
	for _, s := range []*discoveryv1.EndpointSlice{v6, apiSlice("ns", "web", "b", "10.1.0.2", "10.1.0.1"), ending, apiSlice("other", "web", "b", "10.2.0.1")} {
		ts.setSlice(convertSlice(s))
	}
	want := map[string]string{
		"ns/web:http/TCP": "10.1.0.1:8080/rs/node-1/zone-a,10.1.0.2:8080/rs/node-1/zone-a," +
			"10.1.0.3:8080/st/node-1/zone-a,[fd01::1]:8080/rs/node-1/zone-a",
		"other/web:http/TCP": "10.2.0.1:8080/rs/node-1/zone-a",
	}
	if diff := cmp.Diff(want, catalogText(ts.catalog(&service.Catalog{}))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSliceThatMovesToAnotherService(t *testing.T) {
	ts := newTables("node-1")
	ts.setSlice(convertSlice(apiSlice("ns", "web", "x", "10.1.0.1")))
	c := ts.catalog(&service.Catalog{})
	moved := apiSlice("ns", "web", "x", "10.1.0.1")
	moved.Labels[discoveryv1.LabelServiceName] = "api"
	ts.setSlice(convertSlice(moved))
	c = ts.catalog(c)
	if diff := cmp.Diff(map[string]string{"ns/api:http/TCP": "10.1.0.1:8080/rs/node-1/zone-a"}, catalogText(c)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(ts.services) != 1 {
		t.Errorf("%d entries are kept, want 1", len(ts.services))
	}
}

// TestCatalogsFollowAnyChanges compares catalogs that are made from their
// predecessors with those made at once from the same objects, and checks that
// the predecessors stay as they were.
func TestCatalogsFollowAnyChanges(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		ts, c := newTables("node-1"), &service.Catalog{}
		current := map[string]*discoveryv1.EndpointSlice{}
		services := map[string]bool{}
		for range 200 {
			svc := fmt.Sprintf("s%d", r.IntN(4))
			s := apiSlice("ns", svc, fmt.Sprint(r.IntN(3)))
			for range r.IntN(4) {
				e := discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.1.0.%d", r.IntN(5))}}
				e.Conditions.Terminating = new(r.IntN(2) == 0)
				s.Endpoints = append(s.Endpoints, e)
			}
			s.Ports[0].Name = new(fmt.Sprintf("p%d", r.IntN(2)))
			switch r.IntN(5) {
			case 0:
				ts.deleteSlice(nameOf(s))
				delete(current, s.Name)
			case 1:
				ts.setService(convertService(apiService("ns", svc, "10.0.0.1")))
				services[svc] = true
			case 2:
				ts.deleteService(service.Name{Namespace: "ns", Name: svc})
				delete(services, svc)
			default:
				ts.setSlice(convertSlice(s))
				current[s.Name] = s
			}
			if r.IntN(3) == 0 {
				continue // several changes in one catalog
			}
			prev, before := c, catalogText(c)
			c = ts.catalog(c)
			if diff := cmp.Diff(before, catalogText(prev)); diff != "" {
				t.Fatalf("seed %d: the catalog before changed (-want +got):\n%s", seed, diff)
			}
			fresh := newTables("node-1")
			for _, s := range current {
				fresh.setSlice(convertSlice(s))
			}
			if diff := cmp.Diff(catalogText(fresh.catalog(&service.Catalog{})), catalogText(c)); diff != "" {
				t.Fatalf("seed %d (-want +got):\n%s", seed, diff)
			}
			for i, s := range c.Services {
				if !services[s.Name.Name] || i > 0 && c.Services[i-1].Name.Compare(s.Name) >= 0 {
					t.Fatalf("seed %d: Services %v", seed, c.Services)
				}
			}
			if len(c.Services) != len(services) {
				t.Fatalf("seed %d: %d Services, want %d", seed, len(c.Services), len(services))
			}
		}
	}
}

// bigTables has n Services with so many endpoints each, on 100 nodes.
func bigTables(n, endpoints int) *tables {
	ts := newTables("node-1")
	for i := range n {
		ns, name := fmt.Sprintf("namespace-%d", i%50), fmt.Sprintf("service-%05d", i)
		s := apiService(ns, name, fmt.Sprintf("10.96.%d.%d", i>>8, i&255))
		s.UID = uid(i)
		ts.setService(convertService(s))
		ts.setSlice(convertSlice(bigSlice(ns, name, endpoints*i, endpoints)))
	}
	ts.listed = [kinds]bool{true, true, true}
	return ts
}

// bigSlice has n endpoints from the k-th on.
func bigSlice(ns, name string, k, n int) *discoveryv1.EndpointSlice {
	s := apiSlice(ns, name, "abcde")
	for range n {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{fmt.Sprintf("10.%d.%d.%d", 128+k>>16, k>>8&255, k&255)},
			NodeName:  new(fmt.Sprintf("node-%d.region.compute.internal", k%100)), Zone: new(fmt.Sprintf("region-%d", k%3)),
		})
		k++
	}
	return s
}

func BenchmarkFirstCatalog(b *testing.B) {
	ts := bigTables(10000, 3)
	all := ts.pending
	b.ReportAllocs()
	for b.Loop() {
		ts.pending = all
		ts.catalog(&service.Catalog{})
	}
}

func BenchmarkCatalogAfterOneSlice(b *testing.B) {
	ts := bigTables(10000, 3)
	c := ts.catalog(&service.Catalog{})
	ss := [2]*slice{
		convertSlice(bigSlice("namespace-7", "service-00007", 3*7, 3)),
		convertSlice(bigSlice("namespace-7", "service-00007", 3*8, 3)),
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		ts.setSlice(ss[i&1])
		c = ts.catalog(c)
	}
}

func BenchmarkCatalogAfterOneService(b *testing.B) {
	ts := bigTables(10000, 3)
	c := ts.catalog(&service.Catalog{})
	ss := [2]*service.Service{
		convertService(apiService("namespace-7", "service-00007", "10.96.0.7")),
		convertService(apiService("namespace-7", "service-00007", "10.97.0.7")),
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		ts.setService(ss[i&1])
		c = ts.catalog(c)
	}
}

func BenchmarkConvertSlice(b *testing.B) {
	s := bigSlice("namespace-7", "service-00007", 3*7, 3)
	b.ReportAllocs()
	for b.Loop() {
		convertSlice(s)
	}
}

// TestSlicesThatDisagree: kube-proxy takes either of two endpoints with one address, but one that does not
// terminate before one that does.
func TestSlicesThatDisagree(t *testing.T) {
	ready, unready := discoveryv1.EndpointConditions{}, discoveryv1.EndpointConditions{Ready: new(false)}
	ending := discoveryv1.EndpointConditions{Ready: new(false), Terminating: new(true)}
	ended := discoveryv1.EndpointConditions{Ready: new(false), Serving: new(false), Terminating: new(true)}
	tests := []struct {
		name      string
		slices    []discoveryv1.EndpointConditions
		nodes     []string
		undecided bool
	}{
		{"they agree", []discoveryv1.EndpointConditions{ready, ready}, nil, false},
		{"readiness", []discoveryv1.EndpointConditions{ready, unready}, nil, true},
		{"the other way round", []discoveryv1.EndpointConditions{unready, ready}, nil, true},
		{"the node", []discoveryv1.EndpointConditions{ready, ready}, []string{"node-1", "node-2"}, true},
		{"one terminates", []discoveryv1.EndpointConditions{ending, ready}, nil, false},
		{"both terminate", []discoveryv1.EndpointConditions{ending, ended}, nil, true},
		{"two terminate, and one does not", []discoveryv1.EndpointConditions{ending, ready, ended}, nil, false},
		{"two do not terminate, and one does", []discoveryv1.EndpointConditions{unready, ending, ready}, nil, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ts := newTables("node-1")
			for i, conditions := range tt.slices {
				s := apiSlice("ns", "web", fmt.Sprint(i), "10.1.0.1", "10.1.0.2")
				if s.Endpoints[0].Conditions = conditions; tt.nodes != nil {
					s.Endpoints[0].NodeName = &tt.nodes[i]
				}
				ts.setSlice(convertSlice(s))
			}
			all := ts.catalog(&service.Catalog{}).EndpointsOf(service.PortName{Name: service.Name{Namespace: "ns", Name: "web"}, Port: "http", Protocol: service.TCP}, false)
			if len(all) != 2 || all[0].Undecided != tt.undecided || all[1].Undecided {
				t.Errorf("got %+v, want the first undecided: %v", all, tt.undecided)
			}
			for i := range tt.slices { // those of the slices stay what they are
				if ts.deleteSlice(service.Name{Namespace: "ns", Name: fmt.Sprintf("web-%d", i)}); i == len(tt.slices)-2 {
					break
				}
			}
			one := ts.catalog(&service.Catalog{}).EndpointsOf(service.PortName{Name: service.Name{Namespace: "ns", Name: "web"}, Port: "http", Protocol: service.TCP}, false)
			if len(one) != 2 || one[0].Undecided {
				t.Errorf("of one slice %+v, want nothing undecided", one)
			}
		})
	}
}
