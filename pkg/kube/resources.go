// SPDX-License-Identifier: Apache-2.0

package kube

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"

	"github.com/svcscope/svcscope/pkg/service"
)

// reflectors returns one for each kind that is followed.
func (w *Watcher) reflectors() []*cache.Reflector {
	all := []*cache.Reflector{w.services(), w.endpointSlices(), w.node()}
	if w.cfg.Pods {
		all = append(all, w.pods())
	}
	if w.cfg.Policies {
		all = append(all, w.policies())
	}
	return all
}

// services follows all Services, those of other proxies too: they hold
// addresses, and kube-proxy's rules must not have them.
func (w *Watcher) services() *cache.Reflector {
	return reflector(w,
		&source{kind: servicesKind, client: w.clients.core, resource: "services", selector: func(*metav1.ListOptions) {}},
		&sink[*service.Service]{
			kind: servicesKind, apply: w.apply,
			object: func() message { return &corev1.Service{} },
			convert: func(o runtime.Object) (*service.Service, bool) {
				s, ok := o.(*corev1.Service)
				if !ok {
					return nil, false
				}
				return convertService(s), true
			},
			set:     (*tables).setService,
			remove:  func(t *tables, o runtime.Object) { t.deleteService(nameOf(o)) },
			replace: (*tables).replaceServices,
		})
}

// endpointSlices leaves out those of headless Services, as kube-proxy does
// (cmd/kube-proxy/app/server.go): clusters can have many.
func (w *Watcher) endpointSlices() *cache.Reflector {
	return reflector(w,
		&source{
			kind: slicesKind, client: w.clients.discovery, resource: "endpointslices",
			selector: func(o *metav1.ListOptions) { o.LabelSelector = "!" + corev1.IsHeadlessService },
		},
		&sink[*slice]{
			kind: slicesKind, apply: w.apply,
			object: func() message { return &discoveryv1.EndpointSlice{} },
			convert: func(o runtime.Object) (*slice, bool) {
				s, ok := o.(*discoveryv1.EndpointSlice)
				if !ok {
					return nil, false
				}
				v := convertSlice(s)
				return v, v != nil
			},
			set:     (*tables).setSlice,
			remove:  func(t *tables, o runtime.Object) { t.deleteSlice(nameOf(o)) },
			replace: (*tables).replaceSlices,
		})
}

// node follows the one Node of that name; without a name, none exists.
func (w *Watcher) node() *cache.Reflector {
	selector := fields.OneTermEqualSelector(metav1.ObjectNameField, w.cfg.NodeName).String()
	return reflector(w,
		&source{
			kind: nodeKind, client: w.clients.core, resource: "nodes",
			selector: func(o *metav1.ListOptions) { o.FieldSelector = selector },
		},
		&sink[*service.Node]{
			kind: nodeKind, apply: w.apply,
			object: func() message { return &corev1.Node{} },
			convert: func(o runtime.Object) (*service.Node, bool) {
				n, ok := o.(*corev1.Node)
				if !ok {
					return nil, false
				}
				return convertNode(n), true
			},
			set:    (*tables).setNode,
			remove: func(t *tables, _ runtime.Object) { t.setNode(nil) },
			replace: func(t *tables, list []*service.Node) {
				if len(list) == 0 {
					list = []*service.Node{nil}
				}
				t.setNode(list[0])
			},
		})
}

// nodeRefused lets a catalog exist without the Node: it is needed for hints
// only, and a role without nodes must not cost all names. Needs mu.
func (w *Watcher) nodeRefused(k kind, err error) {
	if k == nodeKind && (apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err)) {
		w.tables.refused = true
		w.tables.hasListed(nodeKind)
		notify(w.dirty)
		notify(w.announced)
	}
}

// nameOf returns namespace and name of an API object.
func nameOf(o runtime.Object) service.Name {
	m, ok := o.(metav1.Object)
	if !ok {
		return service.Name{}
	}
	return service.Name{Namespace: m.GetNamespace(), Name: m.GetName()}
}
