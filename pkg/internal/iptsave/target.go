// SPDX-License-Identifier: Apache-2.0

package iptsave

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// target reads what follows -j or -g.
func (p *ruleParser) target(flag string) error {
	name := p.next().text
	a := &p.rule.Action
	if flag == "-g" {
		*a = ruleset.Action{Kind: ruleset.Goto, Chain: name}
		return nil
	}
	opts := p.options(false)
	kinds := map[string]ruleset.ActionKind{
		"ACCEPT": ruleset.Accept, "DROP": ruleset.Drop, "RETURN": ruleset.Return, "QUEUE": ruleset.Queue,
		"DNAT": ruleset.DNAT, "SNAT": ruleset.SNAT, "MASQUERADE": ruleset.Masquerade, "MARK": ruleset.SetMark,
		"REJECT": ruleset.Reject, "NFLOG": ruleset.Log, "LOG": ruleset.Log,
	}
	kind, known := kinds[name]
	switch {
	case known:
		a.Kind = kind
		return p.targetOptions(name, opts)
	case p.table.byName[name] != nil || len(opts) == 0 && !builtin(name):
		// Chains are declared first; a bare word that is no target is one
		// that the text leaves out.
		a.Kind, a.Chain = ruleset.Jump, name
	default:
		*a = ruleset.Action{Kind: ruleset.OtherKind, More: &ruleset.Details{Name: name, Args: text(opts)}}
	}
	return nil
}

// builtin tells targets that are used without options from chains.
func builtin(name string) bool {
	switch name {
	case "NOTRACK", "TRACE", "CT", "CHECKSUM", "CONNMARK", "REDIRECT", "NFQUEUE", "TPROXY", "TCPMSS":
		return true
	}
	return false
}

func (p *ruleParser) targetOptions(name string, opts []option) error {
	a := &p.rule.Action
	switch a.Kind {
	case ruleset.DNAT, ruleset.SNAT:
		return natTarget(a, opts)
	case ruleset.Masquerade:
		a.Random = len(opts) == 1 && opts[0].name == "--random-fully"
		if !a.Random {
			a.SetDetails(ruleset.Details{Args: text(opts)})
		}
	case ruleset.SetMark:
		return markTarget(a, opts)
	case ruleset.Reject:
		with := "icmp-port-unreachable"
		if p.family == netfilter.IPv6 {
			with = "icmp6-port-unreachable"
		}
		if len(opts) == 1 && len(opts[0].args) == 1 {
			with = opts[0].args[0].text
		}
		a.More = &ruleset.Details{With: with}
	case ruleset.Log:
		a.More = &ruleset.Details{Name: name}
		logTarget(a, opts)
	}
	return nil
}

func natTarget(a *ruleset.Action, opts []option) error {
	if len(opts) == 0 || len(opts[0].args) != 1 {
		return errArgs
	}
	arg := opts[0].args[0].text
	first, _, isRange := strings.Cut(arg, "-")
	var d ruleset.Details
	if ap, err := netip.ParseAddrPort(first); err == nil {
		d.To = ap
	} else if addr, err := netip.ParseAddr(first); err == nil {
		d.To = netip.AddrPortFrom(addr, 0)
	} else {
		return err
	}
	if isRange || len(opts) > 1 {
		d.Args = text(opts)
	}
	a.SetDetails(d)
	return nil
}

func markTarget(a *ruleset.Action, opts []option) error {
	if len(opts) != 1 || len(opts[0].args) != 1 {
		return errArgs
	}
	v, m, err := valueMask(opts[0].args[0].text)
	switch opts[0].name {
	case "--or-mark":
		m = v
	case "--xor-mark":
		m = 0
	case "--and-mark":
		v, m = 0, ^v
	case "--set-mark":
		m |= v
	}
	a.Value, a.Mask = v, m
	return err
}

func logTarget(a *ruleset.Action, opts []option) {
	for _, o := range opts {
		arg := ""
		if len(o.args) == 1 {
			arg = o.args[0].text
		}
		switch o.name {
		case "--nflog-prefix", "--log-prefix":
			a.More.Prefix = arg
		case "--nflog-group":
			n, _ := strconv.ParseUint(arg, 10, 16)
			a.Group = uint16(n)
		default:
			a.More.Args = text(opts)
		}
	}
	if a.More.Name == "LOG" {
		a.More.Args = text(opts)
	}
}
