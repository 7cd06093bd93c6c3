// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/svcscope/svcscope/hack/lab/labtest"
)

// proxyControl ends and starts node1's kube-proxy, at first the lab's own.
type proxyControl struct {
	t   *testing.T
	lab *labtest.Lab
	// argv is how the lab started it.
	argv []string
}

func newProxyControl(t *testing.T, lab *labtest.Lab) *proxyControl {
	t.Helper()
	c := &proxyControl{t: t, lab: lab}
	cmdline := lab.Exec("node1", "cat", "/proc/"+c.stat()[0]+"/cmdline")
	c.argv = strings.Split(strings.TrimRight(cmdline, "\x00"), "\x00")
	return c
}

// stat is /proc/PID/stat of kube-proxy, without its name: PID first, state
// next.
func (c *proxyControl) stat() []string {
	c.t.Helper()
	out := c.find()
	pid, rest, ok := strings.Cut(out, " (kube-proxy) ")
	fields := strings.Fields(rest)
	if !ok || strings.Contains(out, "\n") || len(fields) < 16 {
		c.t.Fatalf("kube-proxy's process: found %q", out)
	}
	return append([]string{pid}, fields...)
}

// find is /proc/PID/stat of each kube-proxy that runs.
func (c *proxyControl) find() string {
	c.t.Helper()
	return strings.TrimSpace(c.lab.Exec("node1", "sh", "-c", `for p in /proc/[0-9]*; do
		read -r name <$p/comm && [ "$name" = kube-proxy ] && cat $p/stat; done 2>/dev/null; true`))
}

// end ends kube-proxy and returns when it is gone.
func (c *proxyControl) end() {
	c.t.Helper()
	c.lab.Exec("node1", "kill", c.stat()[0])
	eventually(c.t, "kube-proxy ends", func() error {
		if left := c.find(); left != "" {
			return fmt.Errorf("it runs: %s", left)
		}
		return nil
	})
}

// start starts kube-proxy as the lab did, with further flags.
func (c *proxyControl) start(flags ...string) *labtest.Process {
	c.t.Helper()
	p := c.lab.StartProcess("node1", append(slices.Clone(c.argv), flags...)...)
	c.t.Cleanup(func() {
		if out := p.Output(); c.t.Failed() {
			c.t.Logf("kube-proxy that the test started:\n%s", out[max(0, len(out)-3000):])
		}
	})
	return p
}

// fullSync waits for the first rewrite of both families and returns how long
// IPv4's, which has the Services, took.
func (c *proxyControl) fullSync(p *labtest.Process) time.Duration {
	c.t.Helper()
	took := map[string]time.Duration{}
	poll(c.t, 10*patience, "kube-proxy's first sync", func() error {
		for _, s := range p.Syncs(c.t) {
			if s.Full {
				took[s.Family] = s.Elapsed
			}
		}
		if len(took) < 2 {
			return fmt.Errorf("have %v", took)
		}
		return nil
	})
	return took["IPv4"]
}

// restart gives the node a new kube-proxy, with further flags, and returns when it has
// written everything.
func (c *proxyControl) restart(flags ...string) {
	c.t.Helper()
	c.end()
	c.fullSync(c.start(flags...))
}
