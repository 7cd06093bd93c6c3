// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/svcscope/svcscope/hack/lab/labtest"
)

// savedRules are a family's as iptables-save prints them: the rules of a chain without
// "-A CHAIN ", by table and chain.
type savedRules struct {
	t    *testing.T
	v6   bool
	text map[string]map[string][]string
}

func (s *driftScene) savedRules(save string, v6 bool) *savedRules {
	s.t.Helper()
	r := &savedRules{t: s.t, v6: v6, text: map[string]map[string][]string{}}
	table := ""
	for line := range strings.Lines(s.lab.Exec("node1", save)) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "*"); ok {
			table = name
			r.text[table] = map[string][]string{}
		}
		if rule, ok := strings.CutPrefix(line, "-A "); ok {
			chain, rest, _ := strings.Cut(rule, " ")
			r.text[table][chain] = append(r.text[table][chain], rest)
		}
	}
	return r
}

// rule is the only one of a chain that has a text.
func (r *savedRules) rule(table, chain, text string) string {
	r.t.Helper()
	found := r.rules(table, chain, text)
	if len(found) != 1 {
		r.t.Fatalf("%d rules with %q in %s %s: %q", len(found), text, table, chain, r.text[table][chain])
	}
	return found[0]
}

func (r *savedRules) rules(table, chain, text string) []string {
	return slices.DeleteFunc(slices.Clone(r.text[table][chain]), func(rule string) bool { return !strings.Contains(rule, text) })
}

// number is where a rule stands in its chain, counted from 1.
func (r *savedRules) number(table, chain, rule string) int {
	return slices.Index(r.text[table][chain], rule) + 1
}

// chains are a Service's KUBE-SVC and KUBE-EXT.
func (r *savedRules) chains(service string) (svc, ext string) {
	r.t.Helper()
	_, svc, _ = strings.Cut(r.rule("nat", "KUBE-SERVICES", fmt.Sprintf(`"default/%s cluster IP"`, service)), " -j ")
	return svc, strings.Replace(svc, "KUBE-SVC-", "KUBE-EXT-", 1)
}

// leadingTo is the same rule with another target.
func leadingTo(rule, chain string) string {
	before, _, _ := strings.Cut(rule, " -j ")
	return before + " -j " + chain
}

// address is a Service's in the family of the rules, with its length as a prefix.
func (r *savedRules) address(svc labtest.Service) string {
	for _, ip := range svc.ClusterIPs {
		if strings.Contains(ip, ":") == r.v6 {
			return r.single(ip)
		}
	}
	r.t.Fatalf("%s has no address: %v", svc.Name, svc.ClusterIPs)
	return ""
}

func (r *savedRules) single(ip string) string {
	if r.v6 {
		return ip + "/128"
	}
	return ip + "/32"
}

// external is an address that no Service has.
func (r *savedRules) external() string {
	if r.v6 {
		return r.single("2001:db8::77")
	}
	return r.single("198.51.100.77")
}

// serviceFault is what somebody does to the rules of a Service of that name. All of them
// can be there at the same time.
type serviceFault struct {
	name           string
	kind, frontend string
	// expose are the Service's own flags.
	expose []string
	// table is what edit's lines for iptables-restore are for.
	table string
	edit  func(r *savedRules, svc labtest.Service) []string
}

// donor is a Service whose chains are led to by mistake.
const donor = "donor"

// serviceFaults are one for each kind of drift of a Service, and more.
func serviceFaults() []serviceFault {
	pods := "--pods=pod1,pod2,pod3"
	return append(edits(pods), []serviceFault{
		{"dispatch-removed", "missing_dispatch", "cluster", []string{pods}, "nat", func(r *savedRules, svc labtest.Service) []string {
			return []string{"-D KUBE-SERVICES " + r.rule("nat", "KUBE-SERVICES", `"default/`+svc.Name+` cluster IP"`)}
		}},
		{"node-port-removed", "missing_dispatch", "nodeport", []string{pods, "--type=NodePort"}, "nat", func(r *savedRules, svc labtest.Service) []string {
			return []string{"-D KUBE-NODEPORTS " + r.rule("nat", "KUBE-NODEPORTS", fmt.Sprintf(`"default/%s" -m tcp --dport %d -j KUBE-EXT-`, svc.Name, svc.NodePort))}
		}},
		{"dispatch-edited", "wrong_target", "cluster", []string{pods}, "nat", func(r *savedRules, svc labtest.Service) []string {
			rule := r.rule("nat", "KUBE-SERVICES", `"default/`+svc.Name+` cluster IP"`)
			other, _ := r.chains(donor)
			return []string{"-D KUBE-SERVICES " + rule, "-I KUBE-SERVICES " + leadingTo(rule, other)}
		}},
		{"dispatch-left-behind", "extra_dispatch", "external", []string{pods, "--type=NodePort"}, "nat", func(r *savedRules, svc labtest.Service) []string {
			_, ext := r.chains(svc.Name)
			return []string{fmt.Sprintf(`-I KUBE-SERVICES -d %s -p tcp -m comment --comment "default/%s external IP" -m tcp --dport 80 -j %s`, r.external(), svc.Name, ext)}
		}},
		{"reject-left-behind", "rejecting_with_endpoints", "cluster", []string{pods}, "filter", func(r *savedRules, svc labtest.Service) []string {
			return []string{fmt.Sprintf(`-I KUBE-SERVICES -d %s -p tcp -m comment --comment "default/%s has no endpoints" -m tcp --dport 80 -j REJECT`, r.address(svc), svc.Name)}
		}},
		{"reject-removed", "not_rejecting_without_endpoints", "cluster", []string{"--pods=none"}, "filter", func(r *savedRules, svc labtest.Service) []string {
			return []string{"-D KUBE-SERVICES " + r.rule("filter", "KUBE-SERVICES", `"default/`+svc.Name+` has no endpoints"`)}
		}},
		{"ranges-removed", "source_ranges_missing", "loadbalancer", []string{
			pods, "--load-balancer-ip=198.51.100.8,2001:db8::8", "--source-range=10.99.0.0/16,fd00:99::/64",
		}, "filter", func(r *savedRules, svc labtest.Service) []string {
			return []string{"-D KUBE-PROXY-FIREWALL " + r.rule("filter", "KUBE-PROXY-FIREWALL", `"default/`+svc.Name+` traffic not accepted by`)}
		}},
	}...)
}

// edits are those of a Service's own chain.
func edits(pods string) []serviceFault {
	return []serviceFault{
		{"chain-deleted", "missing_chain", "", []string{pods}, "nat", func(r *savedRules, svc labtest.Service) []string {
			chain, _ := r.chains(svc.Name)
			return []string{"-D KUBE-SERVICES " + r.rule("nat", "KUBE-SERVICES", " -j "+chain), "-F " + chain, "-X " + chain}
		}},
		{"chain-emptied", "empty_chain", "", []string{pods}, "nat", func(r *savedRules, svc labtest.Service) []string {
			chain, _ := r.chains(svc.Name)
			return []string{"-F " + chain}
		}},
		{"rule-edited", "wrong_probability", "", []string{pods}, "nat", func(r *savedRules, svc labtest.Service) []string {
			chain, _ := r.chains(svc.Name)
			rule := r.rule("nat", chain, "--probability 0.333")
			before, rest, _ := strings.Cut(rule, "--probability ")
			_, rest, _ = strings.Cut(rest, " ")
			return []string{fmt.Sprintf("-R %s %d %s--probability 0.9 %s", chain, r.number("nat", chain, rule), before, rest)}
		}},
		{"endpoint-removed", "missing_endpoint", "", []string{pods}, "nat", func(r *savedRules, svc labtest.Service) []string {
			chain, _ := r.chains(svc.Name)
			return []string{fmt.Sprintf("-D %s %d", chain, r.number("nat", chain, r.rules("nat", chain, " -j KUBE-SEP-")[1]))}
		}},
		{"endpoint-added", "extra_endpoint", "", []string{pods}, "nat", func(r *savedRules, svc labtest.Service) []string {
			chain, _ := r.chains(svc.Name)
			theirs, _ := r.chains(donor)
			_, endpoint, _ := strings.Cut(r.rules("nat", theirs, " -j KUBE-SEP-")[0], " -j ")
			first := r.number("nat", chain, r.rules("nat", chain, " -j KUBE-SEP-")[0])
			return []string{fmt.Sprintf("-I %s %d -m statistic --mode random --probability 0.25 -j %s", chain, first, endpoint)}
		}},
		{"affinity-removed", "affinity_missing", "", []string{pods, "--affinity"}, "nat", func(r *savedRules, svc labtest.Service) (lines []string) {
			chain, _ := r.chains(svc.Name)
			for _, rule := range r.rules("nat", chain, "--rcheck") {
				lines = append(lines, fmt.Sprintf("-D %s %d", chain, r.number("nat", chain, rule)))
			}
			slices.Reverse(lines) // the numbers of those before stay what they are
			return lines
		}},
	}
}

// told is how the fault is told in a family.
func (f *serviceFault) told(family string) told {
	return told{f.kind, family, "default/" + f.name, f.frontend}
}

// inject edits the rules of both families, each with one iptables-restore.
func (s *driftScene) inject(faults []serviceFault, services map[string]labtest.Service) {
	s.t.Helper()
	for _, f := range families {
		r := s.savedRules(f.save, f.v6)
		lines := map[string][]string{}
		for i := range faults {
			lines[faults[i].table] = append(lines[faults[i].table], faults[i].edit(r, services[faults[i].name])...)
		}
		var input strings.Builder
		for table, edits := range lines {
			fmt.Fprintf(&input, "*%s\n%s\nCOMMIT\n", table, strings.Join(edits, "\n"))
		}
		s.sh(strings.Replace(f.save, "save", "restore", 1) + " --noflush <<'END'\n" + input.String() + "END\n")
	}
}
