// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// faults of the node, put into a capture.
var faults = []struct {
	name string
	edit func(save) save
	want []string
}{
	{"PREROUTING's jump is removed", func(s save) save {
		return s.without("-A PREROUTING", "-j KUBE-SERVICES")
	}, []string{"jump_missing"}},
	{"PREROUTING's jump takes some packets only", func(s save) save {
		return s.replaced("-A PREROUTING", "-A PREROUTING -i eth0", "-j KUBE-SERVICES")
	}, []string{"jump_missing"}},
	{"nat is flushed", func(s save) save { return s.flushed("nat", false) }, []string{"jump_missing"}},
	{"nat is flushed and its chains deleted", func(s save) save { return s.flushed("nat", true) }, []string{"jump_missing"}},
	{"nat is deleted", func(s save) save {
		from, to := s.table("nat")
		return slices.Delete(slices.Clone(s), from, to+1)
	}, []string{"jump_missing"}},
	{"nat was flushed, and kube-proxy has synced one Service since", func(s save) save {
		flushed := s.flushed("nat", false)
		from, _ := flushed.table("nat")
		return slices.Concat(flushed[:from], s.in("nat", func(s save) save {
			return slices.DeleteFunc(s, func(line string) bool {
				return strings.Contains(line, "-A ") && !strings.Contains(line, web) &&
					!slices.ContainsFunc([]string{"-A KUBE-SERVICES", "-A KUBE-NODEPORTS", "-A KUBE-POSTROUTING", "-A KUBE-MARK-MASQ"}, func(c string) bool { return strings.Contains(line, c) })
			})
		})[from:])
	}, []string{"jump_missing"}},
	{"filter is flushed", func(s save) save { return s.flushed("filter", false) }, []string{"jump_missing"}},
	{"filter is deleted", func(s save) save {
		from, to := s.table("filter")
		return slices.Delete(slices.Clone(s), from, to+1)
	}, []string{"jump_missing"}},
	{"KUBE-SERVICES is emptied", func(s save) save {
		return s.in("nat", func(s save) save { return s.without("-A KUBE-SERVICES") })
	}, []string{"empty_chain"}},
	{"a jump of filter is removed, and a REJECT", func(s save) save {
		return s.without("-A FORWARD", "-j KUBE-SERVICES").without("-A KUBE-SERVICES", "default/empty has no endpoints")
	}, []string{"jump_missing", "not_rejecting_without_endpoints default/empty cluster"}},
	{"all jumps to filter's KUBE-SERVICES are removed, and a REJECT", func(s save) save {
		return s.in("filter", func(s save) save { return s.without("-j KUBE-SERVICES") }).without("-A KUBE-SERVICES", "default/empty has no endpoints").
			without("default/lb-local:http health check node port")
	}, []string{"jump_missing", "missing_dispatch default/lb-local:http loadbalancer"}},
	{"KUBE-FORWARD is emptied", func(s save) save { return s.without("-A KUBE-FORWARD") }, []string{"empty_chain"}},
	{"POSTROUTING's jump is removed", func(s save) save { return s.without("-A POSTROUTING") }, []string{"masquerade_missing"}},
	{"MASQUERADE is removed", func(s save) save { return s.without("-j MASQUERADE") }, []string{"masquerade_missing"}},
	{"KUBE-POSTROUTING's RETURN is removed", func(s save) save { return s.without("-A KUBE-POSTROUTING", "-j RETURN") }, []string{"masquerade_missing"}},
	{"KUBE-POSTROUTING's RETURN takes other packets only", func(s save) save {
		return s.replaced("-m mark", "-o eth0 -m mark", "-A KUBE-POSTROUTING", "-j RETURN")
	}, []string{"masquerade_missing"}},
	{"the mark is asked for by MASQUERADE itself, as of old", func(s save) save {
		return s.without("-A KUBE-POSTROUTING", "-j RETURN").replaced("-j MASQUERADE", "-m mark --mark 0x4000/0x4000 -j MASQUERADE", "-A KUBE-POSTROUTING")
	}, nil},
	{"KUBE-POSTROUTING is emptied", func(s save) save { return s.without("-A KUBE-POSTROUTING") }, []string{"masquerade_missing"}},
	{"KUBE-POSTROUTING returns at once", func(s save) save {
		return s.before("-A KUBE-POSTROUTING -j RETURN", "-A KUBE-POSTROUTING")
	}, []string{"masquerade_missing"}},
	{"KUBE-POSTROUTING is deleted", func(s save) save { return s.without("KUBE-POSTROUTING") }, []string{"masquerade_missing"}},
	{"KUBE-MARK-MASQ is emptied", func(s save) save { return s.without("-A KUBE-MARK-MASQ") }, []string{"masquerade_missing"}},
	{"ACCEPT is put above", func(s save) save {
		return s.before("-A PREROUTING -j ACCEPT", "-A PREROUTING", "-j KUBE-SERVICES")
	}, []string{"jump_shadowed"}},
	{"ACCEPT for a port is put above", func(s save) save {
		return s.before("-A OUTPUT -p tcp -m tcp --dport 80 -j ACCEPT", "-A OUTPUT", "-j KUBE-SERVICES", "portals")
	}, nil}, // that is filter's OUTPUT: see TestShadows
	{"a rule of KUBE-SERVICES ends packets", func(s save) save {
		return s.in("nat", func(s save) save {
			return s.before("-A KUBE-SERVICES -p udp -m udp --dport 53 -j RETURN", "-A KUBE-SERVICES")
		})
	}, []string{"jump_shadowed"}},
	{"the last rule of KUBE-SERVICES accepts what is left", func(s save) save {
		return s.in("nat", func(s save) save { return append(s, "-A KUBE-SERVICES -j ACCEPT") })
	}, nil},
}

// TestOneCause: what many Services lack of a chain that was emptied is told once, of the node, and
// what one lacks of it is told of that one.
func TestOneCause(t *testing.T) {
	tests := []struct {
		name string
		edit func(save) save
		want []string
	}{
		{"node ports", func(s save) save {
			return s.in("nat", func(s save) save { return s.without("-A KUBE-NODEPORTS") })
		}, []string{"empty_chain nat KUBE-NODEPORTS"}},
		{"refusals at cluster addresses", func(s save) save {
			return s.in("filter", func(s save) save { return s.without("-A KUBE-SERVICES") })
		}, []string{"empty_chain filter KUBE-SERVICES"}},
		{"refusals at other addresses", func(s save) save { return s.without("-A KUBE-EXTERNAL-SERVICES") }, []string{"empty_chain filter KUBE-EXTERNAL-SERVICES"}},
		{"of one Service", func(s save) save { return s.without("-A KUBE-PROXY-FIREWALL") }, []string{"source_ranges_missing default/lb-ranges:https"}},
	}
	for _, f := range fixtures {
		for _, tt := range tests {
			t.Run(f.file+"/"+tt.name, func(t *testing.T) {
				lines := save(strings.Split(strings.TrimSpace(f.text(t)), "\n"))
				rules, j := f.rules(t, lines.String()), NewJudge(0)
				var c Comparer
				judge := func(s float64) *Verdict {
					result := c.Compare(&Input{Catalog: catalog(t), Rules: []Rules{rules}})
					return j.Judge(&Reading{Time: at(s), Current: true, Result: result})
				}
				say := func(ds []Drift) (out []string) {
					for i := range ds {
						d := &ds[i]
						if d.OfNode() {
							out = append(out, string(d.Kind)+" "+d.Detail)
						} else {
							out = append(out, string(d.Kind)+" "+d.Port.String())
						}
					}
					return slices.Compact(out)
				}
				judge(0)
				whole := rules
				rules = f.rules(t, tt.edit(lines).String())
				judge(15)
				v := judge(30)
				if diff := cmp.Diff(tt.want, say(v.Drifts)); diff != "" {
					t.Errorf("drift (-want +got)\n%s", diff)
				}
				if diff := cmp.Diff(v.Drifts, v.Began); diff != "" {
					t.Errorf("began (-want +got)\n%s", diff)
				}
				if again := judge(45); len(again.Began)+len(again.Ended) > 0 || !slices.Equal(v.Drifts, again.Drifts) {
					t.Errorf("at the next reading %+v", again)
				}
				rules = whole
				if ended := judge(60); len(ended.Drifts) > 0 || !slices.Equal(say(ended.Ended), tt.want) {
					t.Errorf("in the end %+v", ended)
				}
			})
		}
	}
}

func TestFaultsOfTheNode(t *testing.T) {
	for _, f := range fixtures {
		for _, tt := range faults {
			t.Run(f.file+"/"+tt.name, func(t *testing.T) { f.check(t, tt.edit, tt.want) })
		}
	}
}

// TestEveryJump removes one jump of kube-proxy's after the other.
func TestEveryJump(t *testing.T) {
	for _, f := range fixtures {
		for _, j := range kubeproxy.BaseJumps() {
			t.Run(f.file+"/"+j.Table+" "+j.Hook.String()+" "+j.Chain, func(t *testing.T) {
				want := []string{"jump_missing"}
				if j.Chain == kubeproxy.ChainPostrouting {
					want = []string{"masquerade_missing"}
				}
				f.check(t, func(s save) save {
					return s.in(j.Table, func(s save) save { return s.without("-A "+j.Hook.String()+" ", "-j "+j.Chain) })
				}, want)
			})
		}
	}
}

// TestShadows: which rules above the jump are told.
func TestShadows(t *testing.T) {
	tests := []struct {
		name, rule string
		chains     string // declared before
		below      bool
		want       bool
	}{
		{name: "everything accepted", rule: "-A PREROUTING -j ACCEPT", want: true},
		{name: "everything returns", rule: "-A PREROUTING -j RETURN", want: true},
		{name: "a cluster IP accepted", rule: "-A PREROUTING -d 10.96.1.10/32 -j ACCEPT", want: true},
		{name: "all cluster IPs accepted", rule: "-A PREROUTING -d 10.96.0.0/16 -m conntrack --ctstate NEW -j ACCEPT", want: true},
		{name: "its port redirected", rule: "-A PREROUTING -d 10.96.1.11/32 -p udp -m udp --dport 53 -j REDIRECT --to-ports 5353", want: true},
		{name: "its port sent elsewhere", rule: "-A PREROUTING -p tcp -m multiport --dports 79:81 -j DNAT --to-destination 192.0.2.1", want: true},
		{name: "another port of its", rule: "-A PREROUTING -d 10.96.1.10/32 -p tcp -m tcp --dport 81 -j ACCEPT"},
		{name: "another protocol of its", rule: "-A PREROUTING -d 10.96.1.10/32 -p sctp -j ACCEPT"},
		{name: "another address", rule: "-A PREROUTING -d 10.97.0.1/32 -j ACCEPT"},
		{name: "all but cluster IPs", rule: "-A PREROUTING ! -d 10.96.0.0/12 -p udp -j ACCEPT"},
		{name: "a node port of the node", rule: "-A PREROUTING -p tcp -m addrtype --dst-type LOCAL -m tcp --dport 30080 -j ACCEPT", want: true},
		{name: "a node port of one address", rule: "-A PREROUTING -d 192.168.50.11/32 -p tcp -m tcp --dport 30080 -j ACCEPT"},
		{name: "some source accepted", rule: "-A PREROUTING -s 192.0.2.0/24 -j ACCEPT"},
		{name: "some device accepted", rule: "-A PREROUTING -i docker0 -j RETURN"},
		{name: "marked packets accepted", rule: "-A PREROUTING -m mark --mark 0x1 -j ACCEPT"},
		{name: "answers accepted", rule: "-A PREROUTING -m conntrack --ctstate ESTABLISHED -j ACCEPT"},
		{name: "below the jump", rule: "-A PREROUTING -j ACCEPT", below: true},
		{name: "logged", rule: "-A PREROUTING -j LOG"},
		{
			name: "host ports", chains: ":CNI-HOSTPORT-DNAT - [0:0]\n:CNI-DN-0123 - [0:0]\n" +
				"-A CNI-HOSTPORT-DNAT -p tcp -m multiport --dports 80 -j CNI-DN-0123\n-A CNI-DN-0123 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.244.1.11:80",
			rule: "-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT",
		},
		{
			name: "Docker", chains: ":DOCKER - [0:0]\n-A DOCKER -i docker0 -j RETURN",
			rule: "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
		},
	}
	f := fixtures[0]
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var want []string
			if tt.want {
				want = []string{"jump_shadowed"}
			}
			f.check(t, func(s save) save {
				return s.in("nat", func(s save) save {
					if tt.chains != "" {
						s = slices.Insert(s, 1, strings.Split(tt.chains, "\n")...)
					}
					if tt.below {
						return append(s, tt.rule)
					}
					return s.before(tt.rule, "-A PREROUTING", "KUBE-SERVICES")
				})
			}, want)
		})
	}
}

// TestLoading: before kube-proxy's first sync has come to its end nothing is said, and
// nothing of a node without it.
func TestLoading(t *testing.T) {
	f := fixtures[0]
	jumpsAlone := func(s save) save {
		return slices.DeleteFunc(s, func(line string) bool {
			name, _, _ := strings.Cut(strings.TrimPrefix(line, ":"), " ")
			_, hash := kubeproxy.ParseChain(name)
			return hash != "" || strings.Contains(line, "-A KUBE-")
		})
	}
	tests := map[string]func(save) save{
		"the jumps stand":    func(s save) save { return s.in("filter", jumpsAlone).in("nat", jumpsAlone) },
		"filter is written":  func(s save) save { return s.in("nat", jumpsAlone) },
		"nothing is written": func(s save) save { return s.flushed("nat", true).flushed("filter", true) },
	}
	for name, edit := range tests {
		t.Run(name, func(t *testing.T) {
			text := edit(strings.Split(strings.TrimSpace(f.text(t)), "\n")).String()
			got := Compare(&Input{Catalog: catalog(t), Rules: []Rules{f.rules(t, text)}})
			if len(got.Differences) > 0 || len(got.Families) > 0 {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// TestTwoBackends: the other backend's rules are told once, whatever they are.
func TestTwoBackends(t *testing.T) {
	nft, legacy := fixtures[0], fixtures[1]
	lines := strings.Split(strings.TrimSpace(legacy.text(t)), "\n")
	tests := []struct {
		name   string
		legacy save
		want   []string
	}{
		{"all rules", lines, []string{"two_backends"}},
		{"rules of yesterday", save(lines).without("-A KUBE-SVC-"+web, "-m statistic").without(nodeport), []string{"two_backends"}},
		{"one Service", save{"*nat", ":PREROUTING ACCEPT [0:0]", ":KUBE-SERVICES - [0:0]", ":KUBE-SVC-" + web + " - [0:0]",
			"-A PREROUTING -j KUBE-SERVICES", "-A KUBE-SERVICES -d 10.96.1.10/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-" + web, "COMMIT"}, []string{"two_backends"}},
		{"other addresses", save{"*nat", ":PREROUTING ACCEPT [0:0]", ":KUBE-SERVICES - [0:0]", ":KUBE-SVC-" + web + " - [0:0]",
			"-A PREROUTING -j KUBE-SERVICES", "-A KUBE-SERVICES -d 10.99.1.10/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-" + web, "COMMIT"}, nil},
		{"no jump", save(lines).without("-A PREROUTING").without("-A OUTPUT", "service portals"), nil},
		{"kubelet's chains", save{"*nat", ":PREROUTING ACCEPT [0:0]", ":KUBE-KUBELET-CANARY - [0:0]", "COMMIT"}, nil},
		{"Docker's rules", save{"*nat", ":PREROUTING ACCEPT [0:0]", ":DOCKER - [0:0]", "-A PREROUTING -j DOCKER", "COMMIT"}, nil},
	}
	for _, tt := range tests {
		for _, order := range []string{"nft first", "legacy first"} {
			t.Run(tt.name+"/"+order, func(t *testing.T) {
				rules := []Rules{nft.rules(t, nft.text(t)), legacy.rules(t, tt.legacy.String())}
				if order == "legacy first" {
					slices.Reverse(rules)
				}
				got := Compare(&Input{Catalog: catalog(t), Rules: rules})
				if diff := cmp.Diff(tt.want, describe(got.Differences)); diff != "" {
					t.Errorf("(-want +got)\n%s", diff)
				}
				if diff := cmp.Diff([]netfilter.Family{netfilter.IPv4}, got.Families); diff != "" {
					t.Errorf("families (-want +got)\n%s", diff)
				}
				if got.Backends[netfilter.IPv4] != ruleset.NFT {
					t.Errorf("taken for kube-proxy's: %s", got.Backends[netfilter.IPv4])
				}
			})
		}
	}
	broken := save(strings.Split(strings.TrimSpace(nft.text(t)), "\n")).without("-A KUBE-SVC-" + web)
	got := Compare(&Input{Catalog: catalog(t), Rules: []Rules{nft.rules(t, broken.String()), legacy.rules(t, save(lines).without("-A KUBE-SVC-"+web).without("-A KUBE-SVC-"+nodeport).String())}})
	want := []string{"empty_chain default/web:http", "two_backends"}
	if diff := cmp.Diff(want, describe(got.Differences)); diff != "" {
		t.Errorf("the better one's faults (-want +got)\n%s", diff)
	}
	got = Compare(&Input{Catalog: catalog(t), Rules: []Rules{nft.rules(t, broken.String()), legacy.rules(t, save(lines).String())}})
	if !got.Writes(&Commit{Family: netfilter.IPv4, Backend: ruleset.Legacy}) || got.Writes(&Commit{Family: netfilter.IPv4, Backend: ruleset.NFT}) {
		t.Errorf("taken for kube-proxy's: %v, want the better one", got.Backends)
	}
}

// TestModes: rules that the iptables mode has left behind are judged by nobody's intent.
func TestModes(t *testing.T) {
	f := fixtures[0]
	lines := save(strings.Split(strings.TrimSpace(f.text(t)), "\n"))
	stale := f.rules(t, lines.without("-A KUBE-SVC-"+web).String())
	stale.NFTablesMode = true
	got := Compare(&Input{Catalog: catalog(t), Rules: []Rules{stale}})
	if diff := cmp.Diff([]string{"two_modes"}, describe(got.Differences)); diff != "" || len(got.Families) > 0 {
		t.Errorf("families %v (-want +got)\n%s", got.Families, diff)
	}
	cleaned := f.rules(t, lines.flushed("nat", false).String())
	cleaned.NFTablesMode = true
	if got := Compare(&Input{Catalog: catalog(t), Rules: []Rules{cleaned}}); len(got.Differences) > 0 || len(got.Families) > 0 {
		t.Errorf("without a jump: got %+v", got)
	}
	// IPVS has a KUBE-SERVICES and no Service's chain.
	text := "*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n-A PREROUTING -j KUBE-SERVICES\n-A KUBE-SERVICES -m mark --mark 0x1 -j ACCEPT\nCOMMIT\n"
	if got := Compare(&Input{Catalog: catalog(t), IPVS: true, Rules: []Rules{f.rules(t, text)}}); len(got.Differences) > 0 || len(got.Families) > 0 {
		t.Errorf("IPVS: got %+v", got)
	}
	// What the iptables mode has left behind beside it, after a change of the mode.
	text = "*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n:KUBE-SVC-" + web + " - [0:0]\n-A PREROUTING -j KUBE-SERVICES\n" +
		"-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODE-PORT\n-A KUBE-SVC-" + web + " -j KUBE-MARK-MASQ\nCOMMIT\n"
	if got := Compare(&Input{Catalog: catalog(t), IPVS: true, Rules: []Rules{f.rules(t, text)}}); len(got.Differences) > 0 || len(got.Families) > 0 {
		t.Errorf("IPVS after the iptables mode: got %+v", got)
	}
	// KUBE-SERVICES was emptied, or left with its last rule, while somebody has virtual servers.
	for name, text := range map[string]string{
		"emptied":     lines.in("nat", func(s save) save { return s.without("-A KUBE-SERVICES") }).String(),
		"but for one": lines.in("nat", func(s save) save { return s.without("-A KUBE-SERVICES", "cluster IP") }).String(),
		"without nodes": lines.in("nat", func(s save) save {
			return s.without("-A KUBE-SERVICES", "-j KUBE-S").without("-A KUBE-SERVICES", "-j KUBE-EXT").without("-A KUBE-SERVICES", "-j KUBE-FW").without("-A KUBE-NODEPORTS")
		}).String(),
	} {
		if got := Compare(&Input{Catalog: catalog(t), IPVS: true, Rules: []Rules{f.rules(t, text)}}); len(got.Differences) == 0 || len(got.Families) != 1 {
			t.Errorf("%s: got %+v", name, got)
		}
	}
	// Virtual servers of somebody else change nothing.
	if got := Compare(&Input{Catalog: catalog(t), IPVS: true, Rules: []Rules{f.rules(t, f.text(t))}}); len(got.Differences) > 0 || len(got.Families) != 1 {
		t.Errorf("keepalived: got %+v", got)
	}
}

// TestWithoutTheAPI: the node's own chains are judged all the same.
func TestWithoutTheAPI(t *testing.T) {
	f := fixtures[0]
	lines := save(strings.Split(strings.TrimSpace(f.text(t)), "\n")).without("-j MASQUERADE").without("-A KUBE-SVC-" + web)
	got := Compare(&Input{Rules: []Rules{f.rules(t, lines.String())}})
	if diff := cmp.Diff([]string{"masquerade_missing"}, describe(got.Differences)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if got.Differences[0].Backend != ruleset.NFT {
		t.Errorf("got %+v", got.Differences[0])
	}
}
