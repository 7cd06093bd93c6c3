// SPDX-License-Identifier: Apache-2.0

package service

import (
	"crypto/sha1" //nolint:gosec // G505: Calico's names are made with it
	"encoding/hex"
	"iter"
	"net/netip"
	"slices"
)

// Pod is what svcscope keeps of a v1.Pod that runs on this node.
type Pod struct {
	Name Name
	UID  string
	IPs  []netip.Addr
	// HostNetwork: its addresses are the node's.
	HostNetwork bool
	// Leaving: it was told to end. Another pod may have its address already.
	Leaving bool
}

// Pods is an immutable picture of the pods of this node. A nil one knows none. It may be
// read by any number of goroutines; pass it by pointer.
type Pods struct {
	names      map[Name]*Pod
	addrs      map[netip.Addr]*Pod // nil: of more than one
	interfaces map[string]*Pod
}

// NewPods knows all of these, which must not change any more.
func NewPods(all []*Pod) *Pods {
	p := &Pods{
		names: make(map[Name]*Pod, len(all)), addrs: make(map[netip.Addr]*Pod, len(all)),
		interfaces: make(map[string]*Pod, len(all)),
	}
	for _, pod := range all {
		p.names[pod.Name] = pod
		if !pod.HostNetwork {
			p.interfaces[calicoInterface(pod.Name)] = pod
		}
	}
	for _, leaving := range []bool{false, true} {
		for _, pod := range all {
			if pod.Leaving == leaving && !pod.HostNetwork {
				p.enter(pod)
			}
		}
	}
	return p
}

// enter notes a pod's addresses, after those of pods that go before it. Where two have
// one, and both or none was told to end, it is neither's.
func (p *Pods) enter(pod *Pod) {
	for _, a := range pod.IPs {
		switch other, taken := p.addrs[a]; {
		case !taken:
			p.addrs[a] = pod
		case other != nil && other != pod && other.Leaving == pod.Leaving:
			p.addrs[a] = nil
		}
	}
}

// ByName returns the pod of that name, or nil.
func (p *Pods) ByName(n Name) *Pod {
	if p == nil {
		return nil
	}
	return p.names[n]
}

// ByAddr returns the pod that has an address, or nil: those in the node's network have
// none of their own.
func (p *Pods) ByAddr(a netip.Addr) *Pod {
	if p == nil {
		return nil
	}
	return p.addrs[a.Unmap()]
}

// ByInterface returns the pod to which Calico gave an interface of the node, or nil.
func (p *Pods) ByInterface(name string) *Pod {
	if p == nil {
		return nil
	}
	return p.interfaces[name]
}

// calicoInterface is what Calico calls the node's end of a pod's link
// (VethNameForWorkload in libcalico-go/lib/backend/k8s/conversion). The prefix may be
// configured there (FELIX_INTERFACEPREFIX); only the default is known here.
func calicoInterface(n Name) string {
	const prefix, digits = "cali", 11
	sum := sha1.Sum([]byte(n.Namespace + "." + n.Name)) //nolint:gosec // G401: likewise
	return prefix + hex.EncodeToString(sum[:])[:digits]
}

// Policies is an immutable list of the names of NetworkPolicies. A nil one has none.
type Policies struct{ names []Name }

// NewPolicies has all of these names.
func NewPolicies(names []Name) *Policies { return &Policies{slices.Clone(names)} }

// All yields namespaces and names, in no order.
func (p *Policies) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		if p == nil {
			return
		}
		for _, n := range p.names {
			if !yield(n.Namespace, n.Name) {
				return
			}
		}
	}
}
