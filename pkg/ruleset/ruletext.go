// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/svcscope/svcscope/pkg/netfilter"
)

// Spec is the rule as iptables-save prints it after "-A CHAIN ": conditions
// in order, the comment at its place, then the action. The family tells how
// some defaults are spelled. It is "" for a rule that matches everything and
// does nothing.
func (r *Rule) Spec(family netfilter.Family) string {
	var parts []string
	module := "" // whose options the last part ended with
	for i, m := range r.Matches {
		if i == int(r.CommentAt) {
			parts, module = r.appendComment(parts, module)
		}
		switch m := m.(type) {
		case SourcePort, DestinationPort, TCPOption, TCPFlags:
			if p := r.protocolModule(); module != p {
				parts, module = append(parts, "-m "+p), p
			}
			parts = append(parts, m.String())
			continue
		case Recent:
			parts = append(parts, m.text(allOnes(family)))
		default:
			parts = append(parts, m.String())
		}
		module = ""
	}
	if int(r.CommentAt) >= len(r.Matches) {
		parts, _ = r.appendComment(parts, module)
	}
	if s := r.Action.spec(family); s != "" {
		parts = append(parts, s)
	}
	return strings.Join(parts, " ")
}

func (r *Rule) appendComment(parts []string, module string) ([]string, string) {
	if r.Comment == "" {
		return parts, module
	}
	return append(parts, Comment{r.Comment}.String()), ""
}

// Protocol returns the transport protocol that the rule asks for; ok is false
// where it takes any or excludes one.
func (r *Rule) Protocol() (number uint8, ok bool) {
	for _, m := range r.Matches {
		if p, is := m.(Protocol); is && !p.Not {
			return p.Number, true
		}
	}
	return 0, false
}

// protocolModule is the module that port options belong to.
func (r *Rule) protocolModule() string {
	if n, ok := r.Protocol(); ok {
		return protocolName(n)
	}
	return "th"
}

func allOnes(f netfilter.Family) netip.Addr {
	if f == netfilter.IPv6 {
		var a [16]byte
		for i := range a {
			a[i] = 0xff
		}
		return netip.AddrFrom16(a)
	}
	return netip.AddrFrom4([4]byte{0xff, 0xff, 0xff, 0xff})
}

// String is the action in iptables' words: "-j DNAT --to-destination
// 10.0.0.1:80"; "" for a rule without a target.
func (a Action) String() string { return a.spec(netfilter.FamilyUnspec) }

func (a Action) spec(family netfilter.Family) string {
	d := a.Details()
	if a.Kind == Map {
		return strings.TrimSpace(d.Args + " vmap @" + d.Name)
	}
	if d.Args != "" {
		return "-j " + a.Target() + " " + d.Args
	}
	switch a.Kind {
	case Continue:
		return ""
	case Goto:
		return "-g " + a.Chain
	case DNAT:
		return "-j DNAT --to-destination " + natAddr(d.To)
	case SNAT:
		return "-j SNAT --to-source " + natAddr(d.To)
	case Masquerade:
		if a.Random {
			return "-j MASQUERADE --random-fully"
		}
	case SetMark:
		return "-j MARK --set-xmark " + hex32(a.Value) + "/" + hex32(a.Mask)
	case Reject:
		if d.With != "" {
			return "-j REJECT --reject-with " + d.With
		}
		if family == netfilter.IPv6 {
			return "-j REJECT --reject-with icmp6-port-unreachable"
		}
		return "-j REJECT --reject-with icmp-port-unreachable"
	case Log:
		return "-j " + a.logSpec()
	}
	return "-j " + a.Target()
}

// logSpec is the text of an NFLOG target; LOG's options are in Args.
func (a Action) logSpec() string {
	s := a.Target()
	if s != "NFLOG" {
		return s
	}
	if prefix := a.Details().Prefix; prefix != "" {
		s += " --nflog-prefix " + quote(prefix)
	}
	if a.Group != 0 {
		s += " --nflog-group " + strconv.Itoa(int(a.Group))
	}
	return s
}

// Target is what follows -j or -g: a chain's or a target's name; "" for a
// rule without one.
func (a Action) Target() string {
	if name := a.Details().Name; name != "" && a.Kind != DNAT {
		return name
	}
	switch a.Kind {
	case Jump, Goto:
		return a.Chain
	case Continue:
		return ""
	}
	return a.Kind.String()
}

// String is iptables' name of the target; "Jump" and "Goto" of a chain's,
// which has no name of its own.
func (k ActionKind) String() string {
	names := [...]string{
		Continue: "", Accept: "ACCEPT", Drop: "DROP", Return: "RETURN", Queue: "QUEUE",
		Jump: "Jump", Goto: "Goto", DNAT: "DNAT", SNAT: "SNAT", Masquerade: "MASQUERADE",
		SetMark: "MARK", Reject: "REJECT", Log: "NFLOG", Map: "Map", OtherKind: "OTHER",
	}
	if int(k) < len(names) {
		return names[k]
	}
	return "kind-" + strconv.Itoa(int(k))
}

// natAddr is an address with a port unless that is 0: IPv6 is in brackets
// only with a port.
func natAddr(a netip.AddrPort) string {
	if a.Port() == 0 {
		return a.Addr().String()
	}
	if !a.Addr().IsValid() {
		return ":" + strconv.Itoa(int(a.Port()))
	}
	return a.String()
}
