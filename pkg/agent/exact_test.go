// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
)

// listening returns a sampler that has joined the notices, and a closer.
func listening(t *testing.T) *sampler {
	t.Helper()
	s := newTestSampler(testConfig())
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	s.gate.stood = time.Now().Add(-stoodFor)
	for range 3 { // baseline, join, base
		s.pass(t.Context())
	}
	if !s.nft.notices.exact() {
		t.Fatal("the sampler does not listen")
	}
	return s
}

// TestNothingIsLostWhenItLeaves has rules rewritten between the last reading and the
// end of the listening: what they counted has come, and is told.
func TestNothingIsLostWhenItLeaves(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		f := ipv4()
		f.load(t, "nft")
		f.serve(t)
		s := listening(t)
		connect(t, f.cluster(), 20)
		connect(t, f.external(), 10)
		f.restore(t, "nft", f.chains())
		for l, deadline := s.nft.notices.listener, time.Now().Add(10*time.Second); len(l.rest()) == 0; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("no notice comes")
			}
		}
		s.leave(s.cfg.MaxRules+1, false)
		connect(t, f.cluster(), 3)
		s.pass(t.Context())
		check(t, page(t, s), f, 23, 10)
	})
}

// TestNothingIsLostInARewrite opens connections and has the Service's rules
// rewritten, all between two readings: final values come with the notices.
func TestNothingIsLostInARewrite(t *testing.T) {
	for _, f := range []family{ipv4(), ipv6()} {
		t.Run(f.name, func(t *testing.T) {
			kerneltest.Run(t, func(t *testing.T) {
				f.load(t, "nft")
				f.serve(t)
				s := listening(t)
				cluster, external := 0, 0
				rewrites := []struct {
					name string
					do   func()
				}{
					{"sync", func() { f.restore(t, "nft", f.chains()) }},
					{"two syncs", func() { f.restore(t, "nft", f.chains()); connect(t, f.cluster(), 2); f.restore(t, "nft", f.chains()) }},
					{"zeroed", func() { kerneltest.Exec(t, "", f.iptables+"-nft", "-t", "nat", "-Z") }},
					{"whole tables with counters", func() {
						if f.name == "IPv4" {
							restoreAll(t, "nft", true)
						}
					}},
					{"flushed and written again", func() {
						kerneltest.Exec(t, "", "nft", "flush", "ruleset")
						f.restore(t, "nft", jumps())
						f.restore(t, "nft", f.chains())
						f.restore(t, "nft", f.rules(""))
					}},
				}
				for i, r := range rewrites {
					connect(t, f.cluster(), 20+i)
					connect(t, f.external(), 10+i)
					r.do()
					cluster, external = cluster+20+i, external+10+i
					if r.name == "two syncs" {
						cluster += 2
					}
					connect(t, f.cluster(), 3)
					cluster += 3
					s.pass(t.Context())
					check(t, page(t, s), f, cluster, external)
					if !s.nft.notices.exact() || t.Failed() {
						t.Fatalf("after %s: listening %v", r.name, s.nft.notices.exact())
					}
				}
				m := page(t, s)
				if got := m.sum("svcscope_counting_method", "what=connections", "method=notices"); got != 1 {
					t.Errorf("svcscope_counting_method: %v", m["svcscope_counting_method"])
				}
				if got := m.sum("svcscope_counter_blind_seconds_total"); got != 0 {
					t.Errorf("%v blind seconds, want 0", got)
				}
				if got := m.sum("svcscope_ruleset_changes_total", "backend=nft", "writer=kube-proxy"); got < 6 {
					t.Errorf("%v commits of kube-proxy, want 6 and more", got)
				}
			})
		})
	}
}
