// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/svcscope/svcscope/hack/lab/labtest"
)

// dropScene is a node with Services that kube-proxy refuses for every reason there is, rules
// of others that refuse packets, and an agent.
type dropScene struct {
	t         *testing.T
	native    bool // kube-proxy is in its nftables mode
	lab       *labtest.Lab
	agent     *agent
	services  map[string]labtest.Service // by name
	witnesses []witness                  // that the agent is told to have
	sent      []refusal                  // since the agent started
	logged    map[witnessed]int          // of these, by the rules' own counters
}

// refusal is some packets that are refused in one way.
type refusal struct {
	what    string
	from    string // the namespace that sends them
	kind    string // of packets
	to      string
	packets int
	counted dropped
}

// dropped is what svcscope_drop_packets_total tells packets apart by; all Services are in
// the namespace default.
type dropped struct{ reason, hook, owner, service string }

// witnessed is the same of svcscope_drop_witnessed_packets_total.
type witnessed struct{ source, reason, service string }

// witness sees some of what is refused. A further one is a further entry of witnesses.
type witness struct {
	flags []string // that have the agent hear it
	// listens says why the agent does not hear it, if it does not.
	listens func(*agent) error
	// saw is what it is given of what was sent.
	saw func(*dropScene) map[witnessed]int
}

func witnesses() []witness {
	return []witness{
		{
			flags:   []string{"--nflog.group=100"},
			listens: (*agent).readsGroup,
			saw:     func(s *dropScene) map[witnessed]int { return s.logged },
		},
		{flags: []string{"--tap"}, listens: (*agent).taps, saw: (*dropScene).tapped},
	}
}

// readsGroup says why the agent does not read group 100, if it does not.
func (a *agent) readsGroup() error {
	group := map[string]string{"group": "100"}
	if bound, n := a.metrics().sum("svcscope_nflog_group_bound", group); n != 1 || bound != 1 {
		return fmt.Errorf("svcscope_nflog_group_bound is %v in %d series: %s", bound, n, a.Output())
	}
	return nil
}

// taps says why the agent does not tap all that is refused, if it does not.
func (a *agent) taps() error {
	page, err := a.get("10988", "/api/v1/drops")
	if err != nil {
		return err
	}
	var report struct {
		Tap struct {
			Active  bool
			Refused int
			Group   struct{ Bound bool }
		}
	}
	if err := json.Unmarshal([]byte(page), &report); err != nil {
		return err
	}
	// By its cluster address and its node port, by an external one, by that of a load balancer,
	// and by a cluster address that wants local endpoints.
	if want := (2 + 1 + 1 + 1) * len(transports) * len(families); !report.Tap.Active || !report.Tap.Group.Bound || report.Tap.Refused < want {
		return fmt.Errorf("got %+v, want %d ways that refuse packets", report.Tap, want)
	}
	return nil
}

// tapped is what was refused toward a Service.
func (s *dropScene) tapped() map[witnessed]int {
	all := map[witnessed]int{}
	for _, r := range s.sent {
		if r.counted.service != "" {
			all[witnessed{"tap", r.counted.reason, r.counted.service}] += r.packets
		}
	}
	return all
}

// transports are what is sent over: the first packet of a flow, and one of none.
var transports = []struct{ name, first, invalid string }{
	{"tcp", synPacket, finPacket},
	{"udp", udpPacket, longPacket},
}

// Ports that rules of others refuse, and an address of the node's loopback device.
const (
	ownPort, ownLoggedPort = 7001, 7002

	localnet = "127.0.0.9"
)

func newDropScene(t *testing.T, o labtest.Options) *dropScene {
	t.Helper()
	s := &dropScene{t: t, native: o.ProxyMode == "nftables", lab: labtest.Start(t, o), services: map[string]labtest.Service{}}
	for _, p := range transports {
		expose := func(name string, args ...string) {
			name += "-" + p.name
			s.services[name] = s.lab.Expose(name, append(args, "--port=80", "--protocol="+p.name)...)
		}
		expose("none", "--type=NodePort", "--pods=none")
		expose("far", "--pods=10.244.2.5,fd00:10:244:2::5", "--external-traffic-policy=Local", "--external-ip=198.51.100.7,2001:db8::7")
		expose("inner", "--pods=10.244.2.5,fd00:10:244:2::5", "--internal-traffic-policy=Local")
		expose("guarded", "--load-balancer-ip=198.51.100.8,2001:db8::8", "--source-range=10.99.0.0/16,fd00:99::/64")
	}
	for _, f := range families {
		restore := strings.Replace(f.save, "save", "restore", 1)
		rules := "*filter\n" + rulesOfKubeRouter(s.pod(2, f.v6)) + rulesOfSomebody()
		if !f.v6 { // which weave does not know
			rules += rulesOfWeave(s.pod(1, false))
		}
		rules += "COMMIT\n"
		s.lab.Exec("node1", "sh", "-ec", restore+" --noflush <<'END'\n"+rules+"END\n")
	}
	// The client's packets to such an address are to go to the node.
	s.lab.Exec("client", "sh", "-ec", "ip route del local 127.0.0.0/8 dev lo table local; ip route add "+localnet+" via "+s.lab.Info.Nodes[0].IPv4[0])
	return s
}

// pod is the address of a pod, counted from 1.
func (s *dropScene) pod(n int, v6 bool) string {
	p := s.lab.Info.Pods[n-1]
	if v6 {
		return p.IPv6[0]
	}
	return p.IPv4[0]
}

// hooks are where kube-proxy refuses packets: those without endpoints, by a cluster address, a
// node port or an external address, and those that are not in the source ranges.
type hooks struct{ cluster, nodePort, external, ranges string }

func (s *dropScene) hooks() hooks {
	if s.native { // as the tap tells them, which knows packets of the node itself
		return hooks{"input+forward", "input", "input+forward", "prerouting+output"}
	}
	return hooks{"forward+output", "input+forward", "input+forward", "input+forward+output"}
}

// refusals are packets of every kind that is refused, some of each.
func (s *dropScene) refusals() (all []refusal) {
	for _, f := range families {
		for _, p := range transports {
			add := func(what, from, kind, to string, counted dropped) {
				what = fmt.Sprintf("%s, %s over %s", what, p.name, f.name)
				all = append(all, refusal{what, from, kind, to, 3 + rand.IntN(10), counted})
			}
			s.ofServices(f.v6, p.name, func(what, from, to string, counted dropped) { add(what, from, p.first, to, counted) })
			add("no policy lets it pass", "client", p.first, net.JoinHostPort(s.pod(2, f.v6), "8080"),
				dropped{"policy_default", "forward", "kube-router", ""})
			if !f.v6 {
				weaves := dropped{"policy_default", "forward", "weave", ""}
				add("weave lets nothing in", "client", p.first, net.JoinHostPort(s.pod(1, false), "8080"), weaves)
				add("weave lets nothing out", "pod1", p.first, net.JoinHostPort(s.lab.Info.Client.IPv4[0], "8080"), weaves)
			}
			somebodys := dropped{"rule", "input", "other", ""}
			add("somebody's rule", "client", p.first, s.lab.NodePort(ownPort, f.v6), somebodys)
			add("somebody's rule that logs", "client", p.first, s.lab.NodePort(ownLoggedPort, f.v6), somebodys)
			if s.native { // whose rules of no Service have no counters
				continue
			}
			add("of no connection", "client", p.invalid, net.JoinHostPort(s.pod(1, f.v6), "8080"),
				dropped{"invalid", "forward", "kube-proxy", ""})
			if !f.v6 {
				add("to the node's loopback device", "client", p.first, net.JoinHostPort(localnet, "80"),
					dropped{"localnet", "input+output", "kube-proxy", ""})
			}
		}
	}
	return all
}

// ofServices are first packets of flows to Services.
func (s *dropScene) ofServices(v6 bool, transport string, add func(what, from, to string, counted dropped)) {
	vip, external, at := labtest.Service.VIP4, "198.51.100.", s.hooks()
	if v6 {
		vip, external = labtest.Service.VIP6, "2001:db8::"
	}
	none, far, inner, guarded := "none-"+transport, "far-"+transport, "inner-"+transport, "guarded-"+transport
	byCluster := dropped{"no_endpoints", at.cluster, "kube-proxy", none}
	byNodePort := dropped{"no_endpoints", at.nodePort, "kube-proxy", none}
	add("no endpoints, from a pod", "pod3", vip(s.services[none]), byCluster)
	add("no endpoints, from outside", "client", vip(s.services[none]), byCluster)
	add("no endpoints, by node port", "client", s.lab.NodePort(s.services[none].NodePort, v6), byNodePort)
	add("no endpoints, by node port, from the node itself", "node1", s.lab.NodePort(s.services[none].NodePort, v6), byNodePort)
	add("no local endpoints", "client", net.JoinHostPort(external+"7", "80"), dropped{"no_local_endpoints", at.external, "kube-proxy", far})
	add("no local endpoints, by a cluster address", "pod3", vip(s.services[inner]), dropped{"no_local_endpoints", at.cluster, "kube-proxy", inner})
	add("not in the source ranges", "client", net.JoinHostPort(external+"8", "80"), dropped{"source_range", at.ranges, "kube-proxy", guarded})
}

// start starts an agent that hears these witnesses, and has counted nothing.
func (s *dropScene) start(all []witness, flags ...string) {
	s.t.Helper()
	flags = append([]string{"--metrics.policies", "--kubeconfig=" + s.lab.Info.Kubeconfig}, flags...)
	for _, w := range all {
		flags = append(flags, w.flags...)
	}
	s.witnesses, s.sent, s.logged = all, nil, nil
	s.agent = startAgent(s.t, s.lab, flags...)
	for _, w := range all {
		eventually(s.t, "the agent hears its witnesses", func() error { return w.listens(s.agent) })
	}
	s.settled("the first reading is the baseline")
}

// send sends packets of every kind.
func (s *dropScene) send() {
	s.t.Helper()
	all := s.refusals()
	before := s.logs()
	argv := map[string][]string{}
	for _, r := range all {
		argv[r.from] = append(argv[r.from], r.kind, r.to, strconv.Itoa(r.packets))
	}
	argv["client"] = append(argv["client"], s.unserved()...)
	for from, args := range argv {
		s.lab.Exec(from, insideArgv(s.t, packetsArg, append([]string{"0"}, args...)...)...)
	}
	s.sent, s.logged = append(s.sent, all...), s.logs()
	for k, n := range before {
		s.logged[k] -= n
	}
}

// unserved are packets to node ports at an address of the node at which the nftables mode serves
// none: nobody refuses them.
func (s *dropScene) unserved() (args []string) {
	if !s.native {
		return nil
	}
	for _, bridge := range []string{"10.244.1.1", "fd00:10:244:1::1"} {
		if !strings.Contains(s.lab.Exec("node1", "ip", "addr", "show", "cni0"), " "+bridge+"/") {
			s.t.Fatalf("%s is not the node's", bridge)
		}
		for _, p := range transports {
			args = append(args, p.first, net.JoinHostPort(bridge, strconv.Itoa(s.services["none-"+p.name].NodePort)), "5")
		}
	}
	return args
}

// logs are what the rules that log have counted, as the agent is to tell it.
func (s *dropScene) logs() map[witnessed]int {
	s.t.Helper()
	out := map[witnessed]int{}
	for _, f := range families {
		rules := s.lab.Exec("node1", f.save, "-c", "-t", "filter")
		out[witnessed{"nflog", "policy_default", ""}] += packets(s.t, rules, `"default/pod2 log-drop"`)
		out[witnessed{"nflog", "rule", ""}] += packets(s.t, rules, "svcscope:deny:nobody")
	}
	return out
}

// total is how many of the packets sent are counted by labels that match.
func (s *dropScene) total(match func(*refusal) bool) int {
	n := 0
	for i := range s.sent {
		if match(&s.sent[i]) {
			n += s.sent[i].packets
		}
	}
	return n
}

// compare says where the agent's numbers differ from what was sent.
func (s *dropScene) compare() error {
	m := s.agent.metrics()
	want, wantSeen := map[dropped]int{}, map[witnessed]int{}
	for _, r := range s.sent {
		want[r.counted] += r.packets
	}
	got := map[dropped]int{}
	for _, x := range m["svcscope_drop_packets_total"] {
		got[dropped{x.labels["reason"], x.labels["hook"], x.labels["owner"], x.labels["service_name"]}] += int(x.value)
	}
	if err := same("refused", want, got); err != nil {
		return err
	}
	for _, w := range s.witnesses {
		maps.Copy(wantSeen, w.saw(s))
	}
	gotSeen := map[witnessed]int{}
	for _, x := range m["svcscope_drop_witnessed_packets_total"] {
		gotSeen[witnessed{x.labels["source"], x.labels["reason"], x.labels["service_name"]}] += int(x.value)
	}
	if err := same("witnessed", wantSeen, gotSeen); err != nil {
		return err
	}
	return s.compareOthers(m)
}

// compareOthers looks at metrics that tell a part of the same.
func (s *dropScene) compareOthers(m metrics) error {
	pod := map[string]string{"owner": "kube-router", "pod_namespace": "default", "pod_name": "pod2"}
	want := s.total(func(r *refusal) bool { return r.counted.owner == "kube-router" })
	if got, _ := m.sum("svcscope_policy_drop_packets_total", pod); int(got) != want {
		return fmt.Errorf("svcscope_policy_drop_packets_total%v is %v, want %d", pod, got, want)
	}
	for name := range s.services {
		service := map[string]string{"service_namespace": "default", "service_name": name}
		want := s.total(func(r *refusal) bool { return r.counted.service == name })
		metrics := []string{"svcscope_drop_packets_total", "svcscope_service_rejected_packets_total"}
		if s.native {
			metrics = metrics[:1]
		}
		for _, metric := range metrics {
			if got, _ := m.sum(metric, service); int(got) != want {
				return fmt.Errorf("%s%v is %v, want %d", metric, service, got, want)
			}
		}
	}
	return nil
}

// same says where two counts differ; 0 and nothing are the same.
func same[K comparable](what string, want, got map[K]int) error {
	var wrong []string
	for k, n := range want {
		if got[k] != n {
			wrong = append(wrong, fmt.Sprintf("%s %+v: %d, want %d", what, k, got[k], n))
		}
	}
	for k, n := range got {
		if _, ok := want[k]; !ok && n != 0 {
			wrong = append(wrong, fmt.Sprintf("%s %+v: %d, want none", what, k, n))
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	slices.Sort(wrong)
	return errors.New(strings.Join(wrong, "; "))
}

// settled waits until the agent has told all, then sees that it tells no more.
func (s *dropScene) settled(what string) {
	s.t.Helper()
	eventually(s.t, what, s.compare)
	s.agent.samplings(2)
	if err := s.compare(); err != nil {
		s.t.Fatalf("%s: two readings later: %v", what, err)
	}
}
