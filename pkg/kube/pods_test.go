// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/svcscope/svcscope/pkg/service"
)

func apiPod(namespace, name, node string, addrs ...string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID("uid-" + name), Annotations: map[string]string{"note": "kept nowhere"}},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "kept nowhere"}}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning},
	}
	for _, a := range addrs {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: a})
		p.Status.PodIP = addrs[0]
	}
	return p
}

func apiPolicy(namespace, name string) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID("uid-" + name)}}
}

func TestConvertPod(t *testing.T) {
	addr, none := netip.MustParseAddr, func(*corev1.Pod) {}
	now := metav1.NewTime(time.Unix(1e9, 0))
	for _, tt := range []struct {
		name   string
		change func(*corev1.Pod)
		want   *service.Pod
	}{
		{"both families", none, &service.Pod{IPs: []netip.Addr{addr("10.1.0.1"), addr("fd00::1")}}},
		{"of an old server", func(p *corev1.Pod) { p.Status.PodIPs = nil }, &service.Pod{IPs: []netip.Addr{addr("10.1.0.1")}}},
		{"without an address yet", func(p *corev1.Pod) { p.Status = corev1.PodStatus{Phase: corev1.PodPending} }, &service.Pod{}},
		{"with no address at all", func(p *corev1.Pod) { p.Status.PodIPs, p.Status.PodIP = []corev1.PodIP{{IP: "x"}}, "y" }, &service.Pod{}},
		{"in the node's network", func(p *corev1.Pod) { p.Spec.HostNetwork = true }, &service.Pod{HostNetwork: true, IPs: []netip.Addr{addr("10.1.0.1"), addr("fd00::1")}}},
		{"that was told to end", func(p *corev1.Pod) { p.DeletionTimestamp = &now }, &service.Pod{Leaving: true, IPs: []netip.Addr{addr("10.1.0.1"), addr("fd00::1")}}},
		{"that has ended", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }, nil},
		{"that has failed", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, nil},
	} {
		p := apiPod("shop", "web-0", "node-1", "10.1.0.1", "fd00::1")
		tt.change(p)
		got, ok := convertPod(p)
		if tt.want != nil {
			tt.want.Name, tt.want.UID = service.Name{Namespace: "shop", Name: "web-0"}, "uid-web-0"
		}
		if d := cmp.Diff(tt.want, got, compareNetip); d != "" || ok != (tt.want != nil) {
			t.Errorf("%s: kept %v (-want +got):\n%s", tt.name, ok, d)
		}
	}
}

// podsText is whose some addresses are.
func podsText(w *Watcher) string {
	if w.Pods() == nil {
		return "unknown"
	}
	var all []string
	for i := range 6 {
		a := netip.AddrFrom4([4]byte{10, 1, 0, byte(i)})
		if p := w.Pods().ByAddr(a); p != nil {
			all = append(all, fmt.Sprintf("%s=%s", a, p.Name))
		}
	}
	return strings.Join(all, " ")
}

func policiesText(w *Watcher) string {
	if w.Policies() == nil {
		return "unknown"
	}
	var all []string
	for namespace, name := range w.Policies().All() {
		all = append(all, namespace+"/"+name)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func withPods(c *Config) { c.Pods, c.Policies = true, true }

// TestPodsAndPolicies are followed, the pods of this node alone, by whatever the server
// offers.
func TestPodsAndPolicies(t *testing.T) {
	for name, change := range map[string]func(*fakeAPI){
		"streamed": func(*fakeAPI) {},
		"plain":    func(f *fakeAPI) { f.noStreaming = true },
		"JSON":     func(f *fakeAPI) { f.noStreaming, f.json = true, true },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeAPI(t)
			change(f)
			fill(f)
			done := apiPod("ops", "job", "node-1", "10.1.0.4")
			done.Status.Phase = corev1.PodSucceeded
			f.put(apiPod("shop", "web-0", "node-1", "10.1.0.1"), apiPod("shop", "web-1", "node-2", "10.1.0.2"), done,
				apiPolicy("shop", "strict"), apiPolicy("ops", "none"))
			w := start(t, f, withPods)
			want := func(what, pods, policies string) {
				t.Helper()
				until(t, w, what, func() bool {
					return says(w, webOnly)() && podsText(w) == pods && policiesText(w) == policies
				})
			}
			want("lists", "10.1.0.1=shop/web-0", "ops/none shop/strict")
			if asked := f.asked(); name == "streamed" {
				want := []string{"stream endpointslices", "stream networkpolicies", "stream nodes", "stream pods", "stream services"}
				if d := cmp.Diff(want, sorted(asked)); d != "" {
					t.Errorf("requests (-want +got):\n%s", d)
				}
			}
			first, catalog := w.Pods(), w.Catalog()
			f.put(apiPod("shop", "web-2", "node-1", "10.1.0.3"), apiPolicy("shop", "web"))
			want("added", "10.1.0.1=shop/web-0 10.1.0.3=shop/web-2", "ops/none shop/strict shop/web")
			if p := first.ByAddr(netip.MustParseAddr("10.1.0.3")); p != nil {
				t.Errorf("an older picture has changed: %+v", p)
			}
			if w.Catalog() != catalog {
				t.Error("a new catalog for a new pod")
			}
			f.put(apiPod("shop", "web-2", "node-1", "10.1.0.5"))
			f.remove(apiPod("shop", "web-0", ""))
			f.remove(apiPolicy("shop", "strict"))
			want("changed and deleted", "10.1.0.5=shop/web-2", "ops/none shop/web")
			ended := apiPod("shop", "web-2", "node-1", "10.1.0.5")
			ended.Status.Phase = corev1.PodFailed
			f.put(ended)
			want("ended", "", "ops/none shop/web")
		})
	}
}

// TestPodsAreListedAnew: what went meanwhile is gone, and what changes nothing makes no
// new picture.
func TestPodsAreListedAnew(t *testing.T) {
	f := newFakeAPI(t)
	fill(f)
	f.put(apiPod("shop", "web-0", "node-1", "10.1.0.1"), apiPod("shop", "web-1", "node-1", "10.1.0.2"), apiPolicy("a", "b"), apiPolicy("a", "c"))
	w := start(t, f, withPods)
	until(t, w, "lists", func() bool {
		return says(w, webOnly)() && podsText(w) == "10.1.0.1=shop/web-0 10.1.0.2=shop/web-1" && policiesText(w) == "a/b a/c"
	})
	f.down()
	f.remove(apiPod("shop", "web-0", ""))
	f.remove(apiPolicy("a", "c"))
	f.expire()
	f.up()
	until(t, w, "what was deleted is gone", func() bool { return podsText(w) == "10.1.0.2=shop/web-1" && policiesText(w) == "a/b" })
	until(t, w, "all is followed", func() bool { return w.State().Current })
	pods := w.Pods()
	status := apiPod("shop", "web-1", "node-1", "10.1.0.2")
	status.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse}}
	f.put(status, apiPod("shop", "web-2", "node-2", "10.1.0.3"), apiPolicy("a", "d")) // in this order, of each kind
	until(t, w, "the next policy", func() bool { return policiesText(w) == "a/b a/d" })
	f.put(apiPod("shop", "web-3", "node-1", "10.1.0.4"))
	until(t, w, "the next pod", func() bool { return w.Pods() != pods })
	if got := podsText(w); got != "10.1.0.2=shop/web-1 10.1.0.4=shop/web-3" {
		t.Errorf("pods: %s; a status made a picture of its own", got)
	}
}

// TestForbiddenPodsCostOnlyThePods.
func TestForbiddenPodsCostOnlyThePods(t *testing.T) {
	for _, resource := range []string{"pods", "networkpolicies"} {
		t.Run(resource, func(t *testing.T) {
			f := newFakeAPI(t)
			fill(f)
			f.put(apiPod("shop", "web-0", "node-1", "10.1.0.1"), apiPolicy("a", "b"))
			f.setFailure(resource, 403)
			w := start(t, f, withPods)
			until(t, w, "refusal", func() bool {
				s := w.State()
				return describe(w.Catalog()) == webOnly && s.ServicesCurrent && strings.Contains(s.Err, resource+": forbidden") &&
					(podsText(w) == "unknown") != (policiesText(w) == "unknown")
			})
			if s := w.State(); s.Current || !s.Synced || (podsText(w) == "unknown") != (resource == "pods") {
				t.Errorf("state %+v, pods %s, policies %s", s, podsText(w), policiesText(w))
			}
			f.setFailure(resource, 0)
			until(t, w, "allowed", func() bool {
				return says(w, webOnly)() && podsText(w) == "10.1.0.1=shop/web-0" && policiesText(w) == "a/b"
			})
		})
	}
}
