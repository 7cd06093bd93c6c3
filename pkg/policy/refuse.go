// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"slices"
	"strings"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// Reason is why a rule refuses packets, spelled as the label reason of
// svcscope_drop_packets_total. Those of a Service's refusals are kubeproxy.Reason.
type Reason string

// The reasons: a fixed list. What is told of a policy is what the rule itself says.
const (
	DefaultDeny  Reason = "policy_default" // policies are for the pod, and none of them let the packet pass
	DeniedByRule Reason = "policy_rule"    // a rule of a policy or profile refuses it
	NoProfile    Reason = "no_profile"     // Calico: no policy and no profile of the endpoint let it pass
	EndpointDown Reason = "endpoint_down"  // Calico: the endpoint is administratively down
	Encapsulated Reason = "encapsulated"   // Calico: VXLAN or IPIP out of a pod
	Invalid      Reason = "invalid"        // connection tracking takes the packet to be of no connection
	Localnet     Reason = "localnet"       // KUBE-FIREWALL: to 127.0.0.0/8 from elsewhere (CVE-2020-8558)
	Marked       Reason = "marked"         // KUBE-FIREWALL: marked by a rule elsewhere, which counts it
	ByRule       Reason = "rule"           // nothing more is known than that the rule is there
)

// Reasons returns all values of Reason, in a fixed order.
func Reasons() []Reason {
	return []Reason{DefaultDeny, DeniedByRule, NoProfile, EndpointDown, Encapsulated, Invalid, Localnet, Marked, ByRule}
}

// OfPolicy reports whether a network policy refuses, or the lack of one that lets pass.
func (r Reason) OfPolicy() bool { return r == DefaultDeny || r == DeniedByRule || r == NoProfile }

// Object is the namespace and name of a policy or pod. Namespace is empty for what
// is the cluster's.
type Object struct {
	Namespace string
	Name      string
}

// Compare orders objects by namespace and name.
func (o Object) Compare(p Object) int {
	return cmp.Or(cmp.Compare(o.Namespace, p.Namespace), cmp.Compare(o.Name, p.Name))
}

// Refuser is what a rule that drops or rejects packets tells of itself.
type Refuser struct {
	Owner     string // of Owners
	Reason    Reason
	Direction Direction // seen from the pod; empty where the rule does not tell
	// Policy is the one whose rule it is, and Pod the one that it stands before; the
	// zero value where the rule does not tell.
	Policy, Pod Object
	// Interface is the pod's device on the node, which is all that Calico's chains
	// tell of the pod.
	Interface string
	// NFAcct is the counter object of nfacct that kube-proxy's rule counts in all
	// that it refuses; empty without one. It stays when the rule is rewritten.
	NFAcct string
}

// Refusing tells what is known of rule number i of a chain, if it drops or rejects
// packets; ok is false where it does neither. The refusals of a Service's packets,
// which package kubeproxy knows by the chain, are among them.
func Refusing(table string, c *ruleset.Chain, i int) (f Refuser, ok bool) {
	r := &c.Rules[i]
	if r.Action.Kind != ruleset.Drop && r.Action.Kind != ruleset.Reject {
		return Refuser{}, false
	}
	f = Refuser{Owner: OwnerOfTable(table), Reason: ByRule}
	if f.Owner == Other {
		f.Owner = Owner(c.Name)
	}
	switch {
	case f.Owner == Calico:
		f.calico(c, r)
	case f.Owner == KubeRouter:
		f.kubeRouter(c, r)
	case f.Owner == KubeProxy:
		f.kubeProxy(c, r)
	case f.Owner == Other && strings.HasPrefix(r.Comment, "cali:"): // in a built-in chain
		f.Owner = Calico
		f.calico(c, r)
	case c.Name == weaveEgress:
		f.Reason, f.Direction = DefaultDeny, Egress
	case f.Owner == Other && ofWeave(c, i):
		f.Owner, f.Reason, f.Direction = Weave, DefaultDeny, Ingress
	}
	if f.Reason == ByRule && invalid(r) {
		f.Reason = Invalid
	}
	if f.Owner == KubeProxy && f.Reason == Invalid {
		f.NFAcct = account(r)
	}
	return f, true
}

// account returns the object that a rule adds each packet to that it takes.
func account(r *ruleset.Rule) string {
	for i := len(r.Matches) - 1; i >= 0; i-- {
		if o, ok := r.Matches[i].(ruleset.NFAcct); ok {
			return o.Object
		}
		if ruleset.MayFail(r.Matches[i]) {
			break
		}
	}
	return ""
}

// kubeProxy reads a rule of KUBE-FORWARD or KUBE-FIREWALL (proxier.go,
// pkg/proxy/iptables; kubelet_network_linux.go).
func (f *Refuser) kubeProxy(c *ruleset.Chain, r *ruleset.Rule) {
	if kind, _ := kubeproxy.ParseChain(c.Name); kind != kubeproxy.KindKubeFirewall {
		return
	}
	f.Reason = Localnet
	for _, m := range r.Matches {
		if _, marked := m.(ruleset.Mark); marked {
			f.Reason = Marked
		}
	}
}

// invalid reports whether a rule is for packets of no connection alone.
func invalid(r *ruleset.Rule) bool {
	const ctInvalid = 1 // XT_CONNTRACK_STATE_INVALID
	for _, m := range r.Matches {
		if s, ok := m.(ruleset.ConntrackState); ok && s.Mask == ctInvalid && !s.Not {
			return true
		}
	}
	return false
}

// kubeRouter reads a rule of a pod's chain (pkg/controllers/netpol/pod.go): what no
// policy has marked as let through. The chain serves both directions. Comments are
// "<namespace>/<pod> reject" since 2.11, cut at 120 bytes, and before "rule to REJECT
// traffic destined for POD name:<pod> namespace: <namespace>". Those of
// KUBE-NWPLCY-TAIL end with "(default-deny)": for pods that have no chain yet.
func (f *Refuser) kubeRouter(c *ruleset.Chain, r *ruleset.Rule) {
	const before, between = "rule to REJECT traffic destined for POD name:", " namespace: "
	comment := strings.TrimSpace(r.Comment)
	if strings.HasPrefix(c.Name, "KUBE-POD-FW-") || strings.HasSuffix(comment, " (default-deny)") {
		f.Reason = DefaultDeny
	}
	if rest, ok := strings.CutPrefix(comment, before); ok {
		if name, namespace, ok := strings.Cut(rest, between); ok {
			f.Pod = Object{Namespace: namespace, Name: name}
		}
		return
	}
	if pod, ok := strings.CutSuffix(comment, " reject"); ok {
		if namespace, name, ok := strings.Cut(pod, "/"); ok && !strings.ContainsAny(pod, " ") {
			f.Pod = Object{Namespace: namespace, Name: name}
		}
	}
}

// calico reads a rule of felix (felix/rules/endpoints.go, policy.go). The comments of
// a rule end with a sentence; the first rule of a policy's chain names the policy.
func (f *Refuser) calico(c *ruleset.Chain, r *ruleset.Rule) {
	f.calicoChain(strings.TrimPrefix(c.Name, "filter-"))
	for s := range comments(r) {
		switch {
		case strings.HasPrefix(s, "End of tier ") && strings.Contains(s, "if no policies passed packet"):
			f.Reason = DefaultDeny
		case strings.HasSuffix(s, " if no profiles matched"):
			f.Reason = NoProfile
		case s == "Endpoint admin disabled":
			f.Reason = EndpointDown
		case strings.HasSuffix(s, " encapped packets originating in workloads"):
			f.Reason = Encapsulated
		}
	}
	if f.Reason != ByRule || !OfPolicy(c.Name) {
		return
	}
	f.Reason = DeniedByRule
	for s := range comments(&c.Rules[0]) {
		if f.policyOf(s) {
			return
		}
	}
}

// calicoChain reads a chain's direction and the endpoint's interface from its name
// (felix/rules/rule_defs.go). A name that was too long ends with a hash after "_".
func (f *Refuser) calicoChain(name string) {
	for _, p := range [...]struct {
		prefix    string
		direction Direction
		endpoint  bool
	}{
		{"cali-tw-", Ingress, true},
		{"cali-fw-", Egress, true},
		{"cali-pi-", Ingress, false},
		{"cali-po-", Egress, false},
		{"cali-pri-", Ingress, false},
		{"cali-pro-", Egress, false},
	} {
		if rest, ok := strings.CutPrefix(name, p.prefix); ok {
			f.Direction = p.direction
			if p.endpoint && !strings.HasPrefix(rest, "_") {
				f.Interface = rest
			}
		}
	}
}

// OfPolicy reports whether a chain has the rules of one policy or profile of Calico,
// which replaces them by as many others when it changes.
func OfPolicy(chain string) bool {
	name := strings.TrimPrefix(chain, "filter-")
	for _, p := range [...]string{"cali-pi-", "cali-po-", "cali-pri-", "cali-pro-"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// policyOf reads the sentence that names a chain's policy or profile: "Policy
// default/knp.default.web ingress" of 3.31 and before, "NetworkPolicy shop/web
// ingress", "GlobalNetworkPolicy strict egress" and the like since 3.32, "Profile
// kns.shop ingress".
func (f *Refuser) policyOf(s string) bool {
	words := strings.Fields(s)
	if len(words) != 3 || words[2] != string(Ingress) && words[2] != string(Egress) {
		return false
	}
	l := Logged{Kind: KindPolicy}
	switch kind, id := words[0], words[1]; {
	case kind == "Profile":
		l.Kind = KindProfile
		l.identify(id)
		f.Policy = Object{Name: l.Name}
		return true
	case kind == "Policy":
		l.identify(id)
	case strings.HasSuffix(kind, "NetworkPolicy"):
		namespace, name, ok := strings.Cut(id, "/")
		if !ok {
			namespace, name = "", id
		}
		l.Namespace, l.Name = namespace, withoutMade(name)
	default:
		return false
	}
	f.Policy = Object{Namespace: l.Namespace, Name: l.Name}
	return true
}

// comments yields a rule's comments. In a native nft table all of felix's are one,
// with "; " between them.
func comments(r *ruleset.Rule) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for s := range strings.SplitSeq(r.Comment, "; ") {
			if s != "" && !yield(s) {
				return
			}
		}
		for _, m := range r.Matches {
			if c, ok := m.(ruleset.Comment); ok && !yield(c.Text) {
				return
			}
		}
	}
}

// weaveEgress ends with the rule for what no policy let a pod send
// (prog/weave-npc/main.go).
const weaveEgress = "WEAVE-NPC-EGRESS"

// ofWeave reports whether rule number i of FORWARD is the one that weave has behind
// its jump to WEAVE-NPC (net/bridge.go): for what no policy let in.
func ofWeave(c *ruleset.Chain, i int) bool {
	out := outInterface(&c.Rules[i])
	return c.Base != nil && out != "" && slices.ContainsFunc(c.Rules[:i], func(r ruleset.Rule) bool {
		return r.Action.Chain == "WEAVE-NPC" && outInterface(&r) == out
	})
}

// outInterface is the device that a rule wants packets to leave by; "" for any.
func outInterface(r *ruleset.Rule) string {
	for _, m := range r.Matches {
		if o, ok := m.(ruleset.OutInterface); ok && !o.Not {
			return o.Name
		}
	}
	return ""
}
