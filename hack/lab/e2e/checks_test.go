// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// rewriteDispatch adds and removes an unrelated Service, and sees in the
// kernel that this zeroed the jump to web in KUBE-SERVICES.
func (s *scene) rewriteDispatch() {
	s.t.Helper()
	jump := func() int {
		return packets(s.t, s.lab.Exec("node1", "iptables-save", "-c", "-t", "nat"), `"default/web cluster IP" -m tcp --dport 80 -j KUBE-SVC-`)
	}
	if jump() == 0 {
		s.t.Error("the jump to web counted nothing before: the test shows nothing")
	}
	s.lab.Expose("unrelated", "--port=81", "--pods=pod2")
	s.lab.Unexpose("unrelated")
	if n := jump(); n != 0 {
		s.t.Errorf("the jump to web counts %d after KUBE-SERVICES was rewritten: the test shows nothing", n)
	}
	// The refusing rules were rewritten too; what they had counted was read.
}

// checkSizes compares numbers of rules and endpoints with iptables-save.
func (s *scene) checkSizes() {
	s.t.Helper()
	m := s.agent.metrics()
	for _, f := range families {
		family := map[string]string{"ip_family": f.name}
		for _, table := range []string{"nat", "filter"} {
			rules := s.lab.Exec("node1", f.save, "-t", table)
			if got, n := m.sum("svcscope_rules", map[string]string{"ip_family": f.name, "table": table}); n == 0 || int(got) != lines(rules, "-A ") {
				s.t.Errorf("svcscope_rules %s %s is %v, iptables-save has %d", f.name, table, got, lines(rules, "-A "))
			}
			// iptables-nft-save prints built-in chains that the kernel doesn't have.
			chains := map[string]string{"ip_family": f.name, "table": table, "owner": "kube-proxy"}
			if got, _ := m.sum("svcscope_chains", chains); int(got) != lines(rules, ":KUBE-") {
				s.t.Errorf("svcscope_chains %s %s is %v, iptables-save has %d", f.name, table, got, lines(rules, ":KUBE-"))
			}
			if table != "nat" {
				continue
			}
			if got, _ := m.sum("svcscope_dispatch_rules", family); int(got) != lines(rules, "-A KUBE-SERVICES ") {
				s.t.Errorf("svcscope_dispatch_rules %s is %v, iptables-save has %d", f.name, got, lines(rules, "-A KUBE-SERVICES "))
			}
		}
		for _, source := range []string{"api", "kernel"} {
			labels := map[string]string{"ip_family": f.name, "service_name": "web", "source": source}
			if got, _ := m.sum("svcscope_service_endpoints", labels); got != 3 {
				s.t.Errorf("svcscope_service_endpoints%v is %v, want 3", labels, got)
			}
		}
	}
}

func lines(text, prefix string) int {
	n := 0
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, prefix) {
			n++
		}
	}
	return n
}

// lintException is the one name that promtool does not like: it is of counters.
const lintException = "svcscope_counter_blind_seconds_total metric name should not include type 'counter'\n"

// checkExposition has promtool judge the page.
func (s *scene) checkExposition() {
	s.t.Helper()
	page, err := s.agent.get("10988", "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	check := exec.Command(tool(s.t, "promtool"), "check", "metrics")
	check.Stdin = strings.NewReader(page)
	if out, err := check.CombinedOutput(); string(out) != lintException {
		s.t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// checkAgent looks at the agent's process: what it may do, and that it has
// started no other and made no table.
func (s *scene) checkAgent(backend string) {
	s.t.Helper()
	pid := s.pid()
	if pid == "" || strings.ContainsAny(pid, " \n") {
		s.t.Fatalf("the agent's process: found %q", pid)
	}
	status := s.lab.Exec("node1", "cat", "/proc/"+pid+"/status")
	for _, want := range []string{
		"Uid:\t0\t0\t0\t0",
		"CapEff:\t0000000000001000", // CAP_NET_ADMIN, 1 << 12
		"CapPrm:\t0000000000001000",
		"CapBnd:\t0000000000001000",
		"NoNewPrivs:\t1",
	} {
		if !strings.Contains(status, want) {
			s.t.Errorf("the agent's status has no %q:\n%s", want, status)
		}
	}
	children := s.lab.Exec("node1", "sh", "-c", `for p in /proc/[0-9]*/stat; do
		[ "$(cut -d' ' -f4 $p 2>/dev/null)" != `+pid+` ] || cat $p; done; true`)
	if children != "" {
		s.t.Errorf("the agent has started processes:\n%s", children)
	}
	tables := s.lab.Exec("node1", "sh", "-c", "cat /proc/net/ip_tables_names /proc/net/ip6_tables_names")
	if backend == "nft" && tables != "" {
		s.t.Errorf("legacy tables exist on a node of nf_tables: %q", tables)
	}
	if backend == "legacy" && !strings.Contains(tables, "nat") {
		s.t.Errorf("no legacy table exists on a node of iptables-legacy: %q", tables)
	}
}

// pid returns the agent's process as node1 sees it, empty if there is none.
func (s *scene) pid() string {
	s.t.Helper()
	return strings.TrimSpace(s.lab.Exec("node1", "sh", "-c", `for p in /proc/[0-9]*; do
		case $(tr '\0' ' ' <$p/cmdline) in */svcscope\ agent*) echo ${p#/proc/};; esac; done 2>/dev/null`))
}

// restart ends the agent and starts a new one, which counts from 0.
func (s *scene) restart() {
	s.t.Helper()
	if err := s.agent.Stop(); err != nil {
		s.t.Errorf("the agent after SIGTERM: %v\n%s", err, s.agent.Output())
	}
	s.total = map[string]*opened{"IPv4": {}, "IPv6": {}}
	s.start(true)
}

// checkIncrease asks Prometheus for the growth over the whole test, across
// the agent's restart: raw samples must give exactly what was opened, and
// increase() that much and no more than its extrapolation from the first and
// last sample to the ends of the window adds.
func (s *scene) checkIncrease(p *prometheus, before map[string]*opened) {
	s.t.Helper()
	for _, f := range families {
		want := float64(before[f.name].cluster + before[f.name].external + s.total[f.name].cluster + s.total[f.name].external)
		var selector string
		var most float64
		eventually(s.t, "Prometheus has all of it", func() error {
			now := time.Now()
			window := now.Sub(p.started).Truncate(time.Second) + time.Second
			selector = fmt.Sprintf(`svcscope_service_connections_total{service_name="web",ip_family=%q}[%ds] @ %d.%03d`,
				f.name, int(window.Seconds()), now.Unix(), now.Nanosecond()/1e6)
			raw, err := p.query(selector)
			if err != nil {
				return err
			}
			var grown float64
			most = 0
			for _, one := range raw {
				grown += one.grown()
				// Prometheus goes on to an end of the window that is within
				// 1.1 sample intervals, else half an interval.
				most += one.grown() * (1 + 2.2/float64(len(one.Values)-1))
			}
			if grown != want {
				return fmt.Errorf("%s: raw samples grew by %v, %v were opened", f.name, grown, want)
			}
			return nil
		})
		v, err := p.query("sum(increase(" + selector + "))")
		if err != nil || len(v) != 1 {
			s.t.Fatalf("increase(): %v, %v", v, err)
		}
		if got := v[0].value(); got < want-0.001 || got > most+0.001 {
			s.t.Errorf("%s: increase() says %v, want %v to %v", f.name, got, want, most)
		}
		result(s.t, "%s: %v opened; across the agent's restart raw samples in Prometheus grew by as much, increase() says %.1f (extrapolated to at most %.1f)",
			f.name, want, v[0].value(), most)
	}
}

// TestWithoutAPI shows the same numbers without the API, and that the agent
// lives without it and picks it up.
func TestWithoutAPI(t *testing.T) {
	s := newScene(t, "nft")
	s.start(false)
	s.open(500)
	s.settled("names from comments and chain names")
	if v, n := s.agent.metrics().sum("svcscope_kube_synced", nil); v != 0 || n != 1 {
		t.Errorf("svcscope_kube_synced is %v in %d series, want 0 in 1", v, n)
	}
	if err := s.agent.Stop(); err != nil {
		t.Errorf("the agent after SIGTERM: %v\n%s", err, s.agent.Output())
	}

	s.total = map[string]*opened{"IPv4": {}, "IPv6": {}}
	block := []string{"OUTPUT", "-p", "tcp", "--dport", "6443", "-j", "REJECT", "--reject-with", "tcp-reset"}
	s.lab.Exec("node1", append([]string{"iptables", "-I"}, block...)...)
	s.start(true)
	if v, _ := s.agent.metrics().sum("svcscope_kube_synced", nil); v != 0 {
		t.Error("svcscope_kube_synced is 1 while the API can't be reached: the test shows nothing")
	}
	s.open(50)
	s.settled("counts while the API can't be reached")
	s.lab.Exec("node1", append([]string{"iptables", "-D"}, block...)...)
	eventually(t, "the agent picks up the API", func() error {
		if v, _ := s.agent.metrics().sum("svcscope_kube_synced", nil); v != 1 {
			return fmt.Errorf("svcscope_kube_synced is %v; %s", v, s.agent.Output())
		}
		return nil
	})
	s.open(50)
	s.settled("counts go on when the API comes")
	result(t, "%v (IPv4) with the API first out of reach, then there", s.total["IPv4"])
}

// TestForeignRules shows that rules which the agent doesn't know disturb
// nothing.
func TestForeignRules(t *testing.T) {
	s := newScene(t, "nft")
	s.lab.Exec("node1", "nft", `
table inet firewall {
	set seen { type ipv4_addr; flags dynamic,timeout; timeout 1m; }
	chain input { type filter hook input priority 10; ct state new update @seen { ip saddr } counter accept; }
}
table ip other {
	map ports { type inet_service : verdict; elements = { 25 : drop, 26 : accept } }
	chain prerouting { type filter hook prerouting priority -300; tcp dport vmap @ports; meta mark set numgen inc mod 3 counter; }
}`)
	s.lab.Exec("node1", "sh", "-c", `{ echo "*filter"; echo ":FOREIGN - [0:0]"
		for n in $(seq 30); do echo "-A FOREIGN -m length --length $n -m u32 --u32 \"0x6&0xff=$n\" -j DROP"; done
		echo COMMIT; } | iptables-restore --noflush`)
	s.start(true)
	s.open(500)
	s.settled("counts beside rules of others")
	if v, n := s.agent.metrics().sum("svcscope_undecoded_total", nil); n == 0 || v == 0 {
		t.Errorf("svcscope_undecoded_total is %v in %d series, want what isn't decoded", v, n)
	}
	if v, _ := s.agent.metrics().sum("svcscope_collector_success", map[string]string{"collector": "nftables"}); v != 1 {
		t.Errorf("svcscope_collector_success of nftables is %v: %s", v, s.agent.Output())
	}
}
