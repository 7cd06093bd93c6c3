// SPDX-License-Identifier: Apache-2.0

package xtables

import (
	"fmt"
	"math/bits"
	"net/netip"
	"regexp"
	"strings"

	"github.com/svcscope/svcscope/pkg/netfilter"
)

// saveLines renders a table as iptables-save -c prints it: the chains, then
// the rules. exact[i] is false for lines that hold an Opaque, which then
// shows its name alone.
func saveLines(t *decoded) (lines []string, exact []bool) {
	for _, c := range t.Chains {
		policy := map[Verdict]string{VerdictAccept: "ACCEPT", VerdictDrop: "DROP", VerdictReturn: "-"}[c.Policy()]
		counter := c.Counter()
		if !c.Builtin {
			counter = netfilter.Counter{}
		}
		lines = append(lines, fmt.Sprintf(":%s %s [%d:%d]", c.Name, policy, counter.Packets, counter.Bytes))
		exact = append(exact, true)
	}
	for i := range t.Chains {
		for r := range t.Chains[i].Rules() {
			line, ok := saveRule(string(t.Chains[i].Name), r)
			lines, exact = append(lines, line), append(exact, ok)
		}
	}
	return lines, exact
}

func saveRule(chain string, r Rule) (line string, exact bool) {
	words := []string{fmt.Sprintf("[%d:%d] -A %s", r.Counter().Packets, r.Counter().Bytes, chain)}
	words = append(words, saveIP(r.IP())...)
	exact = true
	for x := range r.Matches() {
		m, err := x.DecodeMatch()
		if err != nil {
			return err.Error(), true
		}
		if _, ok := m.(Opaque); ok {
			exact = false
		}
		name := x.Name
		if c, ok := m.(Conntrack); ok && c.Flags&ConntrackStateAlias != 0 {
			name = "state"
		}
		words = append(words, "-m "+name)
		words = append(words, saveMatch(m)...)
	}
	a := r.Action()
	switch a.Kind {
	case Accept, Drop, Queue, Return:
		words = append(words, "-j", [...]string{Accept: "ACCEPT", Drop: "DROP", Queue: "QUEUE", Return: "RETURN"}[a.Kind])
	case Jump:
		words = append(words, "-j", string(a.Chain))
	case Goto:
		words = append(words, "-g", string(a.Chain))
	case RunExtension:
		target, err := a.Target.DecodeTarget()
		if err != nil {
			return err.Error(), true
		}
		if _, ok := target.(Opaque); ok {
			exact = false
		}
		words = append(words, "-j", a.Target.Name)
		words = append(words, saveTarget(target)...)
	}
	return strings.Join(words, " "), exact
}

func not(b bool) string {
	if b {
		return "! "
	}
	return ""
}

func saveAddress(a Address) string {
	if p, ok := a.Prefix(); ok {
		return p.String()
	}
	return a.Addr.String() + "/" + a.Mask.String()
}

func saveIP(ip IP) (w []string) {
	if !ip.Src.Any() {
		w = append(w, not(ip.Invert&InvSrc != 0)+"-s "+saveAddress(ip.Src))
	}
	if !ip.Dst.Any() {
		w = append(w, not(ip.Invert&InvDst != 0)+"-d "+saveAddress(ip.Dst))
	}
	if ip.In.Name != "" {
		w = append(w, not(ip.Invert&InvIn != 0)+"-i "+ip.In.Name)
	}
	if ip.Out.Name != "" {
		w = append(w, not(ip.Invert&InvOut != 0)+"-o "+ip.Out.Name)
	}
	if ip.HasProto {
		names := map[uint16]string{1: "icmp", 6: "tcp", 17: "udp", 58: "ipv6-icmp", 132: "sctp"}
		w = append(w, not(ip.Invert&InvProto != 0)+"-p "+names[ip.Proto])
	}
	if ip.Fragment {
		w = append(w, not(ip.Invert&InvFrag != 0)+"-f")
	}
	return w
}

func saveRange(option string, p PortRange, inverted bool) (w []string) {
	switch {
	case p.Any() && !inverted:
		return nil
	case p.First == p.Last:
		return []string{fmt.Sprintf("%s%s %d", not(inverted), option, p.First)}
	}
	return []string{fmt.Sprintf("%s%s %d:%d", not(inverted), option, p.First, p.Last)}
}

// saveBits names the bits of v, lowest first or in the order given.
func saveBits(v uint32, names ...string) string {
	var w []string
	for i, n := range names {
		if n != "" && v>>i&1 != 0 {
			w = append(w, n)
		}
	}
	if w == nil {
		return "NONE"
	}
	return strings.Join(w, ",")
}

func saveMark(value, mask uint32) string {
	if mask == ^uint32(0) {
		return fmt.Sprintf("%#x", value)
	}
	return fmt.Sprintf("%#x/0x%x", value, mask)
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

func quote(s string) string {
	if plainWord.MatchString(s) {
		return s
	}
	return `"` + s + `"`
}

func saveMatch(m Match) (w []string) {
	switch m := m.(type) {
	case Comment:
		return []string{"--comment", quote(m.Text)}
	case TCP:
		w = append(saveRange("--sport", m.Source, m.NotSource), saveRange("--dport", m.Dest, m.NotDest)...)
		if m.Option != 0 {
			w = append(w, fmt.Sprintf("%s--tcp-option %d", not(m.NotOption), m.Option))
		}
		if m.FlagsMask != 0 {
			names := []string{"FIN", "SYN", "RST", "PSH", "ACK", "URG"}
			w = append(w, not(m.NotFlags)+"--tcp-flags", saveBits(uint32(m.FlagsMask), names...), saveBits(uint32(m.Flags), names...))
		}
		return w
	case UDP:
		return append(saveRange("--sport", m.Source, m.NotSource), saveRange("--dport", m.Dest, m.NotDest)...)
	case SCTP:
		return append(saveRange("--sport", m.Source, m.NotSource), saveRange("--dport", m.Dest, m.NotDest)...)
	case AddrType:
		return saveAddrType(m)
	case Statistic:
		if m.Mode == StatisticNth {
			return []string{"--mode nth", not(m.Not) + fmt.Sprintf("--every %d --packet %d", m.Every+1, m.Packet)}
		}
		return []string{"--mode random", not(m.Not) + fmt.Sprintf("--probability %.11f", float64(m.Probability)/(1<<31))}
	case Mark:
		return []string{not(m.Not) + "--mark", saveMark(m.Value, m.Mask)}
	case Conntrack:
		return saveConntrack(m)
	case Recent:
		return saveRecent(m)
	case NFAcct:
		return []string{"--nfacct-name ", m.Object} // two blanks, in 1.8.9
	case Multiport:
		option := map[MultiportKind]string{MultiportSource: "--sports", MultiportDest: "--dports", MultiportEither: "--ports"}[m.Kind]
		var p []string
		for _, r := range m.Ports {
			p = append(p, strings.TrimPrefix(saveRange("", r, false)[0], " "))
		}
		return []string{not(m.Not) + option, strings.Join(p, ",")}
	case State:
		return []string{"--state", saveBits(m.Mask, "INVALID", "ESTABLISHED", "RELATED", "NEW", "", "", "UNTRACKED")}
	case Limit:
		return []string{saveLimit(m)}
	case Physdev:
		return savePhysdev(m)
	}
	return nil
}

func saveAddrType(m AddrType) (w []string) {
	names := []string{"UNSPEC", "UNICAST", "LOCAL", "BROADCAST", "ANYCAST", "MULTICAST"}
	if m.Source != 0 {
		w = append(w, not(m.NotSource)+"--src-type", saveBits(uint32(m.Source), names...))
	}
	if m.Dest != 0 {
		w = append(w, not(m.NotDest)+"--dst-type", saveBits(uint32(m.Dest), names...))
	}
	if m.Flags&4 != 0 {
		w = append(w, "--limit-iface-in")
	}
	return w
}

func saveConntrack(m Conntrack) (w []string) {
	on := func(bit uint16, text string) {
		if m.Flags&bit != 0 {
			w = append(w, not(m.Invert&bit != 0 && bit != ConntrackDirection)+text)
		}
	}
	if m.Flags&ConntrackStateAlias != 0 {
		return []string{
			not(m.Invert&ConntrackState != 0) + "--state",
			saveStates(uint32(m.States)),
		}
	}
	on(ConntrackState, "--ctstate "+saveStates(uint32(m.States)))
	on(ConntrackProto, fmt.Sprintf("--ctproto %d", m.Proto))
	on(ConntrackOrigSrc, "--ctorigsrc "+saveAddress(m.OrigSrc))
	on(ConntrackOrigDst, "--ctorigdst "+saveAddress(m.OrigDst))
	on(ConntrackOrigDPort, strings.Join(saveRange("--ctorigdstport", m.OrigDPort, false), ""))
	on(ConntrackStatus, "--ctstatus "+saveBits(uint32(m.Statuses), "EXPECTED", "SEEN_REPLY", "ASSURED", "CONFIRMED"))
	on(ConntrackExpires, fmt.Sprintf("--ctexpire %d:%d", m.ExpiresMin, m.ExpiresMax))
	if m.Flags&ConntrackDirection != 0 {
		w = append(w, "--ctdir "+map[bool]string{false: "ORIGINAL", true: "REPLY"}[m.Invert&ConntrackDirection != 0])
	}
	return w
}

// saveStates lists states in the order that iptables prints them.
func saveStates(mask uint32) string {
	var ordered uint32
	for i, bit := range []uint16{StateInvalid, StateNew, StateRelated, StateEstablished, StateUntracked, StateSNAT, StateDNAT} {
		if mask&uint32(bit) != 0 {
			ordered |= 1 << i
		}
	}
	if bits.OnesCount32(ordered) != bits.OnesCount32(mask) {
		return fmt.Sprintf("state bits %#x", mask)
	}
	return saveBits(ordered, "INVALID", "NEW", "RELATED", "ESTABLISHED", "UNTRACKED", "SNAT", "DNAT")
}

func saveRecent(m Recent) (w []string) {
	w = append(w, not(m.Not)+saveBits(uint32(m.Flags&15), "--rcheck", "--set", "--update", "--remove"))
	if m.Seconds != 0 {
		w = append(w, fmt.Sprintf("--seconds %d", m.Seconds))
	}
	if m.Flags&RecentReap != 0 {
		w = append(w, "--reap")
	}
	if m.HitCount != 0 {
		w = append(w, fmt.Sprintf("--hitcount %d", m.HitCount))
	}
	if m.Flags&RecentTTL != 0 {
		w = append(w, "--rttl")
	}
	w = append(w, "--name", m.List, "--mask", m.Mask.String())
	return append(w, map[bool]string{false: "--rsource", true: "--rdest"}[m.Dest])
}

func saveLimit(m Limit) string {
	units := []struct {
		name string
		size uint32
	}{{"day", 864000000}, {"hour", 36000000}, {"min", 600000}, {"sec", 10000}}
	unit := units[0]
	for _, next := range units[1:] {
		if m.Average > next.size || next.size/m.Average < next.size%m.Average {
			break
		}
		unit = next
	}
	s := fmt.Sprintf("--limit %d/%s", unit.size/m.Average, unit.name)
	if m.Burst != 5 {
		s += fmt.Sprintf(" --limit-burst %d", m.Burst)
	}
	return s
}

func savePhysdev(m Physdev) (w []string) {
	if m.Bitmask&8 != 0 {
		w = append(w, not(m.Invert&8 != 0)+"--physdev-is-in")
	}
	if m.Bitmask&1 != 0 {
		w = append(w, not(m.Invert&1 != 0)+"--physdev-in "+m.In.Name)
	}
	if m.Bitmask&4 != 0 {
		w = append(w, not(m.Invert&4 != 0)+"--physdev-is-bridged")
	}
	return w
}

func saveTarget(t Target) (w []string) {
	switch t := t.(type) {
	case DNAT:
		return saveNAT("--to-destination", t.NATRange)
	case SNAT:
		return saveNAT("--to-source", t.NATRange)
	case Masquerade:
		return saveNAT("--to-ports", t.NATRange)
	case Redirect:
		return saveNAT("--to-ports", t.NATRange)
	case SetMark:
		return []string{"--set-xmark", fmt.Sprintf("%#x/0x%x", t.Value, t.Mask)}
	case Reject:
		return []string{"--reject-with", t.Name}
	case NFLOG:
		w = append(w, "--nflog-prefix", quote(t.Prefix))
		if t.Group != 0 {
			w = append(w, fmt.Sprintf("--nflog-group %d", t.Group))
		}
		if t.Threshold != 0 {
			w = append(w, fmt.Sprintf("--nflog-threshold %d", t.Threshold))
		}
		return w
	case LOG:
		w = []string{"--log-prefix", quote(t.Prefix)}
		if t.Level != 4 {
			w = append(w, fmt.Sprintf("--log-level %d", t.Level))
		}
		return w
	}
	return nil
}

func saveNAT(option string, r NATRange) (w []string) {
	var to string
	if r.Flags&NATMapIPs != 0 {
		to = r.MinAddr.String()
		if r.MinAddr != r.MaxAddr {
			to += "-" + r.MaxAddr.String()
		}
	}
	if r.Flags&NATProtoSpecified != 0 {
		ports := fmt.Sprint(r.MinPort)
		if r.MinPort != r.MaxPort {
			ports += fmt.Sprintf("-%d", r.MaxPort)
		}
		switch {
		case to == "":
			to = ports
		case r.MinAddr.Is6():
			to = "[" + to + "]:" + ports
		default:
			to += ":" + ports
		}
		if r.First() != netip.AddrPortFrom(r.MinAddr, r.MinPort) && r.Flags&NATMapIPs != 0 {
			to += " First is wrong"
		}
	}
	if to != "" {
		w = append(w, option, to)
	}
	for _, o := range []struct {
		bit  uint32
		text string
	}{{NATProtoRandom, "--random"}, {NATRandomFully, "--random-fully"}, {NATPersistent, "--persistent"}} {
		if r.Flags&o.bit != 0 {
			w = append(w, o.text)
		}
	}
	return w
}
