// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"regexp"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// watching is a sampler that does not listen, and its API, which announces.
func watching(t *testing.T, f family) (*sampler, *fakeWatcher) {
	t.Helper()
	api := newFakeWatcher()
	api.catalog, api.state = f.catalog(), apiState{Current: true}
	cfg := testConfig()
	cfg.Kube, cfg.MaxRules = KubeAuto, 0
	s := newSampler(cfg, thisHost(), newKube(cfg, func() (watcher, error) { return api, nil }))
	if err := s.kube.check(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.close() })
	s.pass(t.Context())
	s.announced(time.Now()) // the first answer is "all"
	return s, api
}

// TestAnnouncedChanges has the rules of a Service that the API announced to
// change read until they are rewritten, and all else left alone.
func TestAnnouncedChanges(t *testing.T) {
	for _, f := range []family{ipv4(), ipv6()} {
		t.Run(f.name, func(t *testing.T) {
			kerneltest.Run(t, func(t *testing.T) {
				f.load(t, "nft")
				f.serve(t)
				s, api := watching(t, f)

				api.names = []service.Name{webPort.Name}
				s.announced(time.Now())
				s.announced(time.Now()) // once more, before the first is written
				cluster := 0
				round := func() time.Duration {
					wait(t.Context(), time.Until(s.sources[0].rest))
					return s.round(t.Context())
				}
				for range 2 {
					if round() == 0 {
						t.Fatal("nothing is watched")
					}
					connect(t, f.cluster(), 7)
					round() // the last look
					f.restore(t, "nft", f.chains())
					f.restore(t, "nft", f.rules(""))
					connect(t, f.cluster(), 3)
					round()
					cluster += 10
				}
				if d := round(); d != 0 {
					t.Errorf("watched still: %+v", s.sources[0].watched)
				}
				s.pass(t.Context())
				check(t, page(t, s), f, cluster, 0)
			})
		})
	}
}

// TestLooksAreNotBlind has rules rewritten right after a look at which nothing
// had moved: what may be lost is of the time since then, not of that since the
// last sampling.
func TestLooksAreNotBlind(t *testing.T) {
	const since = time.Second
	f := ipv4()
	kerneltest.Run(t, func(t *testing.T) {
		f.load(t, "nft")
		s, api := watching(t, f)
		wait(t.Context(), since)
		api.names = []service.Name{webPort.Name}
		s.announced(time.Now())
		begin := time.Now()
		s.round(t.Context())
		f.restore(t, "nft", f.chains())
		f.restore(t, "nft", f.rules(""))
		wait(t.Context(), time.Until(s.nftables.rest))
		s.round(t.Context())
		took := time.Since(begin)
		if blind := *s.blindTime(s.nft.known[netfilter.IPv4], "nat"); blind <= 0 || blind > took {
			t.Errorf("blind for %v, want at most the %v since the look", blind, took)
		}
	})
}

// TestLooksAtOtherTables has all tables made anew while a Service is watched:
// what their rules count is counted once.
func TestLooksAtOtherTables(t *testing.T) {
	f := ipv4()
	kerneltest.Run(t, func(t *testing.T) {
		f.load(t, "nft")
		f.serve(t)
		connect(t, f.cluster(), 40)
		s, api := watching(t, f)
		api.names = []service.Name{webPort.Name}
		s.announced(time.Now())
		connect(t, f.cluster(), 7)
		s.round(t.Context())
		restoreAll(t, "nft", false)
		connect(t, f.cluster(), 3)
		wait(t.Context(), time.Until(s.nftables.rest))
		s.round(t.Context())
		s.pass(t.Context())
		s.pass(t.Context())
		check(t, page(t, s), f, 10, 0)
	})
}

// TestLooksAtNewEndpoints has a Service that is watched get an endpoint whose
// rules have no comment: what comes to it before the next sampling is its own.
func TestLooksAtNewEndpoints(t *testing.T) {
	f := ipv4()
	comment := regexp.MustCompile(`-m comment --comment "[^"]* -> [^"]*" `)
	kerneltest.Run(t, func(t *testing.T) {
		f.load(t, "nft")
		f.serve(t)
		before, second := f, kubeproxy.EndpointChain(webPort, f.endpoints[1])
		before.endpoints = f.endpoints[:1]
		f.restore(t, "nft", before.chains())
		f.restore(t, "nft", fmt.Sprintf("*nat\n-F %s\n-X %s\nCOMMIT\n", second, second))
		s, api := watching(t, f)
		api.names = []service.Name{webPort.Name}
		s.announced(time.Now())
		s.round(t.Context()) // it reads everything: a full sync may come
		f.restore(t, "nft", comment.ReplaceAllString(f.chains(), ""))
		f.restore(t, "nft", f.rules(""))
		connect(t, f.cluster(), 20)
		wait(t.Context(), time.Until(s.nftables.rest))
		s.nft.whole.last = time.Now() // not this time
		s.round(t.Context())
		connect(t, f.cluster(), 20)
		s.pass(t.Context())
		s.pass(t.Context())
		check(t, page(t, s), f, 40, 0)
	})
}

// TestFullSync has the rules of all Services rewritten when a change of one was
// announced, as kube-proxy does once an hour: the others' connections were read
// before.
func TestFullSync(t *testing.T) {
	f := ipv4()
	kerneltest.Run(t, func(t *testing.T) {
		f.load(t, "nft")
		f.serve(t)
		s, api := watching(t, f)
		api.names = []service.Name{ghostPort.Name}
		s.announced(time.Now())
		connect(t, f.cluster(), 20)
		s.round(t.Context())
		f.restore(t, "nft", f.chains())
		f.restore(t, "nft", f.rules(""))
		connect(t, f.cluster(), 3)
		s.pass(t.Context())
		s.pass(t.Context())
		check(t, page(t, s), f, 23, 0)
	})
}

// TestFullSyncsSeen tells a full sync from changes of some Services.
func TestFullSyncsSeen(t *testing.T) {
	const n = 100
	v := kubeproxy.NewView(nil)
	var chains []*ruleset.Chain
	for i := range n {
		name := kubeproxy.ServiceChain(service.PortName{Name: service.Name{Namespace: "shop", Name: fmt.Sprint(i)}, Port: "http", Protocol: service.TCP})
		_, hash := kubeproxy.ParseChain(name)
		v.Ports[hash] = &kubeproxy.PortChains{Hash: hash}
		chains = append(chains, &ruleset.Chain{Name: name})
	}
	for _, tt := range []struct {
		name  string
		table string
		n     int
		want  bool
	}{{"some", "nat", n / 2, false}, {"all", "nat", n, true}, {"nearly all", "nat", n - 5, true}, {"another table", "filter", n, false}} {
		t.Run(tt.name, func(t *testing.T) {
			var s fullSyncs
			s.see(v, []ruleset.Delta{{Table: tt.table, Changed: chains[:tt.n]}})
			if seen := !s.due(time.Now()); seen != tt.want {
				t.Errorf("seen: %v, want %v", seen, tt.want)
			}
			if !s.due(time.Now().Add(fullEvery)) {
				t.Error("the next one is not expected")
			}
		})
	}
}

func TestWatchEndsInTime(t *testing.T) {
	w := newWatched()
	now := time.Now()
	p := watchedPort{2, "ABC"}
	announce(w.ports, p, now.Add(watchFor))
	w.expire(now.Add(watchFor))
	if !w.any() {
		t.Error("it ends too early")
	}
	w.expire(now.Add(watchFor + 1))
	if w.any() {
		t.Error("it does not end")
	}
}

// TestLooksTakeATenth of a processor, whether one Service is looked at or, all of a
// sudden, hundreds.
func TestLooksTakeATenth(t *testing.T) {
	const each = 100 * time.Microsecond
	synctest.Test(t, func(t *testing.T) {
		var spent time.Duration
		b := &fakeBackend{answers: []answer{{set: emptyRules()}}, looking: func(w *watched) {
			d := each * time.Duration(len(w.ports)+len(w.refusals))
			spent += d
			time.Sleep(d)
		}}
		s := fakeSampler(b, nil, nil)
		src := s.sources[1]
		src.Success = true
		for _, ports := range []int{1, 400, 1, 400} {
			begin, until := time.Now(), time.Now().Add(watchFor)
			for n := range ports {
				announce(src.watched.ports, watchedPort{netfilter.IPv4, strconv.Itoa(n)}, until)
			}
			spent = 0
			for time.Now().Before(until) {
				time.Sleep(s.round(t.Context()))
			}
			if share := float64(spent) / float64(time.Since(begin)); share > 0.11 || share < 0.03 {
				t.Errorf("%d Services: looks took %.3f of the time, want a tenth", ports, share)
			}
			time.Sleep(watchFor)
			s.round(t.Context())
		}
	})
}
