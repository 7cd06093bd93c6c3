// SPDX-License-Identifier: Apache-2.0

package nodediff

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/service"
)

// api compares what the API wanted when the two nodes were read: one of them may be
// behind, or was read at another time. Where one does not know, nothing is compared.
func (c *comparison) api(a, b *port) []Difference {
	if c.a.node.Catalog == nil || c.b.node.Catalog == nil {
		return nil
	}
	var out []Difference
	x, y := a.fields(), b.fields()
	for _, name := range keys(x, y) {
		out = append(out, value(API, name, x[name], y[name])...)
	}
	x, y = a.apiEndpoints(), b.apiEndpoints()
	for _, address := range keys(x, y) {
		out = append(out, value(API, "endpoint "+address, x[address], y[address])...)
	}
	return out
}

// fields are those of a Service that kube-proxy heeds, in the API's words.
func (p *port) fields() map[string]string {
	out := make(map[string]string)
	s := p.svc
	if s == nil || !s.ClusterIP(p.family == netfilter.IPv6).IsValid() {
		return out
	}
	at := &s.Ports[p.number]
	for name, text := range map[string]string{
		"type": s.Type, "clusterIP": addressTexts(s.ClusterIPs, p.family), "externalIPs": addressTexts(s.ExternalIPs, p.family),
		"load balancer's addresses": addressTexts(s.LoadBalancerIPs, p.family),
		"port":                      fmt.Sprint(at.Port), "nodePort": number(at.NodePort), "healthCheckNodePort": number(s.HealthCheckNodePort),
		"loadBalancerSourceRanges": texts(s.LoadBalancerSourceRanges), "internalTrafficPolicy": policyText(s.InternalLocal),
		"externalTrafficPolicy": policyText(s.ExternalLocal), "sessionAffinity": affinityText(s), "service-proxy-name": s.ProxyName,
		"uid": s.UID,
	} {
		if text != "" {
			out[name] = text
		}
	}
	return out
}

func number(n uint16) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func policyText(local bool) string {
	if local {
		return "Local"
	}
	return "Cluster"
}

func affinityText(s *service.Service) string {
	if s.ClientIPAffinity {
		return fmt.Sprintf("ClientIP for %d s", s.AffinitySeconds)
	}
	return "None"
}

// texts are values in order.
func texts[T fmt.Stringer](all []T) string {
	out := make([]string, 0, len(all))
	for _, v := range all {
		out = append(out, v.String())
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}

func addressTexts(all []netip.Addr, f netfilter.Family) string {
	return texts(slices.DeleteFunc(slices.Clone(all), func(a netip.Addr) bool { return a.Is6() != (f == netfilter.IPv6) }))
}

// apiEndpoints are a port's endpoints by address.
func (p *port) apiEndpoints() map[string]string {
	out := make(map[string]string)
	if p.svc == nil {
		return out
	}
	for _, e := range p.side.node.Catalog.EndpointsOf(p.name, p.family == netfilter.IPv6) {
		words := []string{"not ready"}
		if e.Ready {
			words[0] = "ready"
		}
		for word, is := range map[string]bool{
			"serving": e.Serving && !e.Ready, "terminating": e.Terminating, "on " + e.NodeName: e.NodeName != "",
			"zone " + e.Zone: e.Zone != "",
			"for nodes " + strings.Join(e.ForNodes, " "): len(e.ForNodes) > 0,
			"for zones " + strings.Join(e.ForZones, " "): len(e.ForZones) > 0,
		} {
			if is {
				words = append(words, word)
			}
		}
		slices.Sort(words[1:])
		out[e.Addr.String()] = strings.Join(words, ", ")
	}
	return out
}
