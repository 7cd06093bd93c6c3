// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/svcscope/svcscope/hack/lab/labtest"
)

// TestConntrack looks at the entries of connection tracking of a node with real
// traffic: what kube-proxy has not cleaned up yet, what a prompt shows, and a
// table that overflows.
func TestConntrack(t *testing.T) {
	m := newMonitored(t)
	p := startPrometheus(t, m.lab, scraping{rules: shortRules(t)})
	for name, f := range map[string]func(*monitored){"stale": staleFlows, "prompt": conntrackAtAPrompt} {
		t.Run(name, func(t *testing.T) { m.t = t; f(m) })
	}
	t.Run("overflow", func(t *testing.T) { m.t = t; m.overflow(p) })
	m.t = t
}

// flows sums a metric of entries of one Service.
func (m *monitored) flows(metric, name string) float64 {
	m.t.Helper()
	n, _ := m.agent.metrics().sum(metric, map[string]string{"service_name": name})
	return n
}

// staleFlows takes the endpoint of a Service under traffic away while kube-proxy
// hangs: its entries are stale until kube-proxy goes on and deletes them.
func staleFlows(m *monitored) {
	const entries, stale = "svcscope_service_conntrack_entries", "svcscope_service_conntrack_stale_entries"
	chat := m.lab.Expose("chat", "--port=53", "--protocol=UDP", "--pods=pod1", "--ip-families=v4")
	defer m.lab.Unexpose("chat")
	address, port, _ := strings.Cut(chat.VIP4(), ":")
	const clients = 3 // that go on sending, each from one port
	for range clients {
		m.busy["chat"] = append(m.busy["chat"], m.lab.StartProcess("client", "bash", "-c",
			"exec 3<>/dev/udp/"+address+"/"+port+"; while echo hello >&3; do sleep 0.2; done"))
	}
	defer m.stopBusy("chat")
	eventually(m.t, "the Service has entries", func() error {
		if n := m.flows(entries, "chat"); n != clients {
			return fmt.Errorf("%v", n)
		}
		return nil
	})
	if n := m.flows(stale, "chat"); n != 0 {
		m.t.Errorf("%v are stale in health", n)
	}
	sendSignal(m.lab, "kube-proxy", "STOP")
	defer sendSignal(m.lab, "kube-proxy", "CONT")
	m.lab.Run("expose", "chat", "--port=53", "--protocol=UDP", "--pods=pod2", "--ip-families=v4", "--wait=false")
	eventually(m.t, "as many are stale as conntrack prints", func() error {
		oracle := strings.Count(m.lab.Exec("node1", "sh", "-c", "conntrack -L -p udp -d "+address+" 2>/dev/null"), "src=10.244.1.11 ")
		if n := m.flows(stale, "chat"); n != clients || oracle != clients {
			return fmt.Errorf("%v, conntrack prints %d", n, oracle)
		}
		return nil
	})
	sendSignal(m.lab, "kube-proxy", "CONT")
	eventually(m.t, "kube-proxy has deleted them", func() error {
		if n := m.flows(stale, "chat"); n != 0 {
			return fmt.Errorf("%v are stale", n)
		}
		if n := m.flows(entries, "chat"); n != clients {
			return fmt.Errorf("%v entries", n)
		}
		return nil
	})
}

// conntrackAtAPrompt asks the agent, the kernel, and watches connections.
func conntrackAtAPrompt(m *monitored) {
	direct := []string{"--kubeconfig=" + m.lab.Info.Kubeconfig, "--node-name=node1"}
	table := m.lab.Exec("node1", svcscope, "conntrack")
	for _, want := range []string{`(?m)^TABLE +\d+ of \d+ entries`, `(?m)^LOSSES +in `, `(?m)^ENTRIES .*service \d+`, `(?m)^default +web +http/TCP +IPv4 +\d+ `} {
		if !regexp.MustCompile(want).MatchString(table) {
			m.t.Errorf("svcscope conntrack lacks %s:\n%s", want, table)
		}
	}
	once := m.lab.Exec("node1", append([]string{svcscope, "conntrack", "--agent=none"}, direct...)...)
	if !strings.Contains(once, "web") || strings.Contains(once, "LOSSES") {
		m.t.Errorf("svcscope conntrack --agent=none:\n%s", once)
	}
	watch := m.lab.StartWith([]string{"--caps=net_admin"}, "node1", append([]string{svcscope, "watch", "web"}, direct...)...)
	watch.WaitOutput(m.t, "watching connections to default/web")
	line := regexp.MustCompile(`(?m)^\S+  new +\S+ → 10\.96\.0\.80:80 → 10\.244\.1\.1\d:8080  \(on node1`)
	seen := 0
	eventually(m.t, "connections to web are seen", func() error {
		if seen = len(line.FindAllString(watch.Output(), -1)); seen < 20 {
			return fmt.Errorf("%d lines of\n%s", seen, watch.Output())
		}
		return nil
	})
	result(m.t, "svcscope watch: %d connections to a Service as they were made, each with its endpoint and that one's node", seen)
	if err := watch.Stop(); err != nil {
		m.t.Errorf("svcscope watch after SIGTERM: %v\n%s", err, watch.Output())
	}
}

// overflow fills the table to within 2,000 entries of the machine's limit, and
// lets connections do the rest: the forecast comes first, then what the kernel
// counts, and with it the cause and the alerts. A new connection to the agent may
// be one of those that find no room, so that only Prometheus can tell, which has
// one already.
func (m *monitored) overflow(p *prometheus) {
	health := m.agent.metrics()
	value := func(name string, labels map[string]string) float64 { n, _ := health.sum(name, labels); return n }
	counted := value("svcscope_conntrack_early_drop_total", nil) + value("svcscope_conntrack_drop_total", nil)
	lost := value("svcscope_conntrack_losses_total", map[string]string{"cause": "table_full"})

	flood := m.lab.Expose("flood", "--port=80", "--pods=pod1", "--ip-families=v4")
	defer m.lab.Unexpose("flood")
	begin := time.Now()
	m.conntrack("assured", fmt.Sprint(m.conntrackLimit()-2000))
	m.busy["overflow"] = append(m.busy["overflow"], m.lab.StartLoad("client", flood.VIP4(), "--rate=100", "--timeout=200ms"))
	want := []string{"SvcscopeConntrackCritical", "SvcscopeConntrackDropping", "SvcscopeConntrackFillingFast"}
	eventually(m.t, "alerts fire", func() error {
		if lack := missing(want, p.everFired()); len(lack) > 0 {
			return fmt.Errorf("missing %v", lack)
		}
		return nil
	})
	m.stopBusy("overflow")
	m.conntrack("clear")
	forecast := p.first(begin, "svcscope_conntrack_time_to_full_seconds > 0")
	over := p.first(begin, fmt.Sprintf("svcscope_conntrack_early_drop_total + svcscope_conntrack_drop_total > %v", counted))
	cause := p.first(begin, fmt.Sprintf(`svcscope_conntrack_losses_total{cause="table_full"} > %v`, lost))
	if forecast >= over || over > cause {
		m.t.Errorf("forecast after %v, counted after %v, with the cause after %v", forecast, over, cause)
	}
	result(m.t, "a table within 2,000 entries of its limit: forecast after %.0f s, evicted or dropped after %.0f s, cause after %.0f s, and the alerts",
		forecast.Seconds(), over.Seconds(), cause.Seconds())
}

// first is how long after begin an expression had a value, at the soonest: what
// came last is in none of the query's steps yet.
func (p *prometheus) first(begin time.Time, expr string) (after time.Duration) {
	p.t.Helper()
	eventually(p.t, expr, func() error {
		all, err := p.rangeQuery(expr, begin, time.Second)
		if err != nil || len(all) == 0 || len(all[0].Values) == 0 {
			return fmt.Errorf("never since %v: %v", begin, err)
		}
		at, _ := all[0].Values[0][0].(float64)
		after = time.Duration((at - float64(begin.UnixMilli())/1000) * float64(time.Second))
		return nil
	})
	return after
}

// TestConntrackInNFTablesMode counts the entries of a Service where kube-proxy has no
// iptables rules: by cluster address and node port, of both families.
func TestConntrackInNFTablesMode(t *testing.T) {
	t.Parallel()
	l := labtest.Start(t, labtest.Options{ProxyMode: "nftables", Scene: "demo"})
	a := startAgent(t, l, "--conntrack.interval=1s", "--kubeconfig="+l.Info.Kubeconfig)
	const each = 50
	for _, to := range []string{"10.96.0.80:80", "[fd00:10:96::80]:80", l.NodePort(30080, false), l.NodePort(30080, true)} {
		if r := l.Load("client", to, each); r.Succeeded != each {
			t.Errorf("%d connections to %s: %+v", each, to, r)
		}
	}
	for family, to := range map[string][2]string{"IPv4": {"ipv4", "10.96.0.80"}, "IPv6": {"ipv6", "fd00:10:96::80"}} {
		// Entries go with the time; both are to tell of the same.
		eventually(t, "as many entries of "+family+" as conntrack prints", func() error {
			oracle := 0
			for line := range strings.Lines(l.Exec("node1", "sh", "-c", "conntrack -L -p tcp -f "+to[0]+" 2>/dev/null")) {
				orig, _, _ := strings.Cut(line, " dport=")
				rest := strings.TrimPrefix(line, orig)
				if strings.Contains(orig, " dst="+to[1]+" ") || strings.HasPrefix(rest, " dport=30080 ") {
					oracle++
				}
			}
			n, _ := a.metrics().sum("svcscope_service_conntrack_entries", map[string]string{"service_name": "web", "ip_family": family})
			if int(n) != oracle || oracle < 2*each {
				return fmt.Errorf("%v, conntrack prints %d", n, oracle)
			}
			return nil
		})
	}
	if n, _ := a.metrics().sum("svcscope_node_info", map[string]string{"proxy_mode": "nftables"}); n != 1 {
		t.Error("the proxy's mode is not told as nftables")
	}
	result(t, "kube-proxy's nftables mode: %d connections by cluster address and node port of each family, as many entries of the Service as conntrack prints", 2*each)
}
