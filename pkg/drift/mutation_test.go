// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/service"
)

// The hashes in the names of chains of some captured Services, of both families.
const (
	web          = "CDGGSHYLG3RE2FKL" // three endpoints
	nodeport     = "IFSGUVPJVX5CWNQP"
	outsideIP    = "LI2K5327B6J24KJ3"
	sticky       = "T2ECBIYT2WDZZK45" // affinity, two endpoints
	lbLocal      = "36SRL3I7JZKMDG5Q" // externalTrafficPolicy Local
	lbRanges     = "DACLBDVBGUA6TTVY" // source ranges
	internalOnly = "X3RRQSRCE6JUJ7SB" // internalTrafficPolicy Local
)

// save is iptables-save's lines.
type save []string

func (s save) String() string { return strings.Join(s, "\n") + "\n" }

// find returns where the n-th line is that has all parts; it is a fault of the test if
// there is none.
func (s save) find(n int, parts ...string) int {
	for i, line := range s {
		if slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) }) {
			continue
		}
		if n == 0 {
			return i
		}
		n--
	}
	panic(fmt.Sprintf("no line has %q", parts))
}

// without deletes every line that has all parts, and at least one.
func (s save) without(parts ...string) save {
	s.find(0, parts...)
	return slices.DeleteFunc(slices.Clone(s), func(line string) bool {
		return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) })
	})
}

// withoutNth deletes one line.
func (s save) withoutNth(n int, parts ...string) save {
	i := s.find(n, parts...)
	return slices.Delete(slices.Clone(s), i, i+1)
}

// before inserts a line before the first that has all parts, after the line that tells a
// rule's table.
func (s save) before(line string, parts ...string) save {
	return slices.Insert(slices.Clone(s), s.find(0, parts...), line)
}

// replaced edits the first line that has all parts.
func (s save) replaced(old, with string, parts ...string) save {
	out := slices.Clone(s)
	i := s.find(0, append(parts, old)...)
	out[i] = strings.Replace(out[i], old, with, 1)
	return out
}

// target gives the first line that has all parts another target.
func (s save) target(to string, parts ...string) save {
	i := s.find(0, parts...)
	out := slices.Clone(s)
	out[i] = s[i][:strings.Index(s[i], " -j ")] + " -j " + to
	return out
}

// swapped exchanges two lines.
func (s save) swapped(i, j int) save {
	out := slices.Clone(s)
	out[i], out[j] = out[j], out[i]
	return out
}

// table returns the lines from *name to COMMIT.
func (s save) table(name string) (from, to int) {
	from = s.find(0, "*"+name)
	for to = from; s[to] != "COMMIT"; to++ {
	}
	return from, to
}

// flushed is iptables -t name -F, and with chains -X after it.
func (s save) flushed(name string, chains bool) save {
	from, to := s.table(name)
	var out save
	for i, line := range s {
		if i > from && i < to && (strings.Contains(line, "-A ") || chains && strings.HasPrefix(line, ":KUBE-")) {
			continue
		}
		out = append(out, line)
	}
	return out
}

// in makes the edits within one table only: names of chains stand in two.
func (s save) in(name string, edit func(save) save) save {
	from, to := s.table(name)
	return slices.Concat(s[:from], edit(slices.Clone(s[from:to])), s[to:])
}

// describe says what was found, once each, without its details.
func describe(ds []Difference) []string {
	var out []string
	for i := range ds {
		d := &ds[i]
		words := []string{string(d.Kind)}
		if !d.OfNode() {
			words = append(words, d.Port.String())
		}
		if d.Frontend != "" {
			words = append(words, string(d.Frontend))
		}
		out = append(out, strings.Join(words, " "))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// mutations are faults that somebody has put into a capture, and what is to be said.
var mutations = []struct {
	name string
	edit func(save) save
	want []string
}{
	{"nothing", func(s save) save { return s }, nil},
	{"a dispatch rule is deleted", func(s save) save {
		return s.without("-A KUBE-SERVICES", "default/web:http cluster IP")
	}, []string{"missing_dispatch default/web:http cluster"}},
	{"a node port's dispatch rule is deleted", func(s save) save {
		return s.withoutNth(strings.Count(s.String(), "127.0.0.0/8 -p tcp -m comment --comment \"default/nodeport\""), "-A KUBE-NODEPORTS", `"default/nodeport"`)
	}, []string{"missing_dispatch default/nodeport nodeport"}},
	{"an external address's dispatch rule is deleted", func(s save) save {
		return s.without("-A KUBE-SERVICES", "default/external:http external IP")
	}, []string{"missing_dispatch default/external:http external"}},
	{"a load balancer's dispatch rule is deleted", func(s save) save {
		return s.without("-A KUBE-SERVICES", "default/lb-local:http loadbalancer IP")
	}, []string{"missing_dispatch default/lb-local:http loadbalancer"}},
	{"a dispatch rule takes some sources only", func(s save) save {
		return s.replaced("-p tcp", "-m mark --mark 0x1 -p tcp", "-A KUBE-SERVICES", "default/web:http cluster IP")
	}, []string{"missing_dispatch default/web:http cluster"}},
	{"a dispatch rule leads to another Service", func(s save) save {
		return s.replaced("KUBE-SVC-"+web, "KUBE-SVC-"+nodeport, "-A KUBE-SERVICES", "default/web:http cluster IP")
	}, []string{"wrong_target default/web:http cluster"}},
	{"a dispatch rule leads to another of the Service's chains", func(s save) save {
		return s.replaced("KUBE-SVC-"+nodeport, "KUBE-EXT-"+nodeport, "-A KUBE-SERVICES", "default/nodeport cluster IP")
	}, []string{"wrong_target default/nodeport cluster"}},
	{"a dispatch rule accepts", func(s save) save {
		return s.replaced("-j KUBE-SVC-"+web, "-j ACCEPT", "-A KUBE-SERVICES")
	}, []string{"missing_dispatch default/web:http cluster"}},
	{"a node port leads to another Service", func(s save) save {
		return s.in("nat", func(s save) save {
			return append(s.without("-A KUBE-NODEPORTS", `"default/nodeport"`), `-A KUBE-NODEPORTS -p tcp -m tcp --dport 30080 -j KUBE-EXT-`+lbRanges)
		})
	}, []string{"wrong_target default/nodeport nodeport"}},
	{"an address too many is dispatched", func(s save) save {
		return s.before(`-A KUBE-SERVICES -p tcp -m tcp --dport 81 -j KUBE-SVC-`+web, "-A KUBE-SERVICES", "default/web:http cluster IP")
	}, []string{"extra_dispatch default/web:http"}},
	{"a second rule for an address", func(s save) save {
		i := s.find(0, "-A KUBE-SERVICES", "default/web:http cluster IP")
		return slices.Insert(slices.Clone(s), i, strings.Replace(s[i], "KUBE-SVC-"+web, "KUBE-SVC-"+nodeport, 1))
	}, []string{"extra_dispatch default/web:http cluster"}},
	{"a Service that is gone is still dispatched", func(s save) save {
		gone := service.PortName{Name: service.Name{Namespace: "default", Name: "gone"}, Port: "http", Protocol: service.TCP}
		return s.before(`-A KUBE-SERVICES -p tcp -m comment --comment "default/gone:http cluster IP" -m tcp --dport 80 -j `+kubeproxy.ServiceChain(gone),
			"-A KUBE-SERVICES", "default/web:http cluster IP").before(":"+kubeproxy.ServiceChain(gone)+" - [0:0]", ":KUBE-SVC-"+web)
	}, []string{"extra_dispatch default/gone:http cluster"}},
	{"chains are left behind", func(s save) save {
		gone := service.PortName{Name: service.Name{Namespace: "default", Name: "gone"}, Port: "http", Protocol: service.TCP}
		return s.before(":"+kubeproxy.ServiceChain(gone)+" - [0:0]", ":KUBE-SVC-"+web).
			before("-A "+kubeproxy.ServiceChain(gone)+" -j KUBE-MARK-MASQ", "-A KUBE-SVC-"+web).
			before(":KUBE-SVL-"+web+" - [0:0]", ":KUBE-SVC-"+web)
	}, nil},
	{"a chain is deleted", func(s save) save {
		return s.without("KUBE-SVC-" + web)
	}, []string{"missing_chain default/web:http"}},
	{"a chain that others lead to is deleted", func(s save) save {
		return s.without("KUBE-SVC-" + outsideIP)
	}, []string{"missing_chain default/external:http"}},
	{"KUBE-EXT is deleted", func(s save) save {
		return s.without("KUBE-EXT-" + outsideIP)
	}, []string{"missing_chain default/external:http"}},
	{"KUBE-FW is deleted", func(s save) save {
		return s.in("nat", func(s save) save { return s.without("KUBE-FW-" + lbRanges) })
	}, []string{"missing_chain default/lb-ranges:https"}},
	{"a chain is emptied", func(s save) save {
		return s.without("-A KUBE-SVC-" + web)
	}, []string{"empty_chain default/web:http"}},
	{"KUBE-SVL is emptied", func(s save) save {
		return s.without("-A KUBE-SVL-" + internalOnly)
	}, []string{"empty_chain default/internal-local:http"}},
	{"KUBE-EXT is emptied", func(s save) save {
		return s.without("-A KUBE-EXT-" + lbLocal)
	}, []string{"empty_chain default/lb-local:http"}},
	{"an endpoint's chain is emptied", func(s save) save {
		return s.without("-A " + s.endpoint(web, 0))
	}, []string{"empty_chain default/web:http"}},
	{"the first endpoint's rule is removed", func(s save) save {
		return s.withoutNth(0, "-A KUBE-SVC-"+web, "-j KUBE-SEP-")
	}, []string{"missing_endpoint default/web:http"}},
	{"the last endpoint's rule is removed", func(s save) save {
		return s.withoutNth(2, "-A KUBE-SVC-"+web, "-j KUBE-SEP-")
	}, []string{"missing_endpoint default/web:http"}},
	{"all endpoints' rules are removed", func(s save) save {
		return s.without("-A KUBE-SVC-"+web, "-j KUBE-SEP-")
	}, []string{"missing_endpoint default/web:http"}},
	{"an endpoint's rule is added", func(s save) save {
		return s.before("-A KUBE-SVC-"+web+" -j "+s.endpoint(nodeport, 0), "-A KUBE-SVC-"+web, "-j KUBE-SEP-")
	}, []string{"extra_endpoint default/web:http"}},
	{"an endpoint's rule leads to another's", func(s save) save {
		return s.replaced(s.endpoint(web, 0), s.endpoint(nodeport, 0), "-A KUBE-SVC-"+web)
	}, []string{"extra_endpoint default/web:http", "missing_endpoint default/web:http"}},
	{"an endpoint's rule is doubled", func(s save) save {
		return s.before("-A KUBE-SVC-"+web+" -j "+s.endpoint(web, 0), "-A KUBE-SVC-"+web, "-j KUBE-SEP-")
	}, []string{"wrong_probability default/web:http"}},
	{"a rule among the endpoints' returns", func(s save) save {
		return s.before("-A KUBE-SVC-"+web+" -j RETURN", "-A KUBE-SVC-"+web, "-j KUBE-SEP-")
	}, []string{"wrong_target default/web:http"}},
	{"an endpoint's DNAT leads elsewhere", func(s save) save {
		return s.replaced(":8080", ":8081", "-A "+s.endpoint(nodeport, 0), "-j DNAT")
	}, []string{"wrong_target default/nodeport"}},
	{"an endpoint's DNAT is removed", func(s save) save {
		return s.without("-A "+s.endpoint(nodeport, 0), "-j DNAT")
	}, []string{"wrong_target default/nodeport"}},
	{"an endpoint's connections to itself are not masqueraded", func(s save) save {
		return s.without("-A "+s.endpoint(nodeport, 0), "-j KUBE-MARK-MASQ")
	}, []string{"wrong_target default/nodeport"}},
	{"a rule of an endpoint's chain returns", func(s save) save {
		return s.before("-A "+s.endpoint(nodeport, 0)+" -j RETURN", "-A "+s.endpoint(nodeport, 0), "-j DNAT")
	}, []string{"wrong_target default/nodeport"}},
	{"an endpoint's DNAT takes some packets only", func(s save) save {
		return s.replaced("-p tcp", "-m mark --mark 0x1 -p tcp", "-A "+s.endpoint(nodeport, 0), "-j DNAT")
	}, []string{"wrong_target default/nodeport"}},
	{"a rule after an endpoint's DNAT", func(s save) save {
		i := s.find(0, "-A "+s.endpoint(nodeport, 0), "-j DNAT")
		return slices.Insert(slices.Clone(s), i+1, "-A "+s.endpoint(nodeport, 0)+" -j RETURN")
	}, nil},
	{"a probability is edited", func(s save) save {
		return s.replaced("0.50000000000", "0.90000000000", "-A KUBE-SVC-"+web)
	}, []string{"wrong_probability default/web:http"}},
	{"a probability is missing", func(s save) save {
		return s.replaced("-m statistic --mode random --probability 0.50000000000 ", "", "-A KUBE-SVC-"+web)
	}, []string{"wrong_probability default/web:http"}},
	{"endpoints' rules are in another order", func(s save) save {
		return s.swapped(s.find(0, "-A KUBE-SVC-"+web, "-j KUBE-SEP-"), s.find(1, "-A KUBE-SVC-"+web, "-j KUBE-SEP-"))
	}, []string{"wrong_probability default/web:http"}},
	{"the rule that takes the rest comes first", func(s save) save {
		return s.swapped(s.find(0, "-A KUBE-SVC-"+web, "-j KUBE-SEP-"), s.find(2, "-A KUBE-SVC-"+web, "-j KUBE-SEP-"))
	}, []string{"wrong_probability default/web:http"}},
	{"an affinity rule is removed", func(s save) save {
		return s.withoutNth(1, "-A KUBE-SVC-"+sticky, "--rcheck")
	}, []string{"affinity_missing default/sticky:http"}},
	{"an affinity rule has another time", func(s save) save {
		return s.replaced("--seconds 600", "--seconds 60", "-A KUBE-SVC-"+sticky)
	}, []string{"affinity_missing default/sticky:http"}},
	{"an affinity rule comes too late", func(s save) save {
		i := s.find(1, "-A KUBE-SVC-"+sticky, "--rcheck")
		last := s.find(3, "-A KUBE-SVC-"+sticky, "-j KUBE-SEP-")
		return slices.Concat(s[:i], s[i+1:last+1], s[i:i+1], s[last+1:])
	}, []string{"affinity_missing default/sticky:http"}},
	{"an endpoint does not note its clients", func(s save) save {
		i := s.find(0, "-A "+s.endpoint(sticky, 0), "--set")
		out := slices.Clone(s)
		from, to := strings.Index(s[i], "-m recent"), strings.Index(s[i], "--rsource ")+len("--rsource ")
		out[i] = s[i][:from] + s[i][to:]
		return out
	}, []string{"affinity_missing default/sticky:http"}},
	{"affinity where none is wanted", func(s save) save {
		return s.before("-A KUBE-SVC-"+web+" -m recent --rcheck --seconds 600 --reap --name "+s.endpoint(web, 0)+" --rsource -j "+s.endpoint(web, 0),
			"-A KUBE-SVC-"+web, "-j KUBE-SEP-")
	}, []string{"wrong_probability default/web:http"}},
	{"KUBE-EXT does not lead on", func(s save) save {
		return s.without("-A KUBE-EXT-"+outsideIP, "-j KUBE-SVC-")
	}, []string{"wrong_target default/external:http"}},
	{"KUBE-EXT does not mark", func(s save) save {
		return s.without("-A KUBE-EXT-"+outsideIP, "-j KUBE-MARK-MASQ")
	}, []string{"wrong_target default/external:http"}},
	{"KUBE-EXT leads to the endpoints of other nodes", func(s save) save {
		return s.replaced("KUBE-SVL-"+lbLocal, "KUBE-SVC-"+lbLocal, "-A KUBE-EXT-"+lbLocal)
	}, []string{"wrong_target default/lb-local:http"}},
	{"KUBE-EXT leads to another Service", func(s save) save {
		return s.replaced("-j KUBE-SVC-"+outsideIP, "-j KUBE-SVC-"+web, "-A KUBE-EXT-"+outsideIP)
	}, []string{"wrong_target default/external:http"}},
	{"KUBE-EXT has no way for the node's own packets", func(s save) save {
		return s.without("-A KUBE-EXT-"+lbLocal, "route LOCAL")
	}, []string{"wrong_target default/lb-local:http"}},
	{"a source range is removed", func(s save) save {
		return s.withoutNth(1, "-A KUBE-FW-"+lbRanges, "-j KUBE-EXT-")
	}, []string{"source_ranges_missing default/lb-ranges:https loadbalancer"}},
	{"a source range is added", func(s save) save {
		return s.before("-A KUBE-FW-"+lbRanges+" -i eth0 -j KUBE-EXT-"+lbRanges, "-A KUBE-FW-"+lbRanges)
	}, []string{"source_ranges_missing default/lb-ranges:https loadbalancer"}},
	{"every source is let in", func(s save) save {
		return s.before("-A KUBE-FW-"+lbRanges+" -j KUBE-EXT-"+lbRanges, "-A KUBE-FW-"+lbRanges)
	}, []string{"source_ranges_missing default/lb-ranges:https loadbalancer"}},
	{"what comes from outside the ranges is not dropped", func(s save) save {
		return s.without("-A KUBE-PROXY-FIREWALL")
	}, []string{"source_ranges_missing default/lb-ranges:https loadbalancer"}},
	{"the load balancer's address goes around KUBE-FW", func(s save) save {
		return s.replaced("-j KUBE-FW-"+lbRanges, "-j KUBE-EXT-"+lbRanges, "-A KUBE-SERVICES")
	}, []string{"source_ranges_missing default/lb-ranges:https loadbalancer"}},
	{"ranges are gone from the rules", func(s save) save {
		return s.replaced("-j KUBE-FW-"+lbRanges, "-j KUBE-EXT-"+lbRanges, "-A KUBE-SERVICES").without("KUBE-FW-" + lbRanges)
	}, []string{"source_ranges_missing default/lb-ranges:https loadbalancer"}},
	{"KUBE-FW is emptied", func(s save) save {
		return s.without("-A KUBE-FW-" + lbRanges)
	}, []string{"empty_chain default/lb-ranges:https"}},
	{"no REJECT without endpoints", func(s save) save {
		return s.without("-A KUBE-SERVICES", "default/empty has no endpoints")
	}, []string{"not_rejecting_without_endpoints default/empty cluster"}},
	{"no REJECT for addresses from outside", func(s save) save {
		return s.without("-A KUBE-EXTERNAL-SERVICES", "default/empty has no endpoints")
	}, []string{"not_rejecting_without_endpoints default/empty external", "not_rejecting_without_endpoints default/empty nodeport"}},
	{"no DROP without local endpoints", func(s save) save {
		return s.without("-A KUBE-SERVICES", "has no local endpoints")
	}, []string{"not_rejecting_without_endpoints default/internal-local-none:http cluster"}},
	{"DROP in place of REJECT", func(s save) save {
		return s.target("DROP", "-A KUBE-SERVICES", "-j REJECT")
	}, []string{"not_rejecting_without_endpoints default/empty cluster"}},
	{"REJECT in place of DROP", func(s save) save {
		return s.replaced("-j DROP", "-j REJECT", "-A KUBE-SERVICES")
	}, []string{"rejecting_with_endpoints default/internal-local-none:http cluster"}},
	{"a REJECT is left behind", func(s save) save {
		i := s.find(0, "-A KUBE-SERVICES", "default/web:http cluster IP")
		rule := strings.Replace(strings.Replace(s[i], "web:http cluster IP", "web:http has no endpoints", 1), "KUBE-SVC-"+web, "REJECT", 1)
		return s.before(rule, "-A KUBE-SERVICES", "has no endpoints")
	}, []string{"rejecting_with_endpoints default/web:http cluster"}},
	{"a REJECT is put before an address, by hand", func(s save) save {
		i := s.find(0, "-A KUBE-SERVICES", "default/external:http external IP")
		rule := strings.Replace(strings.Replace(s[i], `-m comment --comment "default/external:http external IP" `, "", 1), "KUBE-EXT-"+outsideIP, "REJECT", 1)
		return s.before(rule, "-A KUBE-SERVICES", "has no endpoints")
	}, []string{"rejecting_with_endpoints default/external:http external"}},
	{"a DROP is left behind", func(s save) save {
		i := s.find(0, "-A KUBE-SERVICES", "default/lb-local:http loadbalancer IP")
		rule := strings.Replace(strings.Replace(strings.Replace(s[i], "loadbalancer IP", "has no local endpoints", 1), "KUBE-EXT-"+lbLocal, "DROP", 1), "KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", 1)
		return s.before(rule, "-A KUBE-EXTERNAL-SERVICES", "has no local endpoints")
	}, []string{"rejecting_with_endpoints default/lb-local:http loadbalancer"}},
	{"a Service still has no endpoints", func(s save) save {
		i := s.find(0, "-A KUBE-SERVICES", "default/web:http cluster IP")
		rule := strings.Replace(strings.Replace(s[i], "web:http cluster IP", "web:http has no endpoints", 1), "KUBE-SVC-"+web, "REJECT", 1)
		return s.before(rule, "-A KUBE-SERVICES", "has no endpoints").without("KUBE-SVC-" + web)
	}, []string{"rejecting_with_endpoints default/web:http cluster"}},
	{"health checks are not let in", func(s save) save {
		return s.without("default/lb-local:http health check node port")
	}, []string{"missing_dispatch default/lb-local:http loadbalancer"}},
}

// endpoint is the n-th chain of an endpoint that a port's rules lead to.
func (s save) endpoint(hash string, n int) string {
	for _, chain := range []string{"KUBE-SVC-", "KUBE-SVL-"} {
		if strings.Contains(s.String(), "-A "+chain+hash) {
			line := s[s.find(n, "-A "+chain+hash, "-j KUBE-SEP-")]
			return line[strings.LastIndex(line, " ")+1:]
		}
	}
	panic("no chain of " + hash)
}

func TestMutations(t *testing.T) {
	for _, f := range fixtures {
		for _, tt := range mutations {
			t.Run(f.file+"/"+tt.name, func(t *testing.T) { f.check(t, tt.edit, tt.want) })
		}
	}
}

// check compares an edited capture, as readings of either backend give it.
func (f fixture) check(t *testing.T, edit func(save) save, want []string) {
	t.Helper()
	text := edit(strings.Split(strings.TrimSpace(f.text(t)), "\n")).String()
	for _, r := range []Rules{f.rules(t, text), forget(f.rules(t, text))} {
		got := Compare(&Input{Catalog: catalog(t), Rules: []Rules{r}})
		if diff := cmp.Diff(want, describe(got.Differences)); diff != "" {
			t.Errorf("(-want +got)\n%s%v", diff, got.Differences)
		}
		for _, d := range got.Differences {
			if d.Backend != f.backend || d.Family != f.family || d.Detail == "" {
				t.Errorf("got %+v", d)
			}
		}
	}
}
