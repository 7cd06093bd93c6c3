// SPDX-License-Identifier: Apache-2.0

package iptsave

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// ruleParser reads the words of one rule after "-A CHAIN".
type ruleParser struct {
	words  []word
	family netfilter.Family
	table  *parser
	rule   *ruleset.Rule

	base    [5]ruleset.Match // -s -d -i -o -p
	frag    ruleset.Match
	used    []module // in order
	modules []ruleset.Match
	comment int // conditions in modules before the comment
}

// module is one -m and its options, which need not follow it at once.
type module struct {
	name    string
	options []option
}

// next takes one word; "" at the end.
func (p *ruleParser) next() word {
	if len(p.words) == 0 {
		return word{}
	}
	w := p.words[0]
	p.words = p.words[1:]
	return w
}

func (p *ruleParser) parse() error {
	for len(p.words) > 0 {
		neg := p.words[0].text == "!"
		if neg {
			p.next()
		}
		w := p.next().text
		var err error
		switch w {
		case "-s", "-d":
			err = p.address(w, neg)
		case "-i":
			p.base[2] = ruleset.InInterface{Name: p.next().text, Not: neg}
		case "-o":
			p.base[3] = ruleset.OutInterface{Name: p.next().text, Not: neg}
		case "-p":
			err = p.protocol(neg)
		case "-f":
			p.frag = ruleset.Fragment{Not: neg}
		case "-m":
			name := p.next().text
			p.used = append(p.used, module{name, p.options(false)})
		case "-j", "-g":
			err = p.target(w)
		default:
			err = p.stray(w, neg)
		}
		if err != nil {
			return err
		}
	}
	for _, m := range p.used {
		if err := p.module(m); err != nil {
			return err
		}
	}
	p.finish()
	return nil
}

// stray takes an option that stands apart from its module: kube-proxy writes
// "-m tcp -p tcp -d ADDRESS --dport PORT".
func (p *ruleParser) stray(w string, neg bool) error {
	if len(p.used) == 0 || !strings.HasPrefix(w, "--") {
		return fmt.Errorf("option %q", w)
	}
	p.words = append([]word{{w, w}}, p.words...)
	last := &p.used[len(p.used)-1]
	for i := range p.used {
		if n := p.used[i].name; n == "tcp" || n == "udp" || n == "sctp" {
			last = &p.used[i]
		}
	}
	last.options = append(last.options, p.options(neg)...)
	return nil
}

func (p *ruleParser) finish() {
	for _, m := range p.base {
		if m != nil {
			p.rule.Matches = append(p.rule.Matches, m)
		}
	}
	if p.frag != nil {
		p.rule.Matches = append(p.rule.Matches, p.frag)
	}
	if p.rule.Comment != "" {
		p.rule.CommentAt = uint8(len(p.rule.Matches) + p.comment)
	}
	p.rule.Matches = append(p.rule.Matches, p.modules...)
}

func (p *ruleParser) address(option string, neg bool) error {
	text := p.next().text
	if !strings.Contains(text, "/") {
		if a, err := netip.ParseAddr(text); err == nil {
			text = netip.PrefixFrom(a, a.BitLen()).String()
		}
	}
	pfx, err := netip.ParsePrefix(text)
	if err != nil {
		return err
	}
	switch pfx = pfx.Masked(); {
	case pfx.Bits() == 0 && !neg: // any address: no condition in the kernel
	case option == "-s":
		p.base[0] = ruleset.Source{Prefix: pfx, Not: neg}
	default:
		p.base[1] = ruleset.Destination{Prefix: pfx, Not: neg}
	}
	return nil
}

func (p *ruleParser) protocol(neg bool) error {
	text := p.next().text
	names := map[string]uint8{"icmp": 1, "tcp": 6, "udp": 17, "esp": 50, "ah": 51, "ipv6-icmp": 58, "sctp": 132, "udplite": 136}
	n, ok := names[text]
	if !ok {
		v, err := strconv.ParseUint(text, 10, 8)
		if err != nil {
			return fmt.Errorf("protocol %q", text)
		}
		n = uint8(v)
	}
	p.base[4] = ruleset.Protocol{Number: n, Not: neg}
	return nil
}

// option is one option of a module: its name, whether "!" went before it, and
// its arguments.
type option struct {
	name string
	not  bool
	args []word
}

// options takes words up to the next -m, -j, -g or base option; neg tells that
// a "!" went before the first.
func (p *ruleParser) options(neg bool) []option {
	var out []option
	for len(p.words) > 0 {
		w := p.words[0]
		if w.text == "!" && w.raw == "!" {
			if len(p.words) > 1 && !strings.HasPrefix(p.words[1].text, "--") {
				return out
			}
			neg = true
			p.next()
			continue
		}
		quoted := w.raw != w.text
		switch {
		case !quoted && slices.Contains([]string{"-s", "-d", "-i", "-o", "-p", "-f", "-m", "-j", "-g"}, w.text):
			return out
		case !quoted && strings.HasPrefix(w.text, "--"):
			out = append(out, option{name: w.text, not: neg})
			neg = false
		case len(out) > 0:
			out[len(out)-1].args = append(out[len(out)-1].args, w)
		default:
			return out
		}
		p.next()
	}
	return out
}

// text is options as they were written.
func text(opts []option) string {
	var b []string
	for _, o := range opts {
		if o.not {
			b = append(b, "!")
		}
		b = append(b, o.name)
		for _, a := range o.args {
			b = append(b, a.raw)
		}
	}
	return strings.Join(b, " ")
}

func (p *ruleParser) module(m module) error {
	name, opts := m.name, m.options
	if name == "comment" {
		return p.commentModule(opts)
	}
	ms, err := matches(name, opts)
	if err != nil {
		return fmt.Errorf("-m %s: %w", name, err)
	}
	p.modules = append(p.modules, ms...)
	return nil
}

func (p *ruleParser) commentModule(opts []option) error {
	if len(opts) != 1 || len(opts[0].args) != 1 {
		return fmt.Errorf("comment %q", text(opts))
	}
	c := opts[0].args[0].text
	if p.rule.Comment == "" {
		p.rule.Comment, p.comment = c, len(p.modules)
		return nil
	}
	p.modules = append(p.modules, ruleset.Comment{Text: c})
	return nil
}
