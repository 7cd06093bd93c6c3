// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"maps"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"

	"github.com/svcscope/svcscope/pkg/service"
)

// others holds what is followed only where it is asked for, and whether it changed since
// it was published. It is part of tables.
type others struct {
	pods                         map[service.Name]*service.Pod
	policies                     map[service.Name]struct{}
	podsChanged, policiesChanged bool
}

// convertPod returns false for a pod that has ended: its addresses are free.
func convertPod(p *corev1.Pod) (*service.Pod, bool) {
	if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return nil, false
	}
	out := &service.Pod{
		Name: service.Name{Namespace: intern(p.Namespace), Name: p.Name}, UID: string(p.UID),
		HostNetwork: p.Spec.HostNetwork, Leaving: p.DeletionTimestamp != nil,
	}
	for i := range p.Status.PodIPs {
		if a, ok := parseAddr(p.Status.PodIPs[i].IP); ok {
			out.IPs = append(out.IPs, a)
		}
	}
	if a, ok := parseAddr(p.Status.PodIP); ok && len(out.IPs) == 0 {
		out.IPs = append(out.IPs, a)
	}
	out.IPs = exact(out.IPs)
	return out, true
}

// pods follows those of the node.
func (w *Watcher) pods() *cache.Reflector {
	selector := fields.OneTermEqualSelector("spec.nodeName", w.cfg.NodeName).String()
	return reflector(w,
		&source{
			kind: podsKind, client: w.clients.core, resource: "pods",
			selector: func(o *metav1.ListOptions) { o.FieldSelector = selector },
		},
		&sink[*service.Pod]{
			kind: podsKind, apply: w.apply,
			object: func() message { return &corev1.Pod{} },
			convert: func(o runtime.Object) (*service.Pod, bool) {
				p, ok := o.(*corev1.Pod)
				if !ok {
					return nil, false
				}
				return convertPod(p)
			},
			set:     (*tables).setPod,
			remove:  func(t *tables, o runtime.Object) { t.deletePod(nameOf(o)) },
			replace: (*tables).replacePods,
		})
}

// policies follows the names of all NetworkPolicies: the API sends their metadata alone.
func (w *Watcher) policies() *cache.Reflector {
	return reflector(w,
		&source{
			kind: policiesKind, client: w.clients.networking, resource: "networkpolicies", metadata: true,
			selector: func(*metav1.ListOptions) {},
		},
		&sink[service.Name]{
			kind: policiesKind, apply: w.apply,
			object: func() message { return &metav1.PartialObjectMetadata{} },
			convert: func(o runtime.Object) (service.Name, bool) {
				m, ok := o.(*metav1.PartialObjectMetadata)
				if !ok {
					return service.Name{}, false
				}
				return service.Name{Namespace: intern(m.Namespace), Name: m.Name}, true
			},
			set:     (*tables).setPolicy,
			remove:  func(t *tables, o runtime.Object) { t.deletePolicy(nameOf(o)) },
			replace: (*tables).replacePolicies,
		})
}

func (o *others) setPod(p *service.Pod) {
	if old := o.pods[p.Name]; old != nil && reflect.DeepEqual(old, p) {
		return // conditions and the like
	}
	o.pods[p.Name], o.podsChanged = p, true
}

func (o *others) deletePod(n service.Name) {
	if _, ok := o.pods[n]; ok {
		delete(o.pods, n)
		o.podsChanged = true
	}
}

func (o *others) replacePods(list []*service.Pod) {
	keep := make(map[service.Name]struct{}, len(list))
	for _, p := range list {
		keep[p.Name] = struct{}{}
		o.setPod(p)
	}
	for n := range o.pods {
		if _, ok := keep[n]; !ok {
			o.deletePod(n)
		}
	}
}

func (o *others) setPolicy(n service.Name) {
	if _, ok := o.policies[n]; !ok {
		o.policies[n], o.policiesChanged = struct{}{}, true
	}
}

func (o *others) deletePolicy(n service.Name) {
	if _, ok := o.policies[n]; ok {
		delete(o.policies, n)
		o.policiesChanged = true
	}
}

func (o *others) replacePolicies(list []service.Name) {
	keep := make(map[service.Name]struct{}, len(list))
	for _, n := range list {
		keep[n] = struct{}{}
		o.setPolicy(n)
	}
	for n := range o.policies {
		if _, ok := keep[n]; !ok {
			o.deletePolicy(n)
		}
	}
}

// Pods returns the newest picture of this node's pods; nil before they have been listed,
// and where they are not followed.
func (w *Watcher) Pods() *service.Pods { return w.podsNow.Load() }

// Policies returns the names of all NetworkPolicies; nil as Pods.
func (w *Watcher) Policies() *service.Policies { return w.policiesNow.Load() }

// publishOthers makes new pictures of what has changed. Needs mu.
func (w *Watcher) publishOthers() {
	t := w.tables
	if t.listed[podsKind] && (t.podsChanged || w.Pods() == nil) {
		t.podsChanged = false
		w.podsNow.Store(service.NewPods(slices.Collect(maps.Values(t.pods))))
	}
	if t.listed[policiesKind] && (t.policiesChanged || w.Policies() == nil) {
		t.policiesChanged = false
		w.policiesNow.Store(service.NewPolicies(slices.Collect(maps.Keys(t.policies))))
	}
}
