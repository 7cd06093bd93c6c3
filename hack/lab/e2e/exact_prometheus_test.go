// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/svcscope/svcscope/hack/lab/labtest"
)

// capped is a node with more Services than the agent gives series of their
// own, and two Prometheus: a stock one and one that stores a counter's zero at
// its created timestamp.
type capped struct {
	t              *testing.T
	lab            *labtest.Lab
	services       map[string]labtest.Service
	stock, created *prometheus
	// opened is all connections; sinceStart those since the agent's start,
	// by Service that is still there.
	opened     int
	sinceStart map[string]int
}

// TestExactPrometheus: over deletion, the series cap and an agent's restart
// the sum of all series in Prometheus grows by what was opened.
func TestExactPrometheus(t *testing.T) {
	if !long() {
		t.Skip("for the long run; TestConnections asks Prometheus in the gate")
	}
	c := &capped{t: t, lab: labtest.Start(t, labtest.Options{}), services: map[string]labtest.Service{}}
	c.expose("a", "b")
	start := func() *agent {
		c.sinceStart = map[string]int{}
		return startAgent(t, c.lab, "--metrics.max-services=3", "--kubeconfig="+c.lab.Info.Kubeconfig)
	}
	a := start()
	c.settled(a, "the first reading is the baseline")
	c.stock = startPrometheus(t, c.lab, scraping{})
	c.created = startPrometheus(t, c.lab, scraping{port: 9091, args: []string{"--enable-feature=created-timestamp-zero-ingestion"}})

	c.open("a", "b")
	c.settled(a, "as many Services as have series")
	c.expose("c", "d")
	c.open("a", "b", "c", "d")
	c.settled(a, "two above the cap")
	exposed := c.inStock()
	if exposed != c.opened {
		t.Errorf("stock Prometheus: raw samples grew by %d, %d were opened, all to Services exposed from 0 or to _other", exposed, c.opened)
	}
	c.lab.Unexpose("b")
	delete(c.sinceStart, "b") // its series are gone with it
	c.open("c", "d")
	c.settled(a, "one passes the cap where another was deleted")
	c.open("c", "d", "a")
	c.settled(a, "and stays above it")
	if err := a.Stop(); err != nil {
		t.Errorf("the agent after SIGTERM: %v\n%s", err, a.Output())
	}
	a = start()
	c.settled(a, "a new agent counts from 0")
	c.open("d", "a")
	c.settled(a, "others are the first above the cap")
	c.open("a", "c", "d")
	c.settled(a, "counts go on")
	stock := c.inStock()
	if stock != c.opened {
		t.Errorf("stock Prometheus: raw samples grew by %d, %d were opened", stock, c.opened)
	}
	c.checkIncrease(c.stock)
	result(t, "%d opened over a deleted Service, three that passed the cap, and the agent's restart: raw samples grew by as much in a stock Prometheus and in one with created-timestamp-zero-ingestion", c.opened)
}

func (c *capped) expose(names ...string) {
	c.t.Helper()
	for _, name := range names {
		c.services[name] = c.lab.Expose(name, "--port=80", "--pods=pod1,pod2")
	}
}

func (c *capped) open(names ...string) {
	c.t.Helper()
	for _, name := range names {
		for _, to := range []string{c.services[name].VIP4(), c.services[name].VIP6()} {
			n := 50 + rand.IntN(50)
			if r := c.lab.Load("client", to, n); r.Succeeded != n {
				c.t.Fatalf("%d of %d connections to %s succeeded: %v", r.Succeeded, n, name, r.Errors)
			}
			c.opened += n
			c.sinceStart[name] += n
		}
	}
}

// settled waits until agent and Prometheus have all that was opened.
func (c *capped) settled(a *agent, what string) {
	c.t.Helper()
	want := 0
	for _, n := range c.sinceStart {
		want += n
	}
	eventually(c.t, what, func() error {
		if got, _ := a.metrics().sum("svcscope_service_connections_total", nil); int(got) != want {
			return fmt.Errorf("the agent counts %v, want %d", got, want)
		}
		return nil
	})
	if c.created == nil {
		return
	}
	eventually(c.t, what+", in Prometheus with created timestamps", func() error {
		if got, err := c.grown(c.created); err != nil || got != c.opened {
			return fmt.Errorf("raw samples grew by %d, want %d: %w", got, c.opened, err)
		}
		return nil
	})
	c.checkIncrease(c.created)
}

// inStock waits until the stock Prometheus has scraped what the other has,
// and returns by how much its raw samples grew.
func (c *capped) inStock() int {
	c.t.Helper()
	c.stock.scrapedAfter(time.Now())
	n, err := c.grown(c.stock)
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}

// scrapedAfter waits for a scrape that began after a time.
func (p *prometheus) scrapedAfter(at time.Time) {
	p.t.Helper()
	eventually(p.t, "Prometheus scrapes again", func() error {
		v, err := p.query(`timestamp(up{job="svcscope"})`)
		if err == nil && (len(v) != 1 || v[0].value() < float64(at.UnixMilli())/1000) {
			err = fmt.Errorf("last scraped at %v, want one after %v", v, at)
		}
		return err
	})
}

func (c *capped) selector(p *prometheus) string {
	window := time.Since(p.started).Truncate(time.Second) + time.Second
	return fmt.Sprintf("svcscope_service_connections_total[%ds]", int(window.Seconds()))
}

// grown is by how much all series together grew.
func (c *capped) grown(p *prometheus) (int, error) {
	raw, err := p.query(c.selector(p))
	if err != nil {
		return 0, err
	}
	var total float64
	for _, one := range raw {
		total += one.grown()
	}
	return int(total), nil
}

// checkIncrease: increase() is no less than what was opened, and no more than
// its extrapolation to the ends of the window adds.
func (c *capped) checkIncrease(p *prometheus) {
	c.t.Helper()
	now := time.Now()
	selector := fmt.Sprintf("%s @ %d.%03d", c.selector(p), now.Unix(), now.Nanosecond()/1e6)
	raw, err := p.query(selector)
	if err != nil {
		c.t.Fatal(err)
	}
	most := 0.0
	for _, one := range raw {
		if n := len(one.Values); n > 1 {
			most += one.grown() * (1 + 2.2/float64(n-1))
		}
	}
	v, err := p.query("sum(increase(" + selector + "))")
	if err != nil || len(v) != 1 {
		c.t.Fatalf("increase(): %v, %v", v, err)
	}
	if got := v[0].value(); got < float64(c.opened)-0.001 || got > most+0.001 {
		c.t.Errorf("increase() says %v, want %d to %v", got, c.opened, most)
	}
}
