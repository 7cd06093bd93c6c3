// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/svcscope/svcscope/hack/lab/internal/cluster"
)

// slices are the Service's, by name.
func (s *randomService) slices(rng *rand.Rand) map[string]cluster.Object {
	out := map[string]cluster.Object{}
	hints := pick(rng, "", "", "", "all", "all", "some")
	for name, family := range s.sliceNames() {
		if one(rng, 4) {
			continue // there is none of the name
		}
		labels := cluster.Object{"kubernetes.io/service-name": s.name, "endpointslice.kubernetes.io/managed-by": "lab"}
		if s.kind == "Headless" {
			labels["service.kubernetes.io/headless"] = ""
		}
		if s.number%9 == 0 && strings.HasSuffix(name, "-1") {
			// It is nobody's, and was never anybody's: kube-proxy does not hear of that.
			delete(labels, "kubernetes.io/service-name")
		}
		endpoints := []cluster.Object{}
		for range pick(rng, 0, 1, 1, 2, 3, 6) {
			endpoints = append(endpoints, s.endpoint(rng, family == "IPv6", hints))
		}
		out[name] = cluster.Object{
			"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
			"metadata": cluster.Object{"name": name, "namespace": "default", "labels": labels}, "endpoints": endpoints, "ports": s.slicePorts(rng),
		}
	}
	return out
}

// slicePorts are the Service's, but now and then not all of them, or one more.
func (s *randomService) slicePorts(rng *rand.Rand) []cluster.Object {
	out := []cluster.Object{}
	for _, p := range s.ports {
		if one(rng, 12) {
			continue
		}
		port := cluster.Object{"name": p["name"], "port": p["targetPort"], "protocol": p["protocol"]}
		if port["name"] == nil {
			port["name"] = ""
		}
		if one(rng, 25) {
			port["protocol"] = "UDP"
		}
		out = append(out, port)
	}
	if one(rng, 12) {
		out = append(out, cluster.Object{"name": "unknown", "port": 9090, "protocol": "TCP"})
	}
	return out
}

// endpointNumber is in the address of an endpoint. It has one for itself, or if it is about to end that
// of one that runs, which got it anew. Of others that share one it is chance which
// kube-proxy takes.
func (s *randomService) endpointNumber(rng *rand.Rand, v6, terminating bool) int {
	running := s.running[v6]
	if terminating && len(running) > 0 && one(rng, 2) {
		i := rng.IntN(len(running))
		shared := running[i]
		s.running[v6] = slices.Delete(running, i, i+1)
		return shared
	}
	s.used++
	if !terminating {
		s.running[v6] = append(running, s.used)
	}
	return s.used
}

// endpoint is one of chance.
func (s *randomService) endpoint(rng *rand.Rand, v6 bool, hints string) cluster.Object {
	conditions := cluster.Object{}
	terminating := one(rng, 5)
	ready := !terminating && !one(rng, 4)
	serving := ready || one(rng, 2)
	if s.notReady {
		ready = true // the controller says so
	}
	if !ready || one(rng, 2) {
		conditions["ready"] = ready
	}
	if !serving || one(rng, 2) {
		conditions["serving"] = serving
	}
	if terminating || one(rng, 2) {
		conditions["terminating"] = terminating
	}
	number := s.endpointNumber(rng, v6, terminating)
	e := cluster.Object{"addresses": []string{endpointAddress(s.number, v6, number)}, "conditions": conditions}
	node := pick(rng, "node1", "node1", "node2", "")
	if node != "" {
		e["nodeName"] = node
		e["zone"] = pick(rng, "zone-a", "zone-b")
	}
	if hints == "all" || hints == "some" && !one(rng, 6) {
		h := cluster.Object{}
		if one(rng, 2) {
			h["forNodes"] = []cluster.Object{{"name": pick(rng, "node1", "node2")}}
		}
		if len(h) == 0 || one(rng, 2) {
			h["forZones"] = []cluster.Object{{"name": pick(rng, "zone-a", "zone-b")}}
		}
		e["hints"] = h
	}
	return e
}

// endpointAddress is one of those that a Service may have: nobody listens there.
func endpointAddress(service int, v6 bool, number int) string {
	if v6 {
		return fmt.Sprintf("fd00:10:130:%x::%x", service+1, number)
	}
	return fmt.Sprintf("10.%d.%d.%d", 130+service/250, service%250, number)
}
