// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/service"
)

// tally is what was opened, or counted: connections to the cluster's address
// and to the node's, and refused packets.
type tally struct{ cluster, external, refused uint64 }

// more reports whether any number is larger than the other's.
func (t tally) more(than tally) bool {
	return t.cluster > than.cluster || t.external > than.external || t.refused > than.refused
}

func (t tally) less(u tally) tally {
	return tally{t.cluster - u.cluster, t.external - u.external, t.refused - u.refused}
}

func (t tally) plus(u tally) tally {
	return tally{t.cluster + u.cluster, t.external + u.external, t.refused + u.refused}
}

func (t tally) sum() uint64 { return t.cluster + t.external + t.refused }

// traffic opens connections and sends packets that are refused, from several
// goroutines, and knows how many.
type traffic struct {
	family *family
	// rules is held for reading while a packet is on its way, and for writing
	// while there are no rules for it.
	rules sync.RWMutex
	begun [3]atomic.Uint64
	done  [3]atomic.Uint64
	stop  context.CancelFunc
	ended chan error
	n     int
}

// startTraffic begins with n goroutines.
func startTraffic(t *testing.T, f *family, n int, seed uint64) *traffic {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	tr := &traffic{family: f, stop: cancel, ended: make(chan error, n), n: n}
	for i := range n {
		go func() { tr.ended <- tr.run(ctx, rand.New(rand.NewPCG(seed, uint64(i)))) }()
	}
	return tr
}

// end stops all goroutines and returns what went wrong.
func (tr *traffic) end() error {
	tr.stop()
	var errs []error
	for range tr.n {
		errs = append(errs, <-tr.ended)
	}
	return errors.Join(errs...)
}

func (tr *traffic) run(ctx context.Context, rng *rand.Rand) error {
	refused, err := net.ListenUDP("udp", nil) // not connected: refusals are no error of a later packet
	if err != nil {
		return err
	}
	defer refused.Close()
	for ctx.Err() == nil {
		if err := tr.one(rng.IntN(10), refused); err != nil {
			return err
		}
		wait(ctx, time.Duration(rng.IntN(3000))*time.Microsecond)
	}
	return nil
}

// one opens a connection, or has a packet refused.
func (tr *traffic) one(kind int, refused *net.UDPConn) error {
	tr.rules.RLock()
	defer tr.rules.RUnlock()
	what := 0
	switch {
	case kind >= 8:
		what = 2
	case kind >= 5:
		what = 1
	}
	tr.begun[what].Add(1)
	switch what {
	case 2:
		// The rule that refuses a packet of this host drops it.
		to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(tr.family.ghost, vipPort))
		if _, err := refused.WriteTo([]byte("x"), to); !errors.Is(err, os.ErrPermission) {
			return fmt.Errorf("a packet to a Service without endpoints is not refused: %w", err)
		}
	case 1, 0:
		c, err := net.DialTimeout("tcp", []netip.AddrPort{tr.family.cluster(), tr.family.external()}[what].String(), 5*time.Second)
		if err != nil {
			return err
		}
		_ = c.(*net.TCPConn).SetLinger(0) // see connect
		_ = c.Close()
	}
	tr.done[what].Add(1)
	return nil
}

// opened is what has passed rules, and at most what may have.
func (tr *traffic) opened() (done, begun tally) {
	of := func(n *[3]atomic.Uint64) tally { return tally{n[0].Load(), n[1].Load(), n[2].Load()} }
	return of(&tr.done), of(&tr.begun)
}

// chaosRules is family.rules, with ghost at UDP: who sends a packet there
// learns of each one that is refused.
func (f *family) chaosRules(extra string) string {
	return strings.Replace(f.rules(extra), fmt.Sprintf("-m tcp -p tcp -d %s --dport", f.ghost), fmt.Sprintf("-m udp -p udp -d %s --dport", f.ghost), 1)
}

// chaosAPI tells of web and ghost.
func chaosAPI(f *family) *fakeWatcher {
	api := newFakeWatcher()
	c := f.catalog()
	c.Services = append(c.Services, &service.Service{
		Name: ghostPort.Name, Type: "ClusterIP", ClusterIPs: []netip.Addr{f.ghost},
		Ports: []service.Port{{Protocol: service.UDP, Port: vipPort}},
	})
	slices.SortFunc(c.Services, func(a, b *service.Service) int { return a.Name.Compare(b.Name) })
	api.catalog, api.state = c, apiState{Current: true}
	return api
}

// apiSampler is a sampler that knows an API, until the test ends.
func apiSampler(t *testing.T, cfg Config, api *fakeWatcher) *sampler {
	t.Helper()
	s := newSampler(cfg, thisHost(), newKube(cfg, func() (watcher, error) { return api, nil }))
	if err := s.kube.check(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// counted is what a snapshot says, and for how long counts may be incomplete.
func counted(s *correlate.Snapshot) (t tally, blind time.Duration) {
	for _, p := range s.Services {
		t.cluster += p.Cluster
		t.external += p.External
		for _, n := range p.Rejected {
			t.refused += n
		}
	}
	for _, b := range s.Blind {
		blind += b.Total
	}
	return t, blind
}

// operation is something that happens to rules; afterwards they work again.
type operation struct {
	name string
	do   func(c *chaos)
	// hidden operations reset counters of nf_tables under their identity. One
	// that has passed its old value at the next look shows nothing of it.
	hidden bool
	// whole operations end all counters of web in one commit, and the
	// connections' first, as kube-proxy does. Else as many connections as may
	// have been in flight are not given to the cluster's address.
	whole bool
	// table operations write a whole table, with its counters or without. A
	// packet that passes before the kernel tells of its new rule is taken for
	// one that was restored.
	table bool
}

// ipt runs iptables of the scene's backend and family.
func (c *chaos) ipt(args ...string) {
	c.t.Helper()
	kerneltest.Exec(c.t, "", c.f.iptables+"-"+c.backend, append([]string{"-w", "10"}, args...)...)
}

// synced has kube-proxy write what it has.
func (c *chaos) synced() {
	c.t.Helper()
	c.f.restore(c.t, c.backend, c.shuffled().chains())
	c.f.restore(c.t, c.backend, c.f.chaosRules(""))
}

// shuffled has some of the endpoints, in some order.
func (c *chaos) shuffled() *family {
	g := *c.f
	g.endpoints = slices.Clone(g.endpoints)
	c.rng.Shuffle(len(g.endpoints), func(i, j int) { g.endpoints[i], g.endpoints[j] = g.endpoints[j], g.endpoints[i] })
	g.endpoints = g.endpoints[:1+c.rng.IntN(len(g.endpoints))]
	return &g
}

// away does something that leaves no rules, and then has kube-proxy write them.
func (c *chaos) away(do func()) {
	c.t.Helper()
	c.traffic.rules.Lock()
	defer c.traffic.rules.Unlock()
	do()
	if c.rng.IntN(3) == 0 {
		c.pass() // the agent sees it
	}
	c.synced()
	for c.exact && !c.listens() && !c.t.Failed() {
		c.pass() // it joins again before anything else happens
	}
}

// listens reports whether the agent is told of commits.
func (c *chaos) listens() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.s.nft.notices.exact()
}

// all saves and restores everything.
func (c *chaos) all(counters bool) {
	c.t.Helper()
	if counters && !c.exact {
		// An agent that does not listen knows a table as restored by at least half of
		// what it had counted. It may be young here, and what passes while a busy machine
		// saves and restores it be more than that.
		c.traffic.rules.Lock()
		defer c.traffic.rules.Unlock()
	}
	saved := kerneltest.Exec(c.t, "", c.f.iptables+"-"+c.backend+"-save", "-c")
	args := []string{"-w", "10"}
	if counters {
		args = append(args, "-c")
	}
	kerneltest.Exec(c.t, saved, c.f.iptables+"-"+c.backend+"-restore", args...)
}

// replace replaces a rule of web by an equal one.
func (c *chaos) replace() {
	c.t.Helper()
	ext, svc := kubeproxy.ExternalChain(webPort), kubeproxy.ServiceChain(webPort)
	switch c.rng.IntN(3) {
	case 0:
		c.ipt("-t", "nat", "-R", ext, "2", "-j", svc)
	case 1:
		c.ipt("-t", "filter", "-R", "KUBE-SERVICES", "1", "-m", "comment", "--comment", ghostPort.String()+" has no endpoints",
			"-m", "udp", "-p", "udp", "-d", c.f.ghost.String(), "--dport", fmt.Sprint(vipPort), "-j", "REJECT")
	case 2:
		// The last rule of the Service, as it stands.
		rules := strings.Split(strings.TrimSpace(kerneltest.Exec(c.t, "", c.f.iptables+"-"+c.backend, "-w", "10", "-t", "nat", "-S", svc)), "\n")
		n := len(rules) - 1 // the first line names the chain
		comment := kubeproxyComment(rules[n])
		target := rules[n][strings.LastIndex(rules[n], " ")+1:]
		c.ipt("-t", "nat", "-R", svc, fmt.Sprint(n), "-m", "comment", "--comment", comment, "-j", target)
	}
}

func kubeproxyComment(rule string) string {
	_, after, _ := strings.Cut(rule, `--comment "`)
	comment, _, _ := strings.Cut(after, `"`)
	return comment
}

// empty flushes web's chains, or the tables' own.
func (c *chaos) empty() {
	switch ext, svc := kubeproxy.ExternalChain(webPort), kubeproxy.ServiceChain(webPort); c.rng.IntN(4) {
	case 0:
		c.ipt("-t", "nat", "-F", svc)
	case 1:
		c.ipt("-t", "nat", "-F", ext)
		c.ipt("-t", "filter", "-F", "KUBE-SERVICES")
	case 2:
		c.ipt("-t", "nat", "-F", svc)
		c.ipt("-t", "nat", "-F", ext)
	case 3: // whole chains go, and come again
		for _, name := range []string{"KUBE-SERVICES", "KUBE-NODEPORTS", ext, svc} {
			c.ipt("-t", "nat", "-F", name)
		}
		c.ipt("-t", "nat", "-X", ext)
		c.ipt("-t", "nat", "-X", svc)
	}
}

// nothing removes all rules there are.
func (c *chaos) nothing() {
	if c.backend == "nft" {
		kerneltest.Exec(c.t, "", "nft", "flush", "ruleset")
	} else {
		for _, table := range []string{"nat", "filter"} {
			c.ipt("-t", table, "-F")
			c.ipt("-t", table, "-X")
		}
	}
	c.f.restore(c.t, c.backend, jumps())
}

// operations are what may happen.
func operations() []operation {
	return []operation{
		{name: "sync", whole: true, do: func(c *chaos) { c.synced() }},
		{name: "partial sync of web", whole: true, do: func(c *chaos) { c.f.restore(c.t, c.backend, c.shuffled().chains()) }},
		{name: "partial sync of others", whole: true, do: func(c *chaos) {
			extra := fmt.Sprintf("-A KUBE-SERVICES -m comment --comment \"shop/other%d cluster IP\" -m tcp -p tcp -d %s --dport 81 -j RETURN\n", c.rng.IntN(100), c.f.vip)
			c.f.restore(c.t, c.backend, c.f.chaosRules(extra))
		}},
		{name: "-Z", hidden: true, table: true, do: func(c *chaos) { c.ipt("-t", []string{"nat", "filter"}[c.rng.IntN(2)], "-Z") }},
		{name: "-Z of a chain", hidden: true, do: func(c *chaos) { c.ipt("-t", "nat", "-Z", kubeproxy.ServiceChain(webPort)) }},
		{name: "-R", hidden: true, do: func(c *chaos) { c.replace() }},
		{name: "-F and -X", do: func(c *chaos) { c.away(c.empty) }},
		// In x_tables, which has no handles, a table that is restored from what
		// was saved before the last reading looks like one made anew.
		{name: "restored with counters", hidden: true, table: true, do: func(c *chaos) { c.all(c.backend == "nft") }},
		{name: "restored without counters", hidden: true, table: true, do: func(c *chaos) { c.all(false) }},
		{name: "flush ruleset", do: func(c *chaos) { c.away(c.nothing) }},
		{name: "another's table", whole: true, do: func(c *chaos) {
			if c.backend == "nft" {
				kerneltest.Exec(c.t, "add table inet other { chain c { counter; }; }; delete table inet other", "nft", "-f", "-")
			}
		}},
	}
}
