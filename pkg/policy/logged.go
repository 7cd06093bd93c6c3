// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strconv"
	"strings"
)

// Verdict is what the rule that logs a packet does with it.
type Verdict string

// The verdicts. Pass hands the packet on to the next tier of policies.
const (
	Allow Verdict = "allow"
	Deny  Verdict = "deny"
	Pass  Verdict = "pass"
)

// Direction is which way a packet goes, seen from the pod that a policy is for.
type Direction string

// The directions.
const (
	Ingress Direction = "ingress"
	Egress  Direction = "egress"
)

// Logged is what the prefix of a logged packet tells of the rule.
type Logged struct {
	Owner     string // Calico, KubeRouter or Other
	Verdict   Verdict
	Direction Direction // empty where the prefix does not tell
	// Kind is what the rule is of: policy, profile, tier (nothing in the tier let
	// the packet pass) or none (no profile of the pod did).
	Kind string
	// Policy or profile, where the prefix has it whole. Namespace is empty for what
	// is the cluster's, Tier where there is none or the default one.
	Resource  string // Calico's short word of the resource's kind: knp, gnp, …; empty before 3.32
	Namespace string
	Name      string
	Tier      string
	Rule      int // the rule's index in the policy and direction; -1: not told
	// Hashed is true where the prefix was too long, and its middle is a hash: then
	// there is no name. Unhash may find it.
	Hashed bool
}

// Refuser is what the prefix tells of the rule that refuses the packet; ok is false
// where it does not say that one does.
func (l *Logged) Refuser() (f Refuser, ok bool) {
	f = Refuser{Owner: l.Owner, Direction: l.Direction, Reason: ByRule, Policy: Object{Namespace: l.Namespace, Name: l.Name}}
	switch {
	case l.Owner == KubeRouter, l.Kind == KindTier:
		f.Reason = DefaultDeny
	case l.Kind == KindNone:
		f.Reason = NoProfile
	case l.Owner == Calico, l.Namespace != "":
		f.Reason = DeniedByRule
	}
	if l.Kind == KindProfile {
		f.Policy = Object{Name: l.Name} // which is how the rules' chains tell it
	}
	return f, l.Verdict == Deny
}

// The kinds of what a logged rule is of.
const (
	KindPolicy  = "policy"
	KindProfile = "profile"
	KindTier    = "tier"
	KindNone    = "none"
)

// OwnPrefix begins the prefixes that users may give their own rules, to have them
// told as theirs: "svcscope:deny:some words", "svcscope:deny:ingress:namespace/policy".
const OwnPrefix = "svcscope:"

// ParseLogged reads the prefix of a logged packet; ok is false where it is of no
// known form.
//
// Calico: felix/rules/nflogprefix.go, with identifiers of 3.30 (policy keys) and of
// 3.32 and later (kind/namespace/name); k3s: "DROP by policy namespace/name";
// svcscope:…, see OwnPrefix.
func ParseLogged(prefix string) (l Logged, ok bool) {
	if rest, ok := strings.CutPrefix(prefix, "DROP by policy "); ok {
		namespace, name, ok := strings.Cut(strings.TrimSpace(rest), "/")
		return Logged{Owner: KubeRouter, Verdict: Deny, Kind: KindPolicy, Namespace: namespace, Name: name, Rule: -1}, ok && name != ""
	}
	if rest, ok := strings.CutPrefix(prefix, OwnPrefix); ok {
		return parseOwn(rest)
	}
	return parseCalico(prefix)
}

// parseOwn reads VERDICT[:DIRECTION][:NAMESPACE/NAME].
func parseOwn(s string) (Logged, bool) {
	l := Logged{Owner: Other, Kind: KindPolicy, Rule: -1}
	word, rest, _ := strings.Cut(s, ":")
	switch v := Verdict(word); v {
	case Allow, Deny, Pass:
		l.Verdict = v
	default:
		return Logged{}, false
	}
	if word, more, _ := strings.Cut(rest, ":"); word == string(Ingress) || word == string(Egress) {
		l.Direction, rest = Direction(word), more
	}
	rest = strings.TrimSpace(rest)
	if namespace, name, ok := strings.Cut(rest, "/"); ok {
		l.Namespace, l.Name = namespace, name
	} else {
		l.Name = rest
	}
	return l, true
}

// calicoHashed is the length from which felix hashes a prefix's middle: the first
// and the last calicoKept bytes stay, with a "_" beside the hash on either side.
const (
	calicoHashed = 63
	calicoKept   = 10
)

// parseCalico reads <verdict><of><direction>… as felix writes it.
func parseCalico(s string) (l Logged, ok bool) {
	if len(s) < 3 {
		return l, false
	}
	l = Logged{Owner: Calico, Rule: -1}
	if l.Verdict, ok = calicoVerdict(s[0]); !ok {
		return Logged{}, false
	}
	if l.Direction, ok = calicoDirection(s[2]); !ok {
		return Logged{}, false
	}
	if s == "DRI" || s == "DRE" {
		l.Kind = KindNone
		return l, true
	}
	index, id, found := strings.Cut(s[3:], "|")
	l.Hashed = len(s) >= calicoHashed && s[calicoKept] == '_'
	switch {
	case !found && !l.Hashed:
		return Logged{}, false
	case s[1] == 'P' && index == "" && found:
		l.Kind, l.Tier = KindTier, id
		return l, true
	case s[1] == 'P':
		l.Kind = KindPolicy
	case s[1] == 'R':
		l.Kind = KindProfile
	default:
		return Logged{}, false
	}
	if n, err := strconv.Atoi(index); found && err == nil && n >= 0 {
		l.Rule = n
	} else if found {
		return Logged{}, false
	}
	if l.Hashed {
		return l, true
	}
	l.identify(id)
	return l, id != ""
}

func calicoVerdict(c byte) (Verdict, bool) {
	switch c {
	case 'A':
		return Allow, true
	case 'D':
		return Deny, true
	case 'P':
		return Pass, true
	}
	return "", false
}

func calicoDirection(c byte) (Direction, bool) {
	switch c {
	case 'I':
		return Ingress, true
	case 'E':
		return Egress, true
	}
	return "", false
}

// identify reads the identifier of a policy or profile.
func (l *Logged) identify(id string) {
	parts := strings.Split(id, "/")
	switch {
	case l.Kind == KindProfile:
		// pro/NAME since 3.32; kns.NAMESPACE, ksa.NAMESPACE.NAME.
		name := parts[len(parts)-1]
		l.Name = name
		if rest, ok := strings.CutPrefix(name, "kns."); ok {
			l.Namespace = rest
		} else if rest, ok := strings.CutPrefix(name, "ksa."); ok {
			l.Namespace, _, _ = strings.Cut(rest, ".")
		}
	case calicoResource(parts[0]) && len(parts) == 3:
		l.Resource, l.Namespace, l.Name = parts[0], parts[1], parts[2]
	case calicoResource(parts[0]) && len(parts) == 2:
		l.Resource, l.Name = parts[0], parts[1]
	case len(parts) == 2:
		l.Namespace = parts[0]
		l.tiered(parts[1])
	default:
		l.tiered(id)
	}
	l.Name = withoutMade(l.Name)
}

// withoutMade is the name of a policy of Kubernetes' own in what Calico calls it.
func withoutMade(name string) string {
	for _, made := range [...]string{"knp.default.", "kanp.adminnetworkpolicy.", "kbanp.baselineadminnetworkpolicy."} {
		name = strings.TrimPrefix(name, made)
	}
	return name
}

// tiered reads TIER.NAME of 3.31 and before; what was made from Kubernetes' own
// policies has another word in front of its dot.
func (l *Logged) tiered(s string) {
	l.Name = s
	if strings.HasPrefix(s, "knp.") || strings.HasPrefix(s, "kanp.") || strings.HasPrefix(s, "kbanp.") {
		return
	}
	if tier, name, ok := strings.Cut(s, "."); ok {
		l.Name = name
		if tier != "default" {
			l.Tier = tier
		}
	}
}

// calicoResource reports whether a word is one of felix's for a kind of policy
// (felix/types/policy_id.go).
func calicoResource(s string) bool {
	switch s {
	case "np", "gnp", "snp", "sgnp", "sknp", "knp", "kcnp":
		return true
	}
	return false
}
