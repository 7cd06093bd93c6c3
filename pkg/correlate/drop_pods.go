// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"github.com/svcscope/svcscope/pkg/netfilter/nflog"
	"github.com/svcscope/svcscope/pkg/policy"
	"github.com/svcscope/svcscope/pkg/service"
)

func podObject(p *service.Pod) policy.Object {
	if p == nil {
		return policy.Object{}
	}
	return policy.Object{Namespace: p.Name.Namespace, Name: p.Name.Name}
}

// namePods sets the pods from which a packet comes and to which it goes. Where it has a
// Service's address still, its entry of connection tracking tells who will answer.
func (r *DropReader) namePods(e *DropEvent, p *nflog.Packet) {
	if r.pods == nil {
		return
	}
	e.FromPod, e.ToPod = podObject(r.pods.ByAddr(e.Src.Addr())), podObject(r.pods.ByAddr(e.Dst.Addr()))
	if p.HasFlow && e.ToPod == (policy.Object{}) && e.Src == p.Flow.Orig.Src && e.Dst == p.Flow.Orig.Dst {
		e.ToPod = podObject(r.pods.ByAddr(p.Flow.Reply.Src.Addr()))
	}
}

// WithPods returns the same names, and what pods are called.
func (n *Names) WithPods(p *service.Pods) *Names {
	named := *n
	named.pods = p
	return &named
}

// SamePods reports whether the names are those with these pods.
func (n *Names) SamePods(p *service.Pods) bool { return n.pods == p }

// podOf is the pod before which a refusing rule stands: the one that it tells or, of a
// policy's refusal, the one whose interface it tells.
func (n *Names) podOf(f *policy.Refuser) policy.Object {
	if f.Pod != (policy.Object{}) || f.Interface == "" || !f.Reason.OfPolicy() {
		return f.Pod
	}
	return podObject(n.pods.ByInterface(f.Interface))
}

// lacksPod reports whether k is old but for the pod, which it does not tell.
func (k DropKey) lacksPod(old *DropKey) bool {
	if k.Pod != (policy.Object{}) || old.Pod == (policy.Object{}) {
		return false
	}
	k.Pod = old.Pod
	return k == *old
}
