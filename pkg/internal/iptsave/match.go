// SPDX-License-Identifier: Apache-2.0

package iptsave

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"

	"github.com/svcscope/svcscope/pkg/ruleset"
)

var errArgs = errors.New("arguments that are not understood")

// matches turns a module and its options into conditions.
func matches(name string, opts []option) ([]ruleset.Match, error) {
	switch name {
	case "tcp", "udp", "sctp":
		return ports(name, opts)
	}
	one := map[string]func([]option) (ruleset.Match, error){
		"conntrack": conntrack, "state": conntrack, "addrtype": addrType, "statistic": statistic, "mark": mark,
		"recent": recent, "nfacct": nfacct, "multiport": multiport, "limit": limit,
	}[name]
	if one == nil {
		return []ruleset.Match{unknown(name, opts)}, nil
	}
	m, err := one(opts)
	if errors.Is(err, errArgs) {
		return []ruleset.Match{unknown(name, opts)}, nil
	}
	return []ruleset.Match{m}, err
}

func unknown(name string, opts []option) ruleset.Match {
	s := "-m " + name
	if len(opts) > 0 {
		s += " " + text(opts)
	}
	return ruleset.Unknown{Name: name, Text: s}
}

func ports(name string, opts []option) ([]ruleset.Match, error) {
	if len(opts) == 0 {
		return []ruleset.Match{ruleset.Module{Name: name}}, nil
	}
	var out []ruleset.Match
	for _, o := range opts {
		switch {
		case o.name == "--tcp-flags" && len(o.args) == 2:
			out = append(out, ruleset.TCPFlags{Mask: tcpFlags(o.args[0].text), Value: tcpFlags(o.args[1].text), Not: o.not})
		case o.name == "--syn" && name == "tcp":
			out = append(out, ruleset.TCPFlags{Mask: 0x17, Value: 2, Not: o.not})
		case o.name == "--tcp-option" && len(o.args) == 1:
			n, _ := strconv.ParseUint(o.args[0].text, 10, 8)
			out = append(out, ruleset.TCPOption{Number: uint8(n), Not: o.not})
		case len(o.args) == 1 && (o.name == "--sport" || o.name == "--dport"):
			r, err := portRange(o.args[0].text)
			if err != nil {
				return nil, err
			}
			if o.name == "--sport" {
				out = append(out, ruleset.SourcePort{First: r.First, Last: r.Last, Not: o.not})
			} else {
				out = append(out, ruleset.DestinationPort{First: r.First, Last: r.Last, Not: o.not})
			}
		default:
			return []ruleset.Match{unknown(name, opts)}, nil
		}
	}
	return out, nil
}

func portRange(s string) (ruleset.PortRange, error) {
	first, last, isRange := strings.Cut(s, ":")
	if first == "" {
		first = "0"
	}
	switch {
	case !isRange:
		last = first
	case last == "":
		last = "65535"
	}
	a, err := strconv.ParseUint(first, 10, 16)
	b, err2 := strconv.ParseUint(last, 10, 16)
	if err != nil || err2 != nil {
		return ruleset.PortRange{}, fmt.Errorf("port %q", s)
	}
	return ruleset.PortRange{First: uint16(a), Last: uint16(b)}, nil
}

// bits sums the values of names in a list like "A,B".
func bits(list string, values map[string]uint32) (uint32, error) {
	var v uint32
	for n := range strings.SplitSeq(list, ",") {
		b, ok := values[n]
		if !ok {
			return 0, fmt.Errorf("name %q", n)
		}
		v |= b
	}
	return v, nil
}

func tcpFlags(list string) uint8 {
	v, _ := bits(list, map[string]uint32{"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32, "ALL": 63, "NONE": 0})
	return uint8(v)
}

func conntrack(opts []option) (ruleset.Match, error) {
	if len(opts) != 1 || opts[0].name != "--ctstate" && opts[0].name != "--state" || len(opts[0].args) != 1 {
		return nil, errArgs
	}
	v, err := bits(opts[0].args[0].text, map[string]uint32{
		"INVALID": 1, "ESTABLISHED": 2, "RELATED": 4, "NEW": 8,
		"SNAT": 0x40, "DNAT": 0x80, "UNTRACKED": 0x100,
	})
	return ruleset.ConntrackState{Mask: uint16(v), Not: opts[0].not, Alias: opts[0].name == "--state"}, err
}

func addrType(opts []option) (ruleset.Match, error) {
	names := map[string]uint32{
		"UNSPEC": 1, "UNICAST": 2, "LOCAL": 4, "BROADCAST": 8, "ANYCAST": 16, "MULTICAST": 32,
		"BLACKHOLE": 64, "UNREACHABLE": 128, "PROHIBIT": 256, "THROW": 512, "NAT": 1024, "XRESOLVE": 2048,
	}
	var m ruleset.AddrType
	for _, o := range opts {
		switch {
		case o.name == "--limit-iface-in":
			m.Flags |= 4
		case o.name == "--limit-iface-out":
			m.Flags |= 8
		case len(o.args) == 1 && (o.name == "--src-type" || o.name == "--dst-type"):
			v, err := bits(o.args[0].text, names)
			if err != nil {
				return nil, err
			}
			if o.name == "--src-type" {
				m.Source, m.NotSource = uint16(v), o.not
			} else {
				m.Dest, m.NotDest = uint16(v), o.not
			}
		default:
			return nil, errArgs
		}
	}
	return m, nil
}

func statistic(opts []option) (ruleset.Match, error) {
	var mode string
	var random ruleset.Random
	var nth ruleset.Nth
	for _, o := range opts {
		if len(o.args) != 1 {
			return nil, errArgs
		}
		arg := o.args[0].text
		n, _ := strconv.ParseUint(arg, 10, 32)
		switch o.name {
		case "--mode":
			mode = arg
		case "--probability":
			p, err := strconv.ParseFloat(arg, 64)
			if err != nil {
				return nil, err
			}
			// lround(2^31 * p), as iptables' libxt_statistic.c.
			random = ruleset.Random{Threshold: uint32(math.Round(p * (1 << 31))), Not: o.not}
		case "--every":
			nth.Every, nth.Not = uint32(n), o.not
		case "--packet":
			nth.Packet = uint32(n)
		}
	}
	if mode == "random" {
		return random, nil
	}
	return nth, nil
}

func mark(opts []option) (ruleset.Match, error) {
	if len(opts) != 1 || len(opts[0].args) != 1 {
		return nil, errArgs
	}
	v, m, err := valueMask(opts[0].args[0].text)
	return ruleset.Mark{Value: v, Mask: m, Not: opts[0].not}, err
}

// valueMask reads "value" or "value/mask".
func valueMask(s string) (value, mask uint32, err error) {
	vs, ms, has := strings.Cut(s, "/")
	if !has {
		ms = "0xffffffff"
	}
	v, err := strconv.ParseUint(vs, 0, 32)
	if err != nil {
		return 0, 0, err
	}
	m, err := strconv.ParseUint(ms, 0, 32)
	return uint32(v), uint32(m), err
}

func recent(opts []option) (ruleset.Match, error) {
	m := ruleset.Recent{List: "DEFAULT"}
	for _, o := range opts {
		arg := ""
		if len(o.args) > 0 {
			arg = o.args[0].text
		}
		n, _ := strconv.ParseUint(arg, 10, 32)
		switch o.name {
		case "--set", "--rcheck", "--update", "--remove":
			m.Set, m.Update, m.Remove, m.Not = o.name == "--set", o.name == "--update", o.name == "--remove", o.not
		case "--seconds":
			m.Seconds = uint32(n)
		case "--hitcount":
			m.HitCount = uint32(n)
		case "--reap":
			m.Reap = true
		case "--rttl":
			m.TTL = true
		case "--rdest":
			m.Dest = true
		case "--name":
			m.List = arg
		case "--mask":
			a, err := netip.ParseAddr(arg)
			if err != nil {
				return nil, err
			}
			m.Mask = a
			if arg == "255.255.255.255" || arg == "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff" {
				m.Mask = netip.Addr{}
			}
		}
	}
	return m, nil
}

func nfacct(opts []option) (ruleset.Match, error) {
	if len(opts) != 1 || len(opts[0].args) != 1 {
		return nil, errArgs
	}
	return ruleset.NFAcct{Object: opts[0].args[0].text}, nil
}

func multiport(opts []option) (ruleset.Match, error) {
	if len(opts) != 1 || len(opts[0].args) != 1 {
		return nil, errArgs
	}
	o := opts[0]
	m := ruleset.Multiport{Not: o.not, Source: o.name == "--sports" || o.name == "--ports", Dest: o.name == "--dports" || o.name == "--ports"}
	for s := range strings.SplitSeq(o.args[0].text, ",") {
		r, err := portRange(s)
		if err != nil {
			return nil, err
		}
		m.Ports = append(m.Ports, r)
	}
	return m, nil
}

// limit brings the rate into iptables-save's words.
func limit(opts []option) (ruleset.Match, error) {
	for i, o := range opts {
		if o.name == "--limit" && len(o.args) == 1 {
			rate, unit, _ := strings.Cut(o.args[0].text, "/")
			for _, u := range []string{"sec", "min", "hour", "day"} {
				if unit != "" && (strings.HasPrefix(unit, u) || strings.HasPrefix(u, unit)) {
					unit = u
				}
			}
			w := rate + "/" + unit
			opts[i].args = []word{{w, w}}
		}
	}
	if n := len(opts); n == 2 && opts[1].name == "--limit-burst" && opts[1].args[0].text == "5" {
		opts = opts[:1]
	}
	return ruleset.Limit{Text: text(opts)}, nil
}
