// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"net/netip"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/ledger"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/service"
)

// Names gives Service ports to the hashes in chains' names and to refusal
// rules: from the API where it is known, else from comments that the hash
// confirms.
type Names struct {
	catalog *service.Catalog // nil where the API is not known
	byHash  map[string]service.PortName
	pods    *service.Pods // nil where they are not watched
}

// NewNames returns the names of a catalog; nil, or one that is not synced,
// leaves comments only.
func NewNames(c *service.Catalog) *Names {
	n := &Names{}
	if c != nil && c.Synced {
		n.catalog, n.byHash = c, kubeproxy.NamesFromCatalog(c)
	}
	return n
}

// Next returns the names of another catalog, with the same pods. What one with the same
// Services has of them is shared: only endpoints differ, which are looked up.
func (n *Names) Next(c *service.Catalog) *Names {
	if n == nil {
		return NewNames(c)
	}
	next := &Names{catalog: c, byHash: n.byHash}
	if c == nil || !c.Synced || !next.SameServices(n) {
		next = NewNames(c)
	}
	next.pods = n.pods
	return next
}

// Exists reports whether there is a Service of that name; true where the API is not
// known.
func (n *Names) Exists(name service.Name) bool {
	return n.catalog == nil || n.catalog.Service(name) != nil
}

// SameServices reports whether two names are of catalogs that share their list
// of Services.
func (n *Names) SameServices(m *Names) bool {
	if n == m {
		return true
	}
	if n == nil || m == nil || n.catalog == nil || m.catalog == nil {
		return false
	}
	return n.catalog.SameServices(m.catalog)
}

// port names the port of a set of chains; ok is false where nothing does.
func (n *Names) port(p *kubeproxy.PortChains) (name service.PortName, ok bool) {
	if name, ok = n.byHash[p.Hash]; ok {
		return name, true
	}
	return p.Name, p.Named
}

// refusal names the port whose packets a rule refuses.
func (n *Names) refusal(r *kubeproxy.Refusal) (name service.PortName, ok bool) {
	if name, ok = n.byHash[r.Hash]; ok {
		return name, true
	}
	if n.catalog != nil {
		var m service.Match
		if f := r.Frontend; f.Addr.IsValid() {
			m, ok = n.catalog.ByAddr(netip.AddrPortFrom(f.Addr, f.Port), f.Protocol)
		} else {
			m, ok = n.catalog.ByNodePort(f.Port, f.Protocol)
		}
		if ok {
			return m.PortName(), true
		}
	}
	return r.Name, r.Named && r.Name.Protocol != ""
}

// KnownPorts lists the Service ports that exist: those of the API, or those
// that the rules name where it is not known.
func KnownPorts(rules []Rules, names *Names) ledger.Known {
	if names.catalog != nil {
		return ledger.Known{Ports: catalogPorts(names.catalog), UIDs: catalogUIDs(names.catalog), Complete: true}
	}
	var k ledger.Known
	add := func(name service.PortName, f netfilter.Family) { k.Ports = append(k.Ports, ledgerPort(name, f)) }
	for i := range rules {
		v := rules[i].View
		for _, p := range v.Ports {
			if name, ok := names.port(p); ok {
				add(name, v.Family)
			}
		}
		for i := range v.Refusals {
			if name, ok := names.refusal(&v.Refusals[i]); ok {
				add(name, v.Family)
			}
		}
	}
	return k
}

func catalogPorts(c *service.Catalog) []ledger.Port {
	var ports []ledger.Port
	for _, svc := range c.Services {
		for _, f := range families(svc) {
			for i := range svc.Ports {
				ports = append(ports, ledgerPort(svc.PortName(&svc.Ports[i]), f))
			}
		}
	}
	return ports
}

func catalogUIDs(c *service.Catalog) map[ledger.Service]string {
	uids := make(map[ledger.Service]string, len(c.Services))
	for _, svc := range c.Services {
		uids[ledger.Service{Namespace: svc.Name.Namespace, Name: svc.Name.Name}] = svc.UID
	}
	return uids
}

// families returns those in which kube-proxy serves a Service.
func families(svc *service.Service) []netfilter.Family {
	if svc.ProxyName != "" {
		return nil
	}
	var fs []netfilter.Family
	for _, f := range []netfilter.Family{netfilter.IPv4, netfilter.IPv6} {
		if svc.ClusterIP(f == netfilter.IPv6).IsValid() {
			fs = append(fs, f)
		}
	}
	return fs
}
