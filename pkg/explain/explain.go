// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/svcscope/svcscope/pkg/capture"
	"github.com/svcscope/svcscope/pkg/drift"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// Query is what is to be explained.
type Query struct {
	Service service.Name
	// Port is a port's name or number; empty: all.
	Port string
}

func (q *Query) String() string {
	if q.Port == "" {
		return q.Service.String()
	}
	return q.Service.String() + ":" + q.Port
}

// New explains what a reading of a node holds of a Service. It is an error where
// neither the API nor the rules have it.
func New(n *capture.Node, q Query) (*Report, error) {
	b := newBuilder(n, q.Service)
	ports := b.ports()
	if b.svc == nil && len(ports) == 0 {
		return nil, b.unknown(&q)
	}
	if q.Port != "" {
		if ports = selectPorts(ports, q.Port); len(ports) == 0 {
			return nil, fmt.Errorf("find port %s of service %s: %s", q.Port, q.Service, listPorts(b.ports()))
		}
	}
	r := b.head()
	for i := range ports {
		for _, f := range families() {
			r.Paths = append(r.Paths, b.paths(&ports[i], f)...)
		}
	}
	for _, f := range families() {
		if slices.ContainsFunc(r.Paths, func(p Path) bool { return p.IPFamily == f.String() }) {
			r.Families = append(r.Families, b.family(f))
		}
	}
	return r, nil
}

func families() [2]netfilter.Family { return [...]netfilter.Family{netfilter.IPv4, netfilter.IPv6} }

// builder has what a report is made of.
type builder struct {
	node    *capture.Node
	name    service.Name
	catalog *service.Catalog // nil where the API is not known
	svc     *service.Service // nil where the API does not have it
	sides   []*side
	result  *drift.Result
}

// side is one backend's rules of one family.
type side struct {
	set      *ruleset.Ruleset
	view     *kubeproxy.View
	nftables bool // a table of kube-proxy's nftables mode is there, too
}

func newBuilder(n *capture.Node, name service.Name) *builder {
	b := &builder{node: n, name: name}
	if n.Catalog != nil && n.Catalog.Synced {
		b.catalog = n.Catalog
		b.svc = n.Catalog.Service(name)
	}
	in := drift.Input{Catalog: b.catalog, NodeMissing: n.NodeMissing, IPVS: n.IPVS}
	for i := range n.Rules {
		rules := &n.Rules[i]
		if all := families(); !slices.Contains(all[:], rules.Set.Family) {
			continue
		}
		s := &side{set: rules.Set, view: kubeproxy.NewView(rules.Set), nftables: rules.NFTablesMode}
		b.sides = append(b.sides, s)
		in.Rules = append(in.Rules, drift.Rules{View: s.view, Set: s.set, NFTablesMode: s.nftables})
	}
	b.result = drift.Compare(&in)
	return b
}

// unknown is why nothing is known of a Service.
func (b *builder) unknown(q *Query) error {
	switch {
	case b.catalog != nil:
		return fmt.Errorf("find service %s: not in the API nor in the rules of this node", q)
	case len(b.node.Unread) > 0:
		return fmt.Errorf("find service %s: not in the rules that could be read, and the API is not known", q)
	case slices.ContainsFunc(b.sides, func(s *side) bool { return b.mode(s.set.Family) == "iptables" }):
		return fmt.Errorf("find service %s: not in the rules of this node, and the API is not known", q)
	}
	for _, f := range families() {
		if m := b.mode(f); m == "nftables" || m == "ipvs" {
			return fmt.Errorf("find service %s: unknown without the API, as kube-proxy works in %s mode here", q, m)
		}
	}
	return fmt.Errorf("find service %s: unknown without the API, as kube-proxy has no rules here", q)
}

// head is the report without its paths.
func (b *builder) head() *Report {
	n := b.node
	r := &Report{
		Node: n.Name, Time: n.Time.UTC().Truncate(time.Millisecond), Kernel: n.Kernel, ConntrackError: n.FlowsError,
		Kube: Kube{
			Enabled: n.Catalog != nil || n.KubeError != "", Synced: b.catalog != nil, Error: n.KubeError, NodeMissing: n.NodeMissing,
		},
		Service: b.service(), Families: []Family{}, Paths: []Path{},
	}
	for backend, why := range n.Unread {
		if r.Unread == nil {
			r.Unread = make(map[string]string)
		}
		r.Unread[string(backend)] = why
	}
	return r
}

func (b *builder) service() Service {
	s := Service{Namespace: b.name.Namespace, Name: b.name.Name}
	if b.catalog != nil {
		s.InAPI = new(b.svc != nil)
	}
	v := b.svc
	if v == nil {
		return s
	}
	s.Type, s.Skipped, s.ProxyName = v.Type, skipped(v), v.ProxyName
	s.ClusterIPs, s.ExternalIPs, s.LoadBalancerIPs = texts(v.ClusterIPs), texts(v.ExternalIPs), texts(v.LoadBalancerIPs)
	s.ProxyModeIPs, s.SourceRanges = texts(v.ProxyModeIPs), texts(v.LoadBalancerSourceRanges)
	s.HealthCheckNodePort = v.HealthCheckNodePort
	if v.ClientIPAffinity {
		s.AffinitySeconds = uint32(v.AffinitySeconds)
	}
	if s.Skipped != "" {
		return s
	}
	s.InternalTrafficPolicy = policy(v.InternalLocal)
	external := func(p service.Port) bool {
		return v.ExternallyAccessible(&p, false) || v.ExternallyAccessible(&p, true)
	}
	if slices.ContainsFunc(v.Ports, external) {
		s.ExternalTrafficPolicy = policy(v.ExternalLocal)
	}
	return s
}

func policy(local bool) string {
	if local {
		return "Local"
	}
	return "Cluster"
}

// skipped is why kube-proxy does nothing for a Service.
func skipped(v *service.Service) Unexplained {
	switch {
	case v.Type == "ExternalName":
		return ExternalName
	case v.ProxyName != "":
		return OtherProxy
	case v.Headless():
		return Headless
	}
	return ""
}

func texts[T fmt.Stringer](values []T) []string {
	var out []string
	for _, v := range values {
		out = append(out, v.String())
	}
	return out
}

// port is one port of the Service.
type port struct {
	name   service.PortName
	api    *service.Port // nil where the API does not have it
	number uint16        // 0 where nothing tells
}

// ports are those of the API in its order, and then those that rules alone have.
func (b *builder) ports() []port {
	var out []port
	if b.svc != nil {
		for i := range b.svc.Ports {
			p := &b.svc.Ports[i]
			out = append(out, port{b.svc.PortName(p), p, p.Port})
		}
	}
	known := len(out)
	for _, s := range b.sides {
		b.portsOf(s.view, func(name service.PortName, f *kubeproxy.Frontend) {
			i := slices.IndexFunc(out, func(p port) bool { return p.name == name })
			if i < 0 {
				i = len(out)
				out = append(out, port{name: name})
			}
			if f != nil && f.Kind != kubeproxy.NodePort && out[i].number == 0 {
				out[i].number = f.Port
			}
		})
	}
	slices.SortFunc(out[known:], func(a, b port) int { return a.name.Compare(b.name) })
	return out
}

// portsOf calls add for all that names a port of the Service in the rules, with the
// address that is concerned, if there is one.
func (b *builder) portsOf(v *kubeproxy.View, add func(service.PortName, *kubeproxy.Frontend)) {
	for _, p := range v.Ports {
		if p.Named && p.Name.Name == b.name {
			add(p.Name, nil)
		}
	}
	for i := range v.Dispatch {
		if d := &v.Dispatch[i]; d.Named && d.Name.Name == b.name {
			add(d.Name, &d.Frontend)
		}
	}
	for i := range v.Refusals {
		if r := &v.Refusals[i]; r.Named && r.Name.Name == b.name && r.Name.Protocol != "" {
			add(r.Name, &r.Frontend)
		}
	}
}

// selectPorts are the ports of a name or number.
func selectPorts(all []port, want string) []port {
	number, err := strconv.ParseUint(want, 10, 16)
	return slices.DeleteFunc(slices.Clone(all), func(p port) bool {
		return p.name.Port != want && (err != nil || number == 0 || p.number != uint16(number))
	})
}

// listPorts says which ports there are.
func listPorts(all []port) string {
	if len(all) == 0 {
		return "it has no ports"
	}
	var out []string
	for i := range all {
		out = append(out, portText(all[i].name.Port, all[i].number, string(all[i].name.Protocol)))
	}
	return "it has " + strings.Join(out, ", ")
}

// portText is "http 80/TCP".
func portText(name string, number uint16, protocol string) string {
	text := protocol
	if number != 0 {
		text = strconv.Itoa(int(number)) + "/" + protocol
	}
	return strings.TrimSpace(name + " " + text)
}
