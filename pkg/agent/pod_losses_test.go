// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/netfilter/nflog"
	"github.com/svcscope/svcscope/pkg/policy"
	"github.com/svcscope/svcscope/pkg/service"
)

// podSampler has an API with the pods of which f knows one, shop/web-0.
func podSampler(t *testing.T, f family) (*sampler, *fakeWatcher) {
	t.Helper()
	w := newFakeWatcher()
	w.catalog, w.state = f.catalog(), apiState{Synced: true, Current: true}
	w.pods = podOf("web-0", netip.MustParseAddr("10.99.0.5"))
	s := fakeSampler(&fakeBackend{answers: []answer{{set: webRules(t, "1", "0")}}}, w, nil)
	if err := s.kube.check(); err != nil {
		t.Fatal(err)
	}
	return s, w
}

// lostEvent is a packet to a pod that a policy has refused.
func lostEvent(pod string) correlate.DropEvent {
	return correlate.DropEvent{
		DropRule: &correlate.DropRule{Source: correlate.SourceNFLOG, Hook: "forward", Refused: true, Refuser: policy.Refuser{
			Owner: policy.Calico, Reason: policy.DefaultDeny, Direction: policy.Ingress,
		}},
		Headers: nflog.Headers{
			Protocol: 6, HasPorts: true,
			Src: netip.MustParseAddrPort("203.0.113.77:40000"), Dst: netip.MustParseAddrPort("10.99.0.5:80"),
		},
		ToPod: policy.Object{Namespace: "shop", Name: pod},
	}
}

// TestLossesBecomeEvents of pods that are known, at most one in five minutes.
func TestLossesBecomeEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w := podSampler(t, ipv4())
		s.cfg.KubeEvents = true
		s.watchLosses()
		want := func(after time.Duration, want ...string) {
			t.Helper()
			time.Sleep(after)
			s.pass(t.Context())
			if d := cmp.Diff(want, w.lost); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		}
		const text = "uid-web-0 shop/web-0: Packets to this pod dropped by network policies (calico): "
		want(time.Second)
		s.groups.events.add([]correlate.DropEvent{lostEvent("web-0"), lostEvent("web-0"), lostEvent("gone")})
		want(time.Second, text+"2")
		s.groups.events.add([]correlate.DropEvent{lostEvent("web-0")})
		want(time.Minute, text+"2")
		want(5*time.Minute, text+"2", text+"3")
		want(time.Hour, text+"2", text+"3")
		if n := len(s.groups.events.takeLosses()); n != 0 {
			t.Errorf("%d losses are counted twice", n)
		}
	})
}

// TestNoLossesAreKept where nobody wants to know.
func TestNoLossesAreKept(t *testing.T) {
	s, w := podSampler(t, ipv4())
	s.groups.events.add([]correlate.DropEvent{lostEvent("web-0")})
	s.pass(t.Context())
	if len(s.groups.events.losses) != 0 || len(w.lost) != 0 {
		t.Errorf("%v, %v", s.groups.events.losses, w.lost)
	}
}

// TestPodsReachTheReaders: a packet means something else when the pods or policies are
// others, and rules are told again.
func TestPodsReachTheReaders(t *testing.T) {
	s, w := podSampler(t, ipv4())
	s.pass(t.Context())
	before := s.dropInputs()
	if before.pods != w.pods || !s.names.SamePods(w.pods) {
		t.Error("the pods are not those of the API")
	}
	if flows := s.flowInputs(); flows.Pods != w.pods || flows.Policies != nil {
		t.Errorf("got %+v", flows)
	}
	for what, change := range map[string]func(){
		"pods":     func() { w.pods = podOf("web-1", netip.MustParseAddr("10.99.0.6")) },
		"policies": func() { w.policies = service.NewPolicies(nil) },
	} {
		change()
		now := s.dropInputs()
		if now.same(&before) {
			t.Errorf("other %s make no difference", what)
		}
		before = now
	}
	families := s.sources[1].families()
	for _, f := range families {
		f.refused.moved = false
	}
	s.namePods()
	if !s.names.SamePods(w.pods) || slices.ContainsFunc(families, func(f *familyRules) bool { return !f.refused.moved }) {
		t.Error("rules are not told again")
	}
	families[0].refused.moved = false
	s.namePods()
	if families[0].refused.moved {
		t.Error("rules are told again of the same pods")
	}
}

// TestKubeWaitsForPods: all that is asked for, but for what is refused.
func TestKubeWaitsForPods(t *testing.T) {
	w := newFakeWatcher()
	cfg := DefaultConfig()
	cfg.KubePods, cfg.KubePolicies = true, true
	k := newKube(cfg, nil)
	steps := []struct {
		what   string
		change func()
		want   bool
	}{
		{"nothing", func() {}, false},
		{"the catalog", func() { w.catalog = &service.Catalog{Synced: true} }, false},
		{"and pods", func() { w.pods = service.NewPods(nil) }, false},
		{"policies are refused", func() { w.state.Err = "list networkpolicies: forbidden" }, true},
		{"and policies", func() { w.state.Err, w.policies = "", service.NewPolicies(nil) }, true},
		{"no catalog", func() { w.catalog = &service.Catalog{} }, false},
	}
	for _, s := range steps {
		if s.change(); k.listed(w) != s.want {
			t.Errorf("%s: all is listed: %v, want %v", s.what, !s.want, s.want)
		}
	}
	if k := newKube(DefaultConfig(), nil); !k.listed(&fakeWatcher{catalog: &service.Catalog{Synced: true}}) {
		t.Error("it waits for what is not asked for")
	}
}

// TestAnonymizedDrops hides a client, in the report and in the stream, and not a pod.
func TestAnonymizedDrops(t *testing.T) {
	for _, anonymize := range []bool{false, true} {
		s, _ := podSampler(t, ipv4())
		s.cfg.AnonymizeDrops = anonymize
		s.pass(t.Context())
		s.groups.events.add([]correlate.DropEvent{lostEvent("web-0")})
		pages, err := newPages(s)
		if err != nil {
			t.Fatal(err)
		}
		got := ask(pages, "/api/v1/drops", "127.0.0.1:4711")
		var report correlate.DropsReport
		if err := json.Unmarshal(got.Body.Bytes(), &report); err != nil || got.Code != http.StatusOK || len(report.Events) != 1 {
			t.Fatalf("%d, %v: %s", got.Code, err, got.Body)
		}
		want := "203.0.113.77:40000"
		if anonymize {
			want = "203.0.113.x:40000"
		}
		if e := report.Events[0]; e.From != want || e.To != "10.99.0.5:80" || e.ToPod == nil || e.ToPod.Name != "web-0" {
			t.Errorf("anonymize %v: got %+v", anonymize, e)
		}
		if anonymize && strings.Contains(got.Body.String(), "113.77") {
			t.Errorf("the client's address is told:\n%s", got.Body)
		}
	}
}

// TestMasksAreMadeAnew when what they know has changed, and once a minute.
func TestMasksAreMadeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w := podSampler(t, ipv4())
		s.pass(t.Context())
		get := func() *correlate.Mask { return s.masks.get(s.dropInputs, time.Now()) }
		first := get()
		time.Sleep(renewEvery)
		if get() != first {
			t.Error("another mask of the same")
		}
		w.pods = podOf("web-1", netip.MustParseAddr("10.99.0.6"))
		if get() != first {
			t.Error("it looks more often than once a second")
		}
		time.Sleep(renewEvery)
		second := get()
		if second == first {
			t.Error("the same mask of other pods")
		}
		time.Sleep(renewAll)
		if get() == second {
			t.Error("a mask stays for more than a minute")
		}
	})
}
