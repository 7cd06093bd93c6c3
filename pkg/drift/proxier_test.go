// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/service"
)

// proxier writes rules as syncProxyRules of pkg/proxy/iptables/proxier.go does, line by line
// after its source (Kubernetes 1.37.2), with flags. It shares with the product the names
// of chains alone.
type proxier struct {
	catalog *service.Catalog
	ipv6    bool
	flags
	filter, nat chains
}

// flags of kube-proxy that change rules.
type flags struct {
	masqueradeAll     bool
	detectLocal       string   // the condition that a packet is a pod's; none: not implemented
	localhost         bool     // --iptables-localhost-nodeports
	nodePortAddresses []string // nil: all of them
	large             bool     // more than 1,000 endpoints
	noExternalIPs     bool     // AllowServiceExternalIPs=false
	older             bool     // 1.27: no hints without the annotation, ranges of length 0 as any
}

// chains are the lines of each chain, after "-A CHAIN ".
type chains map[string][]string

func (c chains) chain(name string) {
	if c[name] == nil {
		c[name] = []string{}
	}
}

func (c chains) write(chain, format string, args ...any) {
	c[chain] = append(c[chain], strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " "))
}

// sync returns the lines of all chains of kube-proxy.
func (p *proxier) sync() {
	p.filter, p.nat = chains{}, chains{}
	for _, c := range []string{"KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-FORWARD", "KUBE-NODEPORTS", "KUBE-PROXY-FIREWALL"} {
		p.filter.chain(c)
	}
	for _, c := range []string{"KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ"} {
		p.nat.chain(c)
	}
	p.nat.write("KUBE-POSTROUTING", "-m mark ! --mark 0x4000/0x4000 -j RETURN")
	p.nat.write("KUBE-POSTROUTING", "-j MARK --set-xmark 0x4000/0x0")
	p.nat.write("KUBE-POSTROUTING", `-m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully`)
	p.nat.write("KUBE-MARK-MASQ", "-j MARK --set-xmark 0x4000/0x4000")
	for _, svc := range p.catalog.Services {
		if svc.ProxyName != "" || !svc.ClusterIP(p.ipv6).IsValid() {
			continue
		}
		for i := range svc.Ports {
			p.servicePort(svc, &svc.Ports[i])
		}
	}
	p.nodePorts()
	p.filter.write("KUBE-FORWARD", "-m conntrack --ctstate INVALID -j DROP")
	p.filter.write("KUBE-FORWARD", "-m mark --mark 0x4000/0x4000 -j ACCEPT")
	p.filter.write("KUBE-FORWARD", "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
}

func (p *proxier) nodePorts() {
	if p.nodePortAddresses == nil {
		p.nat.write("KUBE-SERVICES", `-m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS`)
	}
	for _, ip := range p.nodePortAddresses {
		p.nat.write("KUBE-SERVICES", `-d %s -j KUBE-NODEPORTS`, ip)
	}
}

// comment is appendServiceCommentLocked.
func (p *proxier) comment(text string) string {
	if p.large {
		return ""
	}
	return `-m comment --comment "` + text + `"`
}

func (p *proxier) servicePort(svc *service.Service, port *service.Port) {
	name := svc.PortName(port)
	proto := strings.ToLower(string(port.Protocol))
	hash := kubeproxy.Hash(name)
	svcChain, svlChain, extChain, fwChain := "KUBE-SVC-"+hash, "KUBE-SVL-"+hash, "KUBE-EXT-"+hash, "KUBE-FW-"+hash
	accessible := svc.ExternallyAccessible(port, p.ipv6)
	usesCluster := !svc.InternalLocal || accessible
	usesLocal := svc.InternalLocal || svc.ExternalLocal && accessible
	cluster, local, all, has := p.categorize(p.catalog.EndpointsOf(name, p.ipv6), usesCluster, usesLocal)

	internalChain, hasInternal := svcChain, has
	if svc.InternalLocal {
		internalChain, hasInternal = svlChain, has && len(local) > 0
	}
	externalChain, hasExternal := svcChain, has
	if svc.ExternalLocal {
		externalChain, hasExternal = svlChain, has && len(local) > 0
	}
	ips := func(addrs []netip.Addr) []netip.Addr {
		return slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return a.Is6() != p.ipv6 })
	}
	lbIPs, externalIPs := ips(svc.LoadBalancerIPs), ips(svc.ExternalIPs)
	if p.noExternalIPs {
		externalIPs = nil
	}
	ranges, any := []netip.Prefix{}, false
	for _, r := range svc.LoadBalancerSourceRanges {
		if r.Addr().Is6() == p.ipv6 {
			ranges, any = append(ranges, r.Masked()), any || r.Bits() == 0
		}
	}
	if any && !p.older {
		ranges = nil
	}
	usesFW := has && len(lbIPs) > 0 && len(ranges) > 0
	lbChain := extChain
	if usesFW {
		lbChain = fwChain
	}
	internalRefusal, externalRefusal := `"`+name.String()+` has no local endpoints"`, `"`+name.String()+` has no local endpoints"`
	target := "DROP"
	if !has {
		internalRefusal = `"` + name.String() + ` has no endpoints"`
		externalRefusal, target = internalRefusal, "REJECT"
	}
	match := func(ip netip.Addr) string {
		return fmt.Sprintf("-m %s -p %s -d %s --dport %d", proto, proto, ip, port.Port)
	}

	vip := match(svc.ClusterIP(p.ipv6))
	if hasInternal {
		p.nat.write("KUBE-SERVICES", `-m comment --comment "%s cluster IP" %s -j %s`, name, vip, internalChain)
	} else {
		p.filter.write("KUBE-SERVICES", `-m comment --comment %s %s -j %s`, internalRefusal, vip, target)
	}
	for _, ip := range externalIPs {
		if has {
			p.nat.write("KUBE-SERVICES", `-m comment --comment "%s external IP" %s -j %s`, name, match(ip), extChain)
		}
		if !hasExternal {
			p.filter.write("KUBE-EXTERNAL-SERVICES", `-m comment --comment %s %s -j %s`, externalRefusal, match(ip), target)
		}
	}
	for _, ip := range lbIPs {
		if has {
			p.nat.write("KUBE-SERVICES", `-m comment --comment "%s loadbalancer IP" %s -j %s`, name, match(ip), lbChain)
		}
		if usesFW {
			p.filter.write("KUBE-PROXY-FIREWALL", `-m comment --comment "%s traffic not accepted by %s" %s -j DROP`, name, fwChain, match(ip))
		}
		if !hasExternal {
			p.filter.write("KUBE-EXTERNAL-SERVICES", `-m comment --comment %s %s -j %s`, externalRefusal, match(ip), target)
		}
	}
	if port.NodePort != 0 {
		if has && p.localhost && !p.ipv6 {
			p.nat.write("KUBE-NODEPORTS", `-m comment --comment %s -m %s -p %s -d 127.0.0.0/8 --dport %d -j %s`, name, proto, proto, port.NodePort, extChain)
		}
		if has {
			p.nat.write("KUBE-NODEPORTS", `-m comment --comment %s -m %s -p %s --dport %d -j %s`, name, proto, proto, port.NodePort, extChain)
		}
		if !hasExternal {
			p.filter.write("KUBE-EXTERNAL-SERVICES", `-m comment --comment %s -m addrtype --dst-type LOCAL -m %s -p %s --dport %d -j %s`, externalRefusal, proto, proto, port.NodePort, target)
		}
	}
	if svc.HealthCheckNodePort != 0 {
		p.filter.write("KUBE-NODEPORTS", `-m comment --comment "%s health check node port" -m tcp -p tcp --dport %d -j ACCEPT`, name, svc.HealthCheckNodePort)
	}
	if hasInternal {
		comment := fmt.Sprintf(`-m comment --comment "%s cluster IP"`, name)
		if p.masqueradeAll {
			p.nat.write(internalChain, `%s %s -j KUBE-MARK-MASQ`, comment, vip)
		} else if p.detectLocal != "" {
			p.nat.write(internalChain, `%s %s ! %s -j KUBE-MARK-MASQ`, comment, vip, p.detectLocal)
		}
	}
	if has && accessible {
		p.nat.chain(extChain)
		if !svc.ExternalLocal {
			p.nat.write(extChain, `-m comment --comment "masquerade traffic for %s external destinations" -j KUBE-MARK-MASQ`, name)
		} else {
			if p.detectLocal != "" {
				p.nat.write(extChain, `-m comment --comment "pod traffic for %s external destinations" %s -j %s`, name, p.detectLocal, svcChain)
			}
			p.nat.write(extChain, `-m comment --comment "masquerade LOCAL traffic for %s external destinations" -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ`, name)
			p.nat.write(extChain, `-m comment --comment "route LOCAL traffic for %s external destinations" -m addrtype --src-type LOCAL -j %s`, name, svcChain)
		}
		if hasExternal {
			p.nat.write(extChain, `-j %s`, externalChain)
		}
	}
	if usesFW {
		p.firewall(name, fwChain, extChain, ranges, lbIPs)
	}
	if len(cluster) > 0 && usesCluster {
		p.balance(svc, name, svcChain, cluster)
	}
	if len(local) > 0 && usesLocal {
		p.balance(svc, name, svlChain, local)
	}
	for _, ep := range all {
		chain := kubeproxy.EndpointChain(name, ep.Addr)
		p.nat[chain] = nil
		p.nat.write(chain, `%s -s %s -j KUBE-MARK-MASQ`, p.comment(name.String()), ep.Addr.Addr())
		recent := ""
		if svc.ClientIPAffinity {
			recent = "-m recent --name " + chain + " --set"
		}
		p.nat.write(chain, `%s %s -m %s -p %s -j DNAT --to-destination %s`, p.comment(name.String()), recent, proto, proto, ep.Addr)
	}
}

func (p *proxier) firewall(name service.PortName, fw, ext string, ranges []netip.Prefix, lbIPs []netip.Addr) {
	p.nat.chain(fw)
	fromNode := false
	for _, r := range ranges {
		source := "-s " + r.String()
		if r.Bits() == 0 { // iptables keeps no condition that always holds
			source = ""
		}
		p.nat.write(fw, `-m comment --comment "%s loadbalancer IP" %s -j %s`, name, source, ext)
		for _, ip := range p.catalog.Node.IPs {
			fromNode = fromNode || r.Contains(ip)
		}
	}
	for _, ip := range lbIPs {
		if fromNode {
			p.nat.write(fw, `-m comment --comment "%s loadbalancer IP" -s %s -j %s`, name, ip, ext)
		}
	}
	p.nat.write(fw, `-m comment --comment "other traffic to %s will be dropped by KUBE-PROXY-FIREWALL"`, name)
}

// balance is writeServiceToEndpointRules.
func (p *proxier) balance(svc *service.Service, name service.PortName, chain string, eps []service.Endpoint) {
	p.nat.chain(chain)
	eps = slices.Clone(eps)
	slices.SortFunc(eps, func(a, b service.Endpoint) int { return strings.Compare(a.Addr.String(), b.Addr.String()) })
	if svc.ClientIPAffinity {
		for _, ep := range eps {
			sep := kubeproxy.EndpointChain(name, ep.Addr)
			p.nat.write(chain, `%s -m recent --name %s --rcheck --seconds %d --reap -j %s`, p.comment(name.String()+" -> "+ep.Addr.String()), sep, svc.AffinitySeconds, sep)
		}
	}
	for i, ep := range eps {
		statistic := ""
		if i < len(eps)-1 {
			statistic = fmt.Sprintf("-m statistic --mode random --probability %0.10f", 1.0/float64(len(eps)-i))
		}
		p.nat.write(chain, `%s %s -j %s`, p.comment(name.String()+" -> "+ep.Addr.String()), statistic, kubeproxy.EndpointChain(name, ep.Addr))
	}
}

// categorize is CategorizeEndpoints of pkg/proxy/topology.go.
func (p *proxier) categorize(eps []service.Endpoint, usesCluster, usesLocal bool) (cluster, local, all []service.Endpoint, has bool) {
	pick := func(keep func(e *service.Endpoint) bool) (out []service.Endpoint) {
		for i := range eps {
			if keep(&eps[i]) {
				out = append(out, eps[i])
			}
		}
		return out
	}
	node := p.catalog.Node
	isLocal := func(e *service.Endpoint) bool { return e.NodeName == node.Name }
	if usesCluster {
		available := p.available(eps)
		cluster = pick(func(e *service.Endpoint) bool { return e.Ready && available(e) })
		if len(cluster) == 0 {
			cluster = pick(func(e *service.Endpoint) bool { return e.Serving && e.Terminating })
		}
		has = len(cluster) > 0
	}
	if !usesLocal {
		return cluster, nil, cluster, has
	}
	ready, terminating := false, false
	for i := range eps {
		switch e := &eps[i]; {
		case e.Ready:
			has, ready = true, ready || isLocal(e)
		case e.Serving && e.Terminating:
			has, terminating = true, terminating || isLocal(e)
		}
	}
	if ready {
		local = pick(func(e *service.Endpoint) bool { return isLocal(e) && e.Ready })
	} else if terminating {
		local = pick(func(e *service.Endpoint) bool { return isLocal(e) && e.Serving && e.Terminating })
	}
	all = slices.Concat(cluster, local)
	slices.SortFunc(all, func(a, b service.Endpoint) int { return a.Addr.Compare(b.Addr) })
	return cluster, local, slices.CompactFunc(all, func(a, b service.Endpoint) bool { return a.Addr == b.Addr }), has
}

// available is topologyModeFromHints and availableForTopology.
func (p *proxier) available(eps []service.Endpoint) func(*service.Endpoint) bool {
	anywhere := func(*service.Endpoint) bool { return true }
	node := p.catalog.Node
	inNode := func(e *service.Endpoint) bool { return slices.Contains(e.ForNodes, node.Name) }
	inZone := func(e *service.Endpoint) bool { return slices.Contains(e.ForZones, node.Zone) }
	nodes, zones, someNode, someZone, ready := true, true, false, false, false
	for i := range eps {
		e := &eps[i]
		if !e.Ready {
			continue
		}
		ready = true
		nodes, zones = nodes && len(e.ForNodes) > 0, zones && len(e.ForZones) > 0
		someNode, someZone = someNode || inNode(e), someZone || inZone(e)
	}
	switch {
	case !ready || p.older:
		return anywhere
	case nodes && someNode:
		return inNode
	case zones && someZone:
		return inZone
	}
	return anywhere
}
