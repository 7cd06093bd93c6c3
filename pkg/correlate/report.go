// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"net/netip"
	"time"
)

// ServicesReport is a Snapshot's Services in the shape that the HTTP path
// /api/v1/services returns and that `svcscope services -o json` prints. Its
// JSON names are a contract (docs/api.md): fields may be added, but none is
// renamed or changes its meaning. It shares no memory with the Snapshot.
type ServicesReport struct {
	ReportHead
	// Items has one element a Service port and IP family, in the
	// Snapshot's order.
	Items []ServiceReport `json:"items"`
	// Other sums what the Services above the series cap counted.
	Other []OtherReport `json:"other,omitempty"`
}

// ReportHead is what all reports begin with.
type ReportHead struct {
	Node string `json:"node"`
	// Time is when the kernel was read, in UTC, to the millisecond.
	Time      time.Time    `json:"time"`
	Source    ReportSource `json:"source"`
	ProxyMode string       `json:"proxyMode,omitempty"` // as NodeInfo.ProxyMode
	Backend   string       `json:"backend,omitempty"`   // as NodeInfo.Backend
	Kube      KubeReport   `json:"kube"`
	// Collectors has one element a source that was read; numbers that come
	// from a source without success are missing or old.
	Collectors []CollectorReport `json:"collectors"`
}

func newReportHead(s *Snapshot) ReportHead {
	h := ReportHead{
		Node:       s.Node.Name,
		Time:       s.Time.UTC().Truncate(time.Millisecond),
		Source:     SourceAgent,
		ProxyMode:  s.Node.ProxyMode,
		Backend:    s.Node.Backend,
		Kube:       KubeReport{Enabled: s.Kube.Enabled, Synced: s.Kube.Synced, Error: s.Kube.Err},
		Collectors: make([]CollectorReport, 0, len(s.Self.Collectors)),
	}
	for _, c := range s.Self.Collectors {
		h.Collectors = append(h.Collectors, CollectorReport{Name: c.Name, Success: c.Success, Error: c.Err})
	}
	return h
}

// ReportSource is who read the kernel, and so what the counts start from.
type ReportSource string

// The sources.
const (
	SourceAgent  ReportSource = "agent"  // totals since ServiceReport.Since
	SourceKernel ReportSource = "kernel" // one reading: since each rule was written
)

// KubeReport is the state of the API watch.
type KubeReport struct {
	Enabled bool   `json:"enabled"`
	Synced  bool   `json:"synced"`
	Error   string `json:"error,omitempty"`
}

// CollectorReport tells how the last reading of one source went.
type CollectorReport struct {
	Name    string `json:"name"`
	Success bool   `json:"success"`
	Error   string `json:"error,omitempty"`
}

// ServiceReport is one port of a Service in one IP family.
type ServiceReport struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	PortName  string `json:"portName,omitempty"`
	Protocol  string `json:"protocol"` // TCP, UDP, SCTP
	IPFamily  string `json:"ipFamily"` // IPv4, IPv6

	Type      string `json:"type,omitempty"`
	ClusterIP string `json:"clusterIP,omitempty"`
	Port      uint16 `json:"port,omitempty"`
	NodePort  uint16 `json:"nodePort,omitempty"`

	// Connections is nil where Uncounted says why.
	Connections *ConnectionsReport `json:"connections,omitempty"`
	// Uncounted is why the Service has no counts of its own; empty: it has.
	Uncounted Uncounted `json:"uncounted,omitempty"`
	// Since is when the counts started at 0; nil where they are the rules'
	// own counters, or where there are none.
	Since *time.Time `json:"since,omitempty"`
	// RejectedPackets is by reason, in the spelling of the metric's label;
	// only reasons that were seen.
	RejectedPackets map[Reason]uint64 `json:"rejectedPackets,omitempty"`
	Endpoints       EndpointsReport   `json:"endpoints"`
	// Rules counts the Service's rules on this node, by table.
	Rules map[string]int `json:"rules,omitempty"`
}

// Uncounted is why a Service has no counts of its own.
type Uncounted string

// The reasons of Uncounted.
const (
	// UncountedMode: nothing counts in ServicesReport.ProxyMode yet.
	UncountedMode Uncounted = "proxy_mode"
	// UncountedUnread: the rules could not be read.
	UncountedUnread Uncounted = "rules_unread"
	// UncountedCap: the Service is above the agent's series cap and its
	// counts are part of ServicesReport.Other. One reading has no cap.
	UncountedCap Uncounted = "above_cap"
)

// ConnectionsReport counts new connections that were sent to an endpoint.
type ConnectionsReport struct {
	Total    uint64 `json:"total"`
	Cluster  uint64 `json:"cluster"`  // by the cluster address
	External uint64 `json:"external"` // by a node port, external or load-balancer address
}

// EndpointsReport sets the endpoints in the kernel's rules beside those that
// the API gives this node.
type EndpointsReport struct {
	// Kernel is nil where the rules do not tell: they could not be read, or
	// are of a proxy's mode that is not understood yet.
	Kernel *int `json:"kernel,omitempty"`
	// API is nil while the API is not known.
	API   *int             `json:"api,omitempty"`
	Items []EndpointReport `json:"items,omitempty"`
}

// EndpointReport is one endpoint on this node.
type EndpointReport struct {
	Address string `json:"address"` // address:port, [address]:port in IPv6
	// InKernel and InAPI are nil where EndpointsReport's counts are.
	InKernel *bool `json:"inKernel,omitempty"`
	InAPI    *bool `json:"inAPI,omitempty"`
	// Connections is nil where ServiceReport.Connections is.
	Connections *uint64 `json:"connections,omitempty"`
}

// OtherReport sums the Services above the series cap of one protocol and
// IP family.
type OtherReport struct {
	Protocol        string            `json:"protocol"`
	IPFamily        string            `json:"ipFamily"`
	Services        int               `json:"services"`
	Connections     ConnectionsReport `json:"connections"`
	Since           *time.Time        `json:"since,omitempty"`
	RejectedPackets map[Reason]uint64 `json:"rejectedPackets,omitempty"`
}

// NewServicesReport formats s. The source is the agent unless a Service's
// counts are since its rules; a caller that read the kernel itself sets
// Source, as a node without Services does not tell.
func NewServicesReport(s *Snapshot) ServicesReport {
	r := ServicesReport{ReportHead: newReportHead(s), Items: make([]ServiceReport, 0, len(s.Services))}
	for _, p := range s.Services {
		if p.SinceRule {
			r.Source = SourceKernel
		}
		r.Items = append(r.Items, newServiceReport(p, s.Node.ProxyMode))
	}
	for i := range s.Other {
		o := &s.Other[i]
		if o.Uncounted {
			continue
		}
		r.Other = append(r.Other, OtherReport{
			Protocol: string(o.Protocol), IPFamily: o.Family.String(), Services: o.Services,
			Connections:     newConnectionsReport(o.Cluster, o.External),
			Since:           reportTime(o.Created),
			RejectedPackets: copyMap(o.Rejected),
		})
	}
	return r
}

func newServiceReport(p *ServicePort, mode string) ServiceReport {
	r := ServiceReport{
		Namespace: p.Port.Namespace,
		Name:      p.Port.Name.Name,
		PortName:  p.Port.Port,
		Protocol:  string(p.Port.Protocol),
		IPFamily:  p.Family.String(),
		Type:      p.Type,
		ClusterIP: reportAddr(p.ClusterIP),
		Port:      p.Number,
		NodePort:  p.NodePort,
		Rules:     copyMap(p.Rules),
		Uncounted: uncounted(p, mode),
	}
	if r.Uncounted == "" {
		c := newConnectionsReport(p.Cluster, p.External)
		r.Connections = &c
		r.RejectedPackets = copyMap(p.Rejected)
		if !p.SinceRule {
			r.Since = reportTime(p.Created)
		}
	}
	r.Endpoints = newEndpointsReport(p, r.Connections != nil)
	return r
}

func newEndpointsReport(p *ServicePort, counted bool) EndpointsReport {
	inKernel, inAPI := p.KernelCount >= 0, p.APICount >= 0
	r := EndpointsReport{Kernel: known(p.KernelCount, inKernel), API: known(p.APICount, inAPI)}
	for _, e := range p.Endpoints {
		r.Items = append(r.Items, EndpointReport{
			Address:     e.Addr.String(),
			InKernel:    known(e.InKernel, inKernel),
			InAPI:       known(e.InAPI, inAPI),
			Connections: known(e.Connections, counted),
		})
	}
	return r
}

// known returns v, or nil where ok is false.
func known[T any](v T, ok bool) *T {
	if !ok {
		return nil
	}
	return &v
}

// uncounted is why p has no counts of its own in a proxy's mode.
func uncounted(p *ServicePort, mode string) Uncounted {
	switch {
	case p.Uncounted && (mode == "nftables" || mode == "ipvs"):
		return UncountedMode
	case p.Uncounted || p.SinceRule && p.KernelCount < 0:
		return UncountedUnread
	case !p.Exposed && !p.SinceRule:
		return UncountedCap
	}
	return ""
}

func newConnectionsReport(cluster, external uint64) ConnectionsReport {
	return ConnectionsReport{Total: cluster + external, Cluster: cluster, External: external}
}

func reportAddr(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func reportTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC().Truncate(time.Millisecond)
	return &t
}

func copyMap[K comparable, V int | uint64](m map[K]V) map[K]V {
	if len(m) == 0 {
		return nil
	}
	c := make(map[K]V, len(m))
	for k, v := range m {
		if v != 0 {
			c[k] = v
		}
	}
	return c
}
