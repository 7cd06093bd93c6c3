// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"

	"github.com/svcscope/svcscope/hack/lab/labtest"
)

// nodeFault is what somebody does to the chains of all Services, in both families.
type nodeFault struct {
	name, kind string
	begin, end func(*driftScene)
}

// kubeProxyFaults are those of the rules that kube-proxy writes at every sync, and those that it
// repairs when it starts.
func kubeProxyFaults() []nodeFault {
	restart := func(s *driftScene) { s.proxy.restart() }
	all := []nodeFault{
		{"flush of nat", "jump_missing", func(s *driftScene) { s.both("-t nat -F") }, restart},
		// kube-proxy writes it at every sync.
		{"dispatch emptied", "empty_chain", func(s *driftScene) { s.both("-t nat -F KUBE-SERVICES") }, func(s *driftScene) { s.changeEndpoints() }},
		ofRules("dispatch to chains of nobody", "extra_dispatch", func(r *savedRules) (begin, end []string) {
			const chain = "KUBE-SVC-AAAAAAAAAAAAAAAA"
			rule := "KUBE-SERVICES -d " + r.external() + " -p tcp -m tcp --dport 80 -j " + chain
			return []string{"-N " + chain, "-I " + rule}, []string{"-D " + rule, "-X " + chain}
		}),
	}
	if long() {
		all = append(all, nodeFault{"node ports emptied", "empty_chain", func(s *driftScene) { s.both("-t nat -F KUBE-NODEPORTS") }, func(s *driftScene) { s.changeEndpoints() }})
		all = append(all, nodeFault{"flush of filter", "jump_missing", func(s *driftScene) { s.both("-t filter -F") }, restart})
	}
	return all
}

// foreignRules are those that whoever made them takes back, of which kube-proxy knows nothing.
func foreignRules() []nodeFault {
	return []nodeFault{
		ofRules("jump removed", "jump_missing", func(r *savedRules) (begin, end []string) {
			jump := r.rule("nat", "PREROUTING", " -j KUBE-SERVICES")
			return []string{"-D PREROUTING " + jump}, []string{"-I PREROUTING " + jump}
		}),
		ofRules("ACCEPT put above", "jump_shadowed", func(r *savedRules) (begin, end []string) {
			service := r.rule("nat", "KUBE-SERVICES", `"default/`+donor+` cluster IP"`)
			address, _, _ := strings.Cut(strings.TrimPrefix(service, "-d "), " ")
			return []string{"-I PREROUTING -d " + address + " -j ACCEPT"}, []string{"-D PREROUTING -d " + address + " -j ACCEPT"}
		}),
		ofRules("masquerade removed", "masquerade_missing", func(r *savedRules) (begin, end []string) {
			rule := r.rule("nat", "KUBE-POSTROUTING", " -j MASQUERADE")
			return []string{"-D KUBE-POSTROUTING " + rule}, []string{"-A KUBE-POSTROUTING " + rule}
		}),
		{"rules in the other backend, too", "two_backends", (*driftScene).copyRules, (*driftScene).dropCopies},
	}
}

// twoModes is what an earlier kube-proxy in nftables mode has left behind.
func twoModes() nodeFault {
	return nodeFault{
		"nftables mode, too", "two_modes",
		func(s *driftScene) {
			s.sh("for f in ip ip6; do nft add table $f kube-proxy; nft add chain $f kube-proxy services; done")
		},
		func(s *driftScene) { s.sh("nft delete table ip kube-proxy; nft delete table ip6 kube-proxy") },
	}
}

// ofRules is a fault of rules of nat, by the lines for iptables-restore that make it and that
// take it back.
func ofRules(name, kind string, lines func(*savedRules) (begin, end []string)) nodeFault {
	back := map[string][]string{}
	restore := func(s *driftScene, save string, edits []string) {
		s.sh(fmt.Sprintf("%s --noflush <<'END'\n*nat\n%s\nCOMMIT\nEND\n", strings.Replace(save, "save", "restore", 1), strings.Join(edits, "\n")))
	}
	return nodeFault{name, kind, func(s *driftScene) {
		for _, f := range families {
			begin, end := lines(s.savedRules(f.save, f.v6))
			back[f.save] = end
			restore(s, f.save, begin)
		}
	}, func(s *driftScene) {
		for _, f := range families {
			restore(s, f.save, back[f.save])
		}
	}}
}

// both runs iptables and ip6tables with the same arguments.
func (s *driftScene) both(args string) { s.sh("iptables -w " + args + "; ip6tables -w " + args) }

// other is the backend that kube-proxy does not use.
func (s *driftScene) other() string {
	if s.lab.Info.Backend == "legacy" {
		return "nft"
	}
	return "legacy"
}

// copyRules writes all that kube-proxy has written in the other backend, too, as after a
// change of the image that it runs from.
func (s *driftScene) copyRules() {
	s.t.Helper()
	for _, v := range []string{"iptables", "ip6tables"} {
		for _, table := range []string{"filter", "nat"} {
			s.sh(fmt.Sprintf("%[1]s-%[2]s-save -t %[4]s | %[1]s-%[3]s-restore", v, s.lab.Info.Backend, s.other(), table))
		}
	}
}

func (s *driftScene) dropCopies() {
	s.t.Helper()
	for _, v := range []string{"iptables", "ip6tables"} {
		for _, table := range []string{"filter", "nat"} {
			s.sh(fmt.Sprintf("%[1]s-%[2]s -w -t %[3]s -F; %[1]s-%[2]s -w -t %[3]s -X", v, s.other(), table))
		}
	}
}

// rolled is a Service whose endpoints change.
const rolled = "rolled"

// changeEndpoints takes an endpoint from a Service, or gives it back, and returns when
// kube-proxy has written that.
func (s *driftScene) changeEndpoints(flags ...string) labtest.Service {
	s.t.Helper()
	s.changes++
	pods := "--pods=pod1,pod2"
	if s.changes%2 == 0 {
		pods += ",pod3"
	}
	return s.lab.Expose(rolled, append([]string{"--port=80", pods}, flags...)...)
}
