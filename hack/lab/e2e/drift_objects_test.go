// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/svcscope/svcscope/hack/lab/internal/cluster"
)

// randomService is a Service of chance.
type randomService struct {
	name     string
	number   int
	rng      *rand.Rand
	kind     string // ClusterIP, NodePort, LoadBalancer, ExternalName or Headless
	families []string
	ports    []cluster.Object
	// used counts the addresses of endpoints, and running has those that run and share theirs
	// with nobody, by family.
	used    int
	running map[bool][]int
	// notReady publishes addresses that are not ready: slices say then that they are.
	notReady bool
	spec     cluster.Object
	labels   cluster.Object
	ingress  []cluster.Object
}

// maxSlices is how many slices a Service has in a family.
const maxSlices = 2

func one(rng *rand.Rand, of int) bool { return rng.IntN(of) == 0 }

func pick[T any](rng *rand.Rand, from ...T) T { return from[rng.IntN(len(from))] }

// newRandomService makes the Service of a number.
func newRandomService(rng *rand.Rand, i int) *randomService {
	s := &randomService{
		name: fmt.Sprintf("random%03d", i), number: i, rng: rng, spec: cluster.Object{}, labels: cluster.Object{}, running: map[bool][]int{},
		kind: pick(rng, "ClusterIP", "ClusterIP", "ClusterIP", "NodePort", "NodePort", "LoadBalancer", "LoadBalancer", "LoadBalancer", "Headless", "ExternalName"),
	}
	switch s.families = []string{"IPv4", "IPv6"}; rng.IntN(5) {
	case 0:
		s.families = []string{"IPv4"}
	case 1:
		s.families = []string{"IPv6"}
	case 2:
		s.families = []string{"IPv6", "IPv4"}
	}
	s.addPorts()
	if one(rng, 4) {
		s.spec["sessionAffinity"] = "ClientIP"
		if one(rng, 2) {
			s.spec["sessionAffinityConfig"] = cluster.Object{"clientIP": cluster.Object{"timeoutSeconds": 1 + rng.IntN(86400)}}
		}
	}
	if s.notReady = one(rng, 8); s.notReady {
		s.spec["publishNotReadyAddresses"] = true
	}
	if one(rng, 12) {
		s.labels["service.kubernetes.io/service-proxy-name"] = "another"
	}
	if s.kind == "ExternalName" {
		s.spec["type"], s.spec["externalName"] = s.kind, "elsewhere.example"
		return s
	}
	s.spec["ipFamilies"], s.spec["ipFamilyPolicy"] = s.families, "SingleStack"
	if len(s.families) == 2 {
		s.spec["ipFamilyPolicy"] = "RequireDualStack"
	}
	if s.kind == "Headless" {
		s.spec["clusterIP"] = "None"
		return s
	}
	s.spec["type"] = s.kind
	if one(rng, 3) {
		s.spec["internalTrafficPolicy"] = "Local"
	}
	s.addOutside(i)
	return s
}

// addPorts adds some, of every protocol.
func (s *randomService) addPorts() {
	protocols := []string{"TCP", "UDP", "SCTP"}
	s.rng.Shuffle(len(protocols), func(i, j int) { protocols[i], protocols[j] = protocols[j], protocols[i] })
	for i, protocol := range protocols[:pick(s.rng, 1, 1, 1, 2, 3)] {
		s.ports = append(s.ports, cluster.Object{"name": fmt.Sprintf("p%d", i), "port": 80 + i, "targetPort": 8080 + i, "protocol": protocol})
	}
	if len(s.ports) > 1 && one(s.rng, 3) { // of different protocols two may have one number
		s.ports[1]["port"] = s.ports[0]["port"]
	}
	if len(s.ports) == 1 && one(s.rng, 2) {
		delete(s.ports[0], "name")
	}
	s.spec["ports"] = s.ports
}

// addOutside adds how the Service is reached from outside.
func (s *randomService) addOutside(i int) {
	rng := s.rng
	if one(rng, 3) {
		// Of few, so that some have the same one.
		if ips := s.addresses(func(v6 bool) string { return external(v6, 100+rng.IntN(30)) }); len(ips) > 0 {
			s.spec["externalIPs"] = ips
		}
	}
	if s.kind != "ClusterIP" || s.spec["externalIPs"] != nil {
		s.spec["externalTrafficPolicy"] = pick(rng, "Cluster", "Cluster", "Local")
	}
	if s.kind != "LoadBalancer" {
		return
	}
	if one(rng, 4) {
		s.spec["allocateLoadBalancerNodePorts"] = false
	}
	for range rng.IntN(3) {
		ranges, _ := s.spec["loadBalancerSourceRanges"].([]string)
		for range 1 + rng.IntN(2) {
			ranges = append(ranges, pick(rng, "10.99.0.0/16", "192.168.50.100/32", "172.16.0.0/12", "fd00:99::/64", "fd00:192:168:50::100/128", "0.0.0.0/0", "::/0"))
		}
		s.spec["loadBalancerSourceRanges"] = ranges
	}
	for range rng.IntN(3) {
		for _, ip := range s.addresses(func(v6 bool) string { return external(v6, 130+i%100+rng.IntN(3)) }) {
			in := cluster.Object{"ip": ip}
			if mode := pick(rng, "", "VIP", "VIP", "Proxy"); mode != "" {
				in["ipMode"] = mode
			}
			s.ingress = append(s.ingress, in)
		}
	}
	if one(rng, 8) {
		s.ingress = append(s.ingress, cluster.Object{"hostname": "balancer.example"})
	}
}

// addresses are of some of the Service's families, and now and then of others.
func (s *randomService) addresses(of func(v6 bool) string) (out []string) {
	for _, v6 := range []bool{false, true} {
		has := slices.Contains(s.families, map[bool]string{false: "IPv4", true: "IPv6"}[v6])
		if has && !one(s.rng, 4) || !has && one(s.rng, 4) {
			out = append(out, of(v6))
		}
	}
	return out
}

// external is one of the addresses that the LAN leads to the node.
func external(v6 bool, n int) string {
	if v6 {
		return fmt.Sprintf("2001:db8::%x", n)
	}
	return fmt.Sprintf("198.51.100.%d", n)
}

func (s *randomService) object() cluster.Object {
	return cluster.Object{
		"apiVersion": "v1", "kind": "Service", "spec": s.spec,
		"metadata": cluster.Object{"name": s.name, "namespace": "default", "labels": s.labels},
	}
}

// status is nil where there is nothing to tell.
func (s *randomService) status() cluster.Object {
	if len(s.ingress) == 0 {
		return nil
	}
	return cluster.Object{
		"apiVersion": "v1", "kind": "Service", "metadata": cluster.Object{"name": s.name, "namespace": "default"},
		"status": cluster.Object{"loadBalancer": cluster.Object{"ingress": s.ingress}},
	}
}

// sliceNames are those that the Service's slices may have, with the family.
func (s *randomService) sliceNames() iter.Seq2[string, string] {
	return func(yield func(name, family string) bool) {
		for _, family := range []string{"IPv4", "IPv6"} {
			for n := range maxSlices {
				if !yield(fmt.Sprintf("%s-%s-%d", s.name, family[2:], n), family) {
					return
				}
			}
		}
	}
}

// TestDriftRandomServices: the same seed makes the same Services, and among some hundred there is
// everything that makes a difference to kube-proxy.
func TestDriftRandomServices(t *testing.T) {
	seen := map[string]int{}
	for i := range 300 {
		made := func() (*randomService, map[string]cluster.Object) {
			s := newRandomService(rand.New(rand.NewPCG(7, uint64(i))), i)
			return s, s.slices(rand.New(rand.NewPCG(8, uint64(i))))
		}
		s, its := made()
		again, itsAgain := made()
		if fmt.Sprint(s.object(), s.status(), its) != fmt.Sprint(again.object(), again.status(), itsAgain) {
			t.Fatalf("Service %d is another one with the same seed", i)
		}
		seen[s.kind]++
		for key, value := range s.spec {
			seen[key]++
			if text, ok := value.(string); ok {
				seen[key+" "+text]++
			}
		}
		for _, in := range s.ingress {
			seen[fmt.Sprint("ipMode ", in["ipMode"])]++
		}
		for _, o := range its {
			for _, e := range o["endpoints"].([]cluster.Object) {
				for key := range e["conditions"].(cluster.Object) {
					seen[key]++
				}
				if h, ok := e["hints"].(cluster.Object); ok {
					for key := range h {
						seen[key]++
					}
				}
			}
		}
		seen["labels"] += len(s.labels)
	}
	for _, want := range []string{
		"ClusterIP", "NodePort", "LoadBalancer", "Headless", "ExternalName", "externalIPs", "loadBalancerSourceRanges", "sessionAffinityConfig",
		"internalTrafficPolicy", "externalTrafficPolicy Local", "publishNotReadyAddresses", "allocateLoadBalancerNodePorts", "labels",
		"ipFamilyPolicy SingleStack", "ipFamilyPolicy RequireDualStack", "ipMode Proxy", "ipMode VIP", "ready", "serving", "terminating", "forNodes", "forZones",
	} {
		if seen[want] < 5 {
			t.Errorf("%s is there %d times in 300 Services", want, seen[want])
		}
	}
}
