// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/svcscope/svcscope/pkg/service"
)

// wireAPI is api.json, Node.Catalog.
type wireAPI struct {
	// Version is Catalog.Version: it grows with each change that this node's reader saw.
	Version  uint64        `json:"version,omitempty"`
	Node     wireNode      `json:"node"`
	Services []wireService `json:"services"` // sorted by namespace and name
}

// wireNode is service.Node: the compiler sees that no field is missing.
type wireNode struct {
	Name      string         `json:"name,omitempty"`
	Zone      string         `json:"zone,omitempty"`
	IPs       []netip.Addr   `json:"addresses,omitempty"`
	PodRanges []netip.Prefix `json:"podRanges,omitempty"`
}

type wireService struct {
	Namespace   string `json:"namespace"`
	ServiceName string `json:"name"`
	serviceFields
	Ports []wirePort `json:"ports,omitempty"`
}

// serviceFields is service.Service.
type serviceFields struct {
	Name                     service.Name   `json:"-"`
	Type                     string         `json:"type,omitempty"`
	ClusterIPs               []netip.Addr   `json:"clusterIPs,omitempty"`
	ExternalIPs              []netip.Addr   `json:"externalIPs,omitempty"`
	LoadBalancerIPs          []netip.Addr   `json:"loadBalancerIPs,omitempty"`
	ProxyModeIPs             []netip.Addr   `json:"proxyModeIPs,omitempty"`
	LoadBalancerSourceRanges []netip.Prefix `json:"loadBalancerSourceRanges,omitempty"`
	Ports                    []service.Port `json:"-"`
	InternalLocal            bool           `json:"internalLocal,omitempty"`
	ExternalLocal            bool           `json:"externalLocal,omitempty"`
	ClientIPAffinity         bool           `json:"clientIPAffinity,omitempty"`
	AffinitySeconds          int32          `json:"affinitySeconds,omitempty"`
	HealthCheckNodePort      uint16         `json:"healthCheckNodePort,omitempty"`
	ProxyName                string         `json:"proxyName,omitempty"`
	UID                      string         `json:"uid,omitempty"`
}

// wirePort is a port with its endpoints of both families.
type wirePort struct {
	portFields
	Endpoints []wireEndpoint `json:"endpoints,omitempty"` // sorted by address, IPv4 first
}

// portFields is service.Port.
type portFields struct {
	Name     string           `json:"name,omitempty"`
	Protocol service.Protocol `json:"protocol"`
	Port     uint16           `json:"port"`
	NodePort uint16           `json:"nodePort,omitempty"`
}

// wireEndpoint is service.Endpoint.
type wireEndpoint struct {
	Addr        netip.AddrPort `json:"address"`
	Ready       bool           `json:"ready,omitempty"`
	Serving     bool           `json:"serving,omitempty"`
	Terminating bool           `json:"terminating,omitempty"`
	Undecided   bool           `json:"undecided,omitempty"`
	NodeName    string         `json:"nodeName,omitempty"`
	Zone        string         `json:"zone,omitempty"`
	ForNodes    []string       `json:"forNodes,omitempty"`
	ForZones    []string       `json:"forZones,omitempty"`
}

func newWireAPI(c *service.Catalog) wireAPI {
	w := wireAPI{Version: c.Version, Node: wireNode(c.Node), Services: make([]wireService, 0, len(c.Services))}
	for _, s := range c.Services {
		one := wireService{Namespace: s.Name.Namespace, ServiceName: s.Name.Name, serviceFields: serviceFields(*s)}
		one.Name, one.serviceFields.Ports = service.Name{}, nil
		for i := range s.Ports {
			p := wirePort{portFields: portFields(s.Ports[i])}
			for _, ipv6 := range []bool{false, true} {
				for _, e := range c.EndpointsOf(s.PortName(&s.Ports[i]), ipv6) {
					p.Endpoints = append(p.Endpoints, wireEndpoint(e))
				}
			}
			one.Ports = append(one.Ports, p)
		}
		w.Services = append(w.Services, one)
	}
	return w
}

// catalog makes a Catalog, which has to be in order: it is searched.
func (w *wireAPI) catalog() (*service.Catalog, error) {
	c := &service.Catalog{
		Synced: true, Version: w.Version, Node: service.Node(w.Node),
		Services: make([]*service.Service, 0, len(w.Services)), Endpoints: make(map[service.PortName][]service.Endpoint),
	}
	for i := range w.Services {
		one := &w.Services[i]
		s := service.Service(one.serviceFields)
		s.Name = service.Name{Namespace: one.Namespace, Name: one.ServiceName}
		if i > 0 && c.Services[i-1].Name.Compare(s.Name) >= 0 {
			return nil, fmt.Errorf("Service %q: Services are not sorted by namespace and name", s.Name)
		}
		for j := range one.Ports {
			port := service.Port(one.Ports[j].portFields)
			s.Ports = append(s.Ports, port)
			endpoints, err := one.Ports[j].endpoints()
			if err != nil {
				return nil, fmt.Errorf("Service %q, port %q: %w", s.Name, port.Name, err)
			}
			if len(endpoints) > 0 {
				c.Endpoints[s.PortName(&port)] = endpoints
			}
		}
		c.Services = append(c.Services, &s)
	}
	return c, nil
}

func (w *wirePort) endpoints() ([]service.Endpoint, error) {
	all := make([]service.Endpoint, 0, len(w.Endpoints))
	for _, e := range w.Endpoints {
		if !e.Addr.IsValid() {
			return nil, errors.New("an endpoint has no address")
		}
		all = append(all, service.Endpoint(e))
	}
	if !slices.IsSortedFunc(all, func(a, b service.Endpoint) int { return a.Addr.Compare(b.Addr) }) {
		return nil, errors.New("endpoints are not sorted by address")
	}
	return all, nil
}

// wireFlow is an element of flows.json, FlowTally.
type wireFlow struct {
	Protocol  uint8          `json:"protocol"` // IPPROTO_*
	To        netip.AddrPort `json:"to"`
	From      netip.AddrPort `json:"from"`
	Entries   uint64         `json:"entries"`
	Unreplied uint64         `json:"unreplied,omitempty"`
	Closing   uint64         `json:"closing,omitempty"`
}

// wireFlows is flows.json.
type wireFlows struct {
	Flows []wireFlow `json:"flows"`
}

func newWireFlows(all []FlowTally) wireFlows {
	w := wireFlows{Flows: make([]wireFlow, 0, len(all))}
	for _, f := range all {
		w.Flows = append(w.Flows, wireFlow{f.Protocol, f.To, f.From, f.Entries, f.Unreplied, f.Closing})
	}
	return w
}

func (w *wireFlows) tallies() []FlowTally {
	all := make([]FlowTally, 0, len(w.Flows))
	for _, f := range w.Flows {
		all = append(all, FlowTally{
			Protocol: f.Protocol, To: f.To, From: f.From, Entries: f.Entries, Unreplied: f.Unreplied, Closing: f.Closing,
		})
	}
	return all
}
