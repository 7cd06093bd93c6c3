// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/service"
)

// staticRules is about what kube-proxy writes without any Service, in one family.
const staticRules = 30

// ExpectedRules estimates, rather too high, how many rules kube-proxy's
// iptables mode makes of the API's Services on a node, in both families
// (syncProxyRules in pkg/proxy/iptables/proxier.go): a dispatch rule for each
// address; of a port with endpoints KUBE-SVC's rules and two for each endpoint;
// KUBE-EXT's where it is reached from outside, and KUBE-SVL's. Jumps count twice,
// as in the sum of chains' use.
func ExpectedRules(c *service.Catalog) int {
	n := 2 * staticRules
	for _, svc := range c.Services {
		for _, f := range families(svc) {
			for i := range svc.Ports {
				n += expectedRules(c, svc, &svc.Ports[i], f)
			}
		}
	}
	return n
}

func expectedRules(c *service.Catalog, svc *service.Service, p *service.Port, f Family) int {
	v6 := f == netfilter.IPv6
	n := 1
	for _, a := range svc.ExternalIPs {
		if a.Is6() == v6 {
			n++
		}
	}
	for _, a := range svc.LoadBalancerIPs {
		if a.Is6() == v6 {
			n++
		}
	}
	if p.NodePort != 0 {
		n++
	}
	endpoints := len(c.EndpointsOf(svc.PortName(p), v6))
	if endpoints == 0 {
		return n
	}
	n += n + 2 + 5*endpoints
	if svc.ExternallyAccessible(p, v6) {
		n += 8
		if svc.ExternalLocal {
			n += 2 * endpoints
		}
	}
	return n
}
