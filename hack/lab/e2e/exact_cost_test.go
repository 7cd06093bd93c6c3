// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/svcscope/svcscope/hack/lab/labtest"
)

// writing is what it took kube-proxy to write rules of one kind.
type writing struct {
	// elapsed are its own times, syncs' by syncs.
	elapsed []time.Duration
	// cpu is what the iptables programs that it started took, a sync of IPv4 with what
	// of IPv6 came beside it, and system the part of it in the kernel; they tell more than elapsed where others use
	// the machine too.
	cpu, system []time.Duration
	// memory is by how many bytes kernel memory grew at most.
	memory []int64
}

// kinds of writing, in the order in which they are measured.
const (
	firstLoad = "first load"
	fullSync  = "full sync"
	change    = "change of two Services"
)

// Who is there while kube-proxy writes: nobody, a listener that only reads, an
// agent as it is by default.
const (
	nobody   = "nobody"
	listener = "a listener"
	anAgent  = "the agent"
)

// What the agent may cost kube-proxy, in CPU time of the programs that write
// and in kernel memory. A tick of the clock is 10 ms.
const (
	mostSlowed = 1.05
	ticksSlack = 50 * time.Millisecond
	mostMemory = 64 << 20
	// changesTimed is of how many syncs of changes the mean is taken.
	changesTimed = 20
)

// TestExactListenerCost is where the default of --exact.max-rules comes from:
// what a listener costs kube-proxy in time and the kernel in memory. The agent, which
// is there before the rules are, may not cost what a listener does; where the default
// lets it listen, it does from the first load on.
// SVCSCOPE_LISTENER_SERVICES chooses other numbers of Services.
func TestExactListenerCost(t *testing.T) {
	if !long() {
		t.Skip("only measures: for the long run")
	}
	needRoot(t)
	numbers := "100 250 500 1000 2000 5000"
	if s := os.Getenv("SVCSCOPE_LISTENER_SERVICES"); s != "" {
		numbers = s
	}
	for text := range strings.FieldsSeq(numbers) {
		t.Run(text, func(t *testing.T) {
			c := newListenerScene(t, text)
			rows := map[string]map[string]*writing{nobody: {}, listener: {}, anAgent: {}}
			for range listenerRounds {
				for _, who := range []string{nobody, listener, anAgent} {
					c.measure(rows[who], who)
				}
			}
			for _, kind := range []string{firstLoad, fullSync, change} {
				without := rows[nobody][kind].summary()
				for _, who := range []string{nobody, listener, anAgent} {
					with := rows[who][kind].summary()
					result(t, "%s with %s: %.0f ms, of which iptables %.0f ms of CPU time (%.3f times), %.0f ms of that in the kernel (%.3f times); kernel memory %+.1f MiB",
						kind, who, ms(with.elapsed), ms(with.cpu), times(with.cpu, without.cpu), ms(with.system), times(with.system, without.system), float64(with.memory)/(1<<20))
					if who != anAgent {
						continue
					}
					if most := time.Duration(mostSlowed*float64(without.system)) + slack(kind); with.system > most {
						t.Errorf("%s with the agent: %v of CPU time in the kernel, want at most %v", kind, with.system, most)
					}
					if with.memory-without.memory > mostMemory {
						t.Errorf("%s with the agent: %d bytes of kernel memory, %d without", kind, with.memory, without.memory)
					}
				}
			}
		})
	}
}

// slack is what ticks may hide.
func slack(kind string) time.Duration {
	if kind == change {
		return ticksSlack / changesTimed
	}
	return ticksSlack
}

// listenerRounds is how often each is measured.
const listenerRounds = 3

// cost is what a writing took. system is the part of cpu in the kernel, which alone
// others can make longer: of itself the program takes up to a third more or less from
// one round to the next, with 5,000 Services.
type cost struct {
	elapsed, cpu, system time.Duration
	memory               int64
}

func times(a, b time.Duration) float64 { return float64(a) / float64(max(1, b)) }

// summary takes the least of the rounds, as what else a machine does only adds
// to it, and of each round's many changes the median.
func (w *writing) summary() cost {
	slices.Sort(w.memory)
	c := cost{cpu: slices.Min(w.cpu), system: slices.Min(w.system), memory: w.memory[len(w.memory)/2]}
	if c.elapsed = slices.Min(w.elapsed); len(w.elapsed) >= changesTimed {
		c.elapsed = median(w.elapsed)
	}
	return c
}

// listenerScene is a node whose kube-proxy the test starts and ends.
type listenerScene struct {
	*proxyControl
	n string
}

func newListenerScene(t *testing.T, services string) *listenerScene {
	t.Helper()
	lab := labtest.Start(t, labtest.Options{Args: []string{"--userns=false", "--services=" + services}})
	c := &listenerScene{proxyControl: newProxyControl(t, lab), n: services}
	c.end()
	lab.Expose("changing", "--port=80", "--pods=pod1,pod2,pod3", "--wait=false")
	return c
}

// children is the CPU time of the programs that kube-proxy has started and
// that have ended, and the part of it in the kernel: cutime and cstime, in ticks of
// 10 ms.
func (c *listenerScene) children() (cpu, system time.Duration) {
	c.t.Helper()
	var fields [2]time.Duration
	for i, field := range c.stat()[14:16] {
		ticks, err := strconv.Atoi(field)
		if err != nil {
			c.t.Fatal(err)
		}
		fields[i] = time.Duration(ticks) * 10 * time.Millisecond
	}
	return fields[0] + fields[1], fields[1]
}

// measure times a first load, a full sync over rules that are there, and
// changes.
func (c *listenerScene) measure(row map[string]*writing, who string) {
	t := c.t
	t.Helper()
	c.lab.Exec("node1", "nft", "flush", "ruleset")
	var p *labtest.Process
	var agent *watcher
	switch who {
	case listener:
		p = c.lab.StartListener("node1")
	case anAgent:
		agent = startWatcher(t, c.lab, 0, who)
		p = agent.Process
	}
	if p != nil {
		defer func() {
			if err := p.Stop(); err != nil {
				t.Errorf("%s: %v: %s", who, err, p.Output())
			}
			if who == listener {
				t.Logf("listener: %s", p.Output())
			}
		}()
	}
	var proxy *labtest.Process
	for _, kind := range []string{firstLoad, fullSync} {
		w := entry(row, kind)
		memory := watchMemory(t)
		proxy = c.start()
		w.elapsed = append(w.elapsed, c.fullSync(proxy))
		w.memory = append(w.memory, memory())
		cpu, system := c.children()
		w.cpu, w.system = append(w.cpu, cpu), append(w.system, system)
		if kind == firstLoad {
			c.settles(agent)
			_ = proxy.Stop() // it ends by the signal
		}
	}
	c.changes(entry(row, change), proxy)
	_ = proxy.Stop() // it ends by the signal
}

// mostListened is the number of Services up to which an agent listens by default.
const mostListened = 100

// settles waits until an agent, if there is one, listens, where the rules are few.
func (c *listenerScene) settles(agent *watcher) {
	c.t.Helper()
	if n, _ := strconv.Atoi(c.n); agent == nil || n > mostListened {
		return
	}
	poll(c.t, patience, "the agent listens", func() error {
		if m := agent.read(); !exact(m, "IPv4") || !exact(m, "IPv6") {
			return errors.New("svcscope_ledger_exact is 0")
		}
		return nil
	})
}

// changes times syncs of changes to one Service with traffic's endpoints and
// one filler.
func (c *listenerScene) changes(w *writing, proxy *labtest.Process) {
	t := c.t
	t.Helper()
	churn := c.lab.StartChurn("changing", "--pods=pod1,pod2,pod3", "--fillers="+c.n)
	memory, skip := watchMemory(t), len(proxy.Syncs(t))
	cpuBefore, systemBefore := c.children()
	var elapsed []time.Duration
	poll(t, 10*patience, "syncs of changes", func() error {
		elapsed = nil
		for _, s := range proxy.Syncs(t)[skip:] {
			if s.Family == "IPv4" && !s.Full {
				elapsed = append(elapsed, s.Elapsed)
			}
		}
		if n := len(elapsed); n < changesTimed {
			return fmt.Errorf("%d of %d", n, changesTimed)
		}
		return nil
	})
	cpu, system := c.children()
	w.cpu = append(w.cpu, (cpu-cpuBefore)/time.Duration(len(elapsed)))
	w.system = append(w.system, (system-systemBefore)/time.Duration(len(elapsed)))
	w.elapsed = append(w.elapsed, elapsed...)
	w.memory = append(w.memory, memory())
	if err := churn.Stop(); err != nil {
		t.Errorf("churn: %v: %s", err, churn.Output())
	}
}

func entry(row map[string]*writing, kind string) *writing {
	if row[kind] == nil {
		row[kind] = &writing{}
	}
	return row[kind]
}

// watchMemory samples the kernel's unreclaimable slab memory, which holds
// notices until their commit ends, every millisecond until the function that it
// returns is called: that tells by how many bytes it grew at most. It is the
// whole machine's, which should have nothing else to do.
func watchMemory(t *testing.T) func() int64 {
	t.Helper()
	start, stop, done := slab(t), make(chan struct{}), make(chan int64)
	go func() {
		most := start
		for {
			select {
			case <-stop:
				done <- most - start
				return
			case <-time.After(time.Millisecond):
				most = max(most, slab(t))
			}
		}
	}()
	return func() int64 {
		close(stop)
		return <-done
	}
}

// slab reads SUnreclaim of /proc/meminfo, in bytes.
func slab(t *testing.T) int64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Error(err)
		return 0
	}
	_, rest, _ := strings.Cut(string(b), "SUnreclaim:")
	var kib int64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Errorf("/proc/meminfo: %v", err)
	}
	return kib << 10
}
