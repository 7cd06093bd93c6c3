// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/svcscope/svcscope/hack/lab/internal/topology"
)

// Exposure is a Service with its EndpointSlices. The lab has no controller
// that would make the slices.
type Exposure struct {
	Namespace, Name string
	// Type is ClusterIP, NodePort or LoadBalancer.
	Type string
	// PortName may be empty. Port and TargetPort are the Service's and the
	// endpoints'. NodePort 0 lets the API server choose.
	PortName                   string
	Port, TargetPort, NodePort int
	// Protocol is TCP, UDP or SCTP.
	Protocol string
	// Endpoints are names of pods, or addresses of endpoints that are said
	// to be on another node. Addresses go to the slice of their family.
	Endpoints []string
	// Families is "dual", "v4" or "v6".
	Families string
	// ClusterIPs asks for addresses; empty lets the API server choose.
	ClusterIPs []string
	// Affinity makes connections of a client stay with an endpoint.
	Affinity bool
	// ExternalPolicy and InternalPolicy are Cluster (also empty) or Local.
	ExternalPolicy, InternalPolicy string
	// ExternalIPs, LoadBalancerIPs and SourceRanges are further frontends
	// and their restriction. LoadBalancerIPs go into the status.
	ExternalIPs, LoadBalancerIPs, SourceRanges []string
}

// Exposed is what the API server made of an Exposure.
type Exposed struct {
	Namespace  string   `json:"namespace"`
	Name       string   `json:"name"`
	ClusterIPs []string `json:"clusterIPs"`
	Port       int      `json:"port"`
	NodePort   int      `json:"nodePort,omitempty"`
}

// Demo returns the Services of the demo scene: one with three endpoints and a
// node port, one for UDP, one without endpoints.
func Demo() []Exposure {
	base := Exposure{Namespace: "default", Type: "ClusterIP", Protocol: "TCP", Families: "dual"}
	web, dns, broken := base, base, base
	web.Name, web.Type, web.NodePort = "web", "NodePort", 30080
	web.PortName, web.Port, web.TargetPort = "http", 80, 8080
	web.Endpoints = []string{"pod1", "pod2", "pod3"}
	web.ClusterIPs = []string{"10.96.0.80", "fd00:10:96::80"}
	dns.Namespace, dns.Name, dns.Protocol = "kube-system", "dns", "UDP"
	dns.PortName, dns.Port, dns.TargetPort = "dns", 53, 5353
	dns.Endpoints = []string{"pod1", "pod2"}
	dns.ClusterIPs = []string{"10.96.0.53", "fd00:10:96::53"}
	broken.Name, broken.Port, broken.TargetPort = "broken", 80, 8080
	broken.ClusterIPs = []string{"10.96.0.99", "fd00:10:96::99"}
	return []Exposure{web, dns, broken}
}

func (e Exposure) validate() error {
	switch {
	case e.Namespace == "" || e.Name == "":
		return errors.New("expose: no name")
	case e.Port < 1 || e.Port > 65535 || e.TargetPort < 1 || e.TargetPort > 65535:
		return fmt.Errorf("expose %s: port %d to %d: want 1 to 65535", e.Name, e.Port, e.TargetPort)
	case e.Families != "dual" && e.Families != "v4" && e.Families != "v6":
		return fmt.Errorf("expose %s: families %q: want dual, v4 or v6", e.Name, e.Families)
	}
	return nil
}

// Apply makes the Service and its slices be as given.
func (e Exposure) Apply(ctx context.Context, c *Client) (*Exposed, error) {
	if err := e.validate(); err != nil {
		return nil, err
	}
	if err := ensureNamespace(ctx, c, e.Namespace); err != nil {
		return nil, err
	}
	// Slices first, so that the Service never stands without endpoints
	// that it is to have.
	if err := e.applySlices(ctx, c); err != nil {
		return nil, fmt.Errorf("expose %s: %w", e.Name, err)
	}
	path := servicePath(e.Namespace, e.Name)
	if err := c.Apply(ctx, path, e.service()); err != nil {
		return nil, fmt.Errorf("expose %s: %w", e.Name, err)
	}
	if err := e.applyStatus(ctx, c, path); err != nil {
		return nil, fmt.Errorf("expose %s: %w", e.Name, err)
	}
	return e.read(ctx, c)
}

// applySlices makes the Service's slices be as given.
func (e Exposure) applySlices(ctx context.Context, c *Client) error {
	slices, err := e.slices()
	if err != nil {
		return err
	}
	for family, s := range slices {
		path := slicePath(e.Namespace, e.sliceName(family))
		if s == nil {
			err = c.Delete(ctx, path)
		} else {
			stamp(s)
			err = c.Apply(ctx, path, s)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// stamp says when the endpoints became what they are, as the controller of slices does:
// kube-proxy tells by it how long changes took.
func stamp(slice Object) {
	meta, _ := slice["metadata"].(Object)
	meta["annotations"] = Object{"endpoints.kubernetes.io/last-change-trigger-time": time.Now().UTC().Format(time.RFC3339Nano)}
}

func ensureNamespace(ctx context.Context, c *Client, name string) error {
	path := "/api/v1/namespaces/" + name
	_, err := c.Get(ctx, path)
	var se *StatusError
	if !errors.As(err, &se) || se.Code != http.StatusNotFound {
		return err
	}
	return c.Apply(ctx, path, Object{"apiVersion": "v1", "kind": "Namespace", "metadata": Object{"name": name}})
}

func (e Exposure) service() Object {
	port := Object{"port": e.Port, "targetPort": e.TargetPort, "protocol": e.Protocol}
	if e.PortName != "" {
		port["name"] = e.PortName
	}
	if e.NodePort != 0 {
		port["nodePort"] = e.NodePort
	}
	spec := Object{"type": e.Type, "ports": []Object{port}}
	switch e.Families {
	case "dual":
		spec["ipFamilyPolicy"], spec["ipFamilies"] = "RequireDualStack", []string{"IPv4", "IPv6"}
	case "v4":
		spec["ipFamilyPolicy"], spec["ipFamilies"] = "SingleStack", []string{"IPv4"}
	case "v6":
		spec["ipFamilyPolicy"], spec["ipFamilies"] = "SingleStack", []string{"IPv6"}
	}
	if len(e.ClusterIPs) > 0 {
		spec["clusterIP"], spec["clusterIPs"] = e.ClusterIPs[0], e.ClusterIPs
	}
	if e.Affinity {
		spec["sessionAffinity"] = "ClientIP"
	}
	for key, v := range map[string]string{
		"externalTrafficPolicy": e.ExternalPolicy, "internalTrafficPolicy": e.InternalPolicy,
	} {
		if v != "" {
			spec[key] = v
		}
	}
	for key, v := range map[string][]string{"externalIPs": e.ExternalIPs, "loadBalancerSourceRanges": e.SourceRanges} {
		if len(v) > 0 {
			spec[key] = v
		}
	}
	return Object{
		"apiVersion": "v1", "kind": "Service", "spec": spec,
		"metadata": Object{"name": e.Name, "namespace": e.Namespace},
	}
}

func (e Exposure) applyStatus(ctx context.Context, c *Client, path string) error {
	if len(e.LoadBalancerIPs) == 0 {
		return nil
	}
	var ingress []Object
	for _, ip := range e.LoadBalancerIPs {
		ingress = append(ingress, Object{"ip": ip, "ipMode": "VIP"})
	}
	return c.Apply(ctx, path+"/status", Object{
		"apiVersion": "v1", "kind": "Service", "metadata": Object{"name": e.Name, "namespace": e.Namespace},
		"status": Object{"loadBalancer": Object{"ingress": ingress}},
	})
}

// sliceName returns the name of the Service's slice of a family, "IPv4" or
// "IPv6".
func (e Exposure) sliceName(family string) string { return e.Name + "-" + strings.ToLower(family) }

// slices returns the slice of each family, nil where there is to be none.
func (e Exposure) slices() (map[string]Object, error) {
	out := map[string]Object{"IPv4": nil, "IPv6": nil}
	for family := range out {
		if e.Families == "v4" && family == "IPv6" || e.Families == "v6" && family == "IPv4" {
			continue
		}
		addrs, err := e.addresses(family)
		if err != nil {
			return nil, err
		}
		endpoints := []Object{}
		for _, a := range addrs {
			endpoints = append(endpoints, Object{
				"addresses": []string{a.ip}, "nodeName": a.node,
				"conditions": Object{"ready": true, "serving": true, "terminating": false},
			})
		}
		out[family] = Object{
			"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
			"metadata": Object{"name": e.sliceName(family), "namespace": e.Namespace, "labels": Object{
				"kubernetes.io/service-name":             e.Name,
				"endpointslice.kubernetes.io/managed-by": "lab",
			}},
			"endpoints": endpoints,
			"ports":     []Object{{"name": e.PortName, "port": e.TargetPort, "protocol": e.Protocol}},
		}
	}
	return out, nil
}

type address struct{ ip, node string }

// addresses returns the endpoints' addresses of a family.
func (e Exposure) addresses(family string) ([]address, error) {
	node := topology.Node{Number: 1}
	var out []address
	for _, ep := range e.Endpoints {
		if ip, err := netip.ParseAddr(ep); err == nil {
			if ip.Is6() == (family == "IPv6") {
				out = append(out, address{ip: ip.String(), node: "node2"})
			}
			continue
		}
		var i int
		if n, err := fmt.Sscanf(ep, "pod%d", &i); n != 1 || err != nil || topology.PodName(i) != ep || i < 1 {
			return nil, fmt.Errorf("expose %s: endpoint %q: want a pod's name or an address", e.Name, ep)
		}
		ip := node.PodIPv4(i)
		if family == "IPv6" {
			ip = node.PodIPv6(i)
		}
		out = append(out, address{ip: ip, node: node.Name()})
	}
	return out, nil
}

// read returns what the API server allocated.
func (e Exposure) read(ctx context.Context, c *Client) (*Exposed, error) {
	o, err := c.Get(ctx, servicePath(e.Namespace, e.Name))
	if err != nil {
		return nil, fmt.Errorf("expose %s: %w", e.Name, err)
	}
	out := &Exposed{Namespace: e.Namespace, Name: e.Name, Port: e.Port}
	spec, _ := o["spec"].(Object)
	ips, _ := spec["clusterIPs"].([]any)
	for _, ip := range ips {
		if s, ok := ip.(string); ok {
			out.ClusterIPs = append(out.ClusterIPs, s)
		}
	}
	if ports, _ := spec["ports"].([]any); len(ports) > 0 {
		p, _ := ports[0].(Object)
		if np, ok := p["nodePort"].(float64); ok {
			out.NodePort = int(np)
		}
	}
	return out, nil
}

// Unexpose removes a Service and its slices.
func Unexpose(ctx context.Context, c *Client, namespace, name string) error {
	if err := c.Delete(ctx, servicePath(namespace, name)); err != nil {
		return fmt.Errorf("unexpose %s: %w", name, err)
	}
	e := Exposure{Name: name}
	for _, family := range []string{"IPv4", "IPv6"} {
		if err := c.Delete(ctx, slicePath(namespace, e.sliceName(family))); err != nil {
			return fmt.Errorf("unexpose %s: %w", name, err)
		}
	}
	return nil
}

// SyncTimeout is how long kube-proxy may take to write a change: about a
// second on a machine at rest.
const SyncTimeout = time.Minute
