// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/drift"
	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/service"
)

// drifting is a sampler whose API wants what the scene's rules are, and what it logs.
func drifting(t *testing.T, f *family) (*sampler, *fakeWatcher, *logs) {
	t.Helper()
	l := &logs{}
	s, api := watching(t, *f)
	api.state = apiState{Current: true, ServicesCurrent: true}
	s.drift = newDriftWatch(drift.DefaultGrace, slog.New(slog.NewTextHandler(l, nil)))
	return s, api, l
}

// judged reads the kernel and judges it, at a time of its own.
func judged(t *testing.T, s *sampler, at time.Time) *correlate.Drift {
	t.Helper()
	for _, src := range s.sources {
		s.read(t.Context(), src)
	}
	s.apply(t.Context())
	s.judge(at)
	return s.drift.state
}

// kinds are those of Services' drift.
func kinds(d *correlate.Drift) (of []drift.Kind) {
	for i := range d.Drifts {
		if !d.Drifts[i].OfNode() {
			of = append(of, d.Drifts[i].Kind)
		}
	}
	return of
}

// pending are the kinds of Services that may yet go: the scene's rules lack some of the node's own.
func pending(d *correlate.Drift) (of []drift.Kind) {
	for i := range d.Pending {
		if !d.Pending[i].OfNode() {
			of = append(of, d.Pending[i].Kind)
		}
	}
	return of
}

// TestDriftOfAnEditedRule has an endpoint's rule deleted: the second reading tells, in
// both backends and families, and the one after it was put back tells its end.
func TestDriftOfAnEditedRule(t *testing.T) {
	for _, backend := range []string{"nft", "legacy"} {
		for _, f := range []family{ipv4(), ipv6()} {
			t.Run(backend+" "+f.name, func(t *testing.T) {
				kerneltest.Run(t, func(t *testing.T) {
					f.load(t, backend)
					s, _, l := drifting(t, &f)
					at := time.Now()
					next := func() *correlate.Drift { at = at.Add(15 * time.Second); return judged(t, s, at) }
					for range 2 {
						if d := next(); len(kinds(d))+len(pending(d)) > 0 || d.Unknown != "" {
							t.Fatalf("%v, pending %v, unknown %q, want none", d.Drifts, d.Pending, d.Unknown)
						}
					}
					kerneltest.Exec(t, "", f.iptables+"-"+backend, "-w", "5", "-t", "nat", "-D", kubeproxy.ServiceChain(webPort), "1")
					if d := next(); len(kinds(d)) > 0 || len(pending(d)) == 0 {
						t.Errorf("at the first reading %v, pending %v", d.Drifts, d.Pending)
					}
					d := next()
					if got := kinds(d); !slices.Equal(got, []drift.Kind{drift.MissingEndpoint}) {
						t.Errorf("at the second reading %v, want missing_endpoint", d.Drifts)
					}
					if l.count("rules are not what the API wants") == 0 || l.count("service=shop/web:http") == 0 {
						t.Errorf("the log does not tell:\n%s", l.b.String())
					}
					f.restore(t, backend, f.chains())
					f.restore(t, backend, f.rules(""))
					if d := next(); len(kinds(d)) > 0 {
						t.Errorf("after the repair %v", d.Drifts)
					}
					if l.count("kind=missing_endpoint") != 2 || l.count("rules are what the API wants again") == 0 {
						t.Errorf("the log does not tell the end:\n%s", l.b.String())
					}
				})
			})
		}
	}
}

// TestUnreadRulesAreNotJudged: what is old says nothing.
func TestUnreadRulesAreNotJudged(t *testing.T) {
	b := &fakeBackend{answers: []answer{{set: emptyRules()}}}
	s := fakeSampler(b, nil, nil)
	s.pass(t.Context())
	if d := s.latest.Load().Drift; d == nil || d.Unknown != drift.ModeUnknown {
		t.Errorf("without kube-proxy %+v, want its mode unknown", d)
	}
	b.answers = []answer{{err: errNoHost}}
	s.pass(t.Context())
	if d := s.latest.Load().Drift; d == nil || d.Unknown != correlate.RulesUnread {
		t.Errorf("without rules %+v, want them unread", d)
	}
}

// TestProgrammingDelay has the API take an endpoint away and give it back: each change is
// observed once, when the rules have come.
func TestProgrammingDelay(t *testing.T) {
	for _, backend := range []string{"nft", "legacy"} {
		for _, f := range []family{ipv4(), ipv6()} {
			t.Run(backend+" "+f.name, func(t *testing.T) {
				kerneltest.Run(t, func(t *testing.T) {
					f.load(t, backend)
					s, api, _ := drifting(t, &f)
					api.names = []service.Name{webPort.Name}
					all, fewer := f, f
					fewer.endpoints = f.endpoints[:1]
					for n, wanted := range []family{fewer, all} {
						api.catalog = wanted.catalog()
						s.announced(time.Now())
						if s.programmed(t.Context()) == 0 {
							t.Fatal("nothing waits")
						}
						s.pass(t.Context())
						if s.programmed(t.Context()) == 0 || delays(t, s, f.name) != uint64(n) {
							t.Errorf("%d delays before the rules have come, want %d", delays(t, s, f.name), n)
						}
						f.restore(t, backend, wanted.chains())
						f.restore(t, backend, wanted.rules(""))
						s.pass(t.Context())
						if s.programmed(t.Context()) != 0 || delays(t, s, f.name) != uint64(n+1) {
							t.Errorf("%d delays, want %d; still waiting: %v", delays(t, s, f.name), n+1, s.programming.waiting)
						}
					}
				})
			})
		}
	}
}

// TestProgrammingOfWhatWasTakenBack: nobody waits for it any more.
func TestProgrammingOfWhatWasTakenBack(t *testing.T) {
	f := ipv4()
	fewer := f
	fewer.endpoints = f.endpoints[:1]
	p := fakeSampler(&fakeBackend{answers: []answer{{set: emptyRules()}}}, nil, nil).programming
	now := time.Now()
	for i, c := range []*service.Catalog{f.catalog(), fewer.catalog()} {
		p.announce([]service.Name{webPort.Name}, 0, c, now)
		if len(p.waiting) != i {
			t.Fatalf("%d wait after change %d", len(p.waiting), i)
		}
	}
	if d := p.next(now.Add(time.Minute)); d != time.Minute/programShare {
		t.Errorf("asked again after %v, want a fiftieth of its age", d)
	}
	p.announce([]service.Name{webPort.Name}, 0, f.catalog(), now)
	if len(p.waiting) != 0 || p.next(now) != 0 {
		t.Errorf("%d wait for what was taken back", len(p.waiting))
	}
	p.announce([]service.Name{webPort.Name}, 0, fewer.catalog(), now)
	if p.next(now.Add(programFor+time.Second)) != 0 || len(p.waiting) != 0 {
		t.Error("it is waited for without end")
	}
}

// delays is how many were observed in a family.
func delays(t *testing.T, s *sampler, ipFamily string) uint64 {
	t.Helper()
	f := page(t, s)["svcscope_programming_delay_seconds"]
	for _, m := range f.GetMetric() {
		if m.GetLabel()[0].GetValue() == ipFamily {
			return m.GetHistogram().GetSampleCount()
		}
	}
	return 0
}

// TestDriftWithoutTheNode: where the API does not tell the node's zone, hints for zones say
// nothing of what the rules should be.
func TestDriftWithoutTheNode(t *testing.T) {
	f := ipv4()
	kerneltest.Run(t, func(t *testing.T) {
		all := f
		f.endpoints = f.endpoints[:1] // of the zone that kube-proxy knows
		all.load(t, "nft")
		f.restore(t, "nft", f.chains())
		s, api, _ := drifting(t, &all)
		for i, zone := range []string{"a", "b"} {
			api.catalog.Endpoints[webPort][i].ForZones = []string{zone}
		}
		for _, refused := range []bool{true, false} {
			api.state.NodeRefused = refused
			pending := slices.DeleteFunc(judged(t, s, time.Now()).Pending, func(d drift.Difference) bool { return d.OfNode() })
			if len(pending) > 0 == refused {
				t.Errorf("refused %v: %v", refused, pending)
			}
		}
	})
}
