// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"
)

// not is iptables' sign of inversion, which goes before the option.
func not(v bool) string {
	if v {
		return "! "
	}
	return ""
}

// String is "-p tcp"; a protocol that iptables-save does not name is a number.
func (m Protocol) String() string { return not(m.Not) + "-p " + protocolName(m.Number) }

// protocolName is the name that iptables-save prints; it looks only a few up.
func protocolName(n uint8) string {
	switch n {
	case 1:
		return "icmp"
	case 6:
		return "tcp"
	case 17:
		return "udp"
	case 50:
		return "esp"
	case 51:
		return "ah"
	case 58:
		return "ipv6-icmp"
	case 132:
		return "sctp"
	case 136:
		return "udplite"
	}
	return strconv.Itoa(int(n))
}

// String is "-s 10.0.0.0/8".
func (m Source) String() string { return not(m.Not) + "-s " + m.Prefix.String() }

// String is "-d 10.0.0.0/8".
func (m Destination) String() string { return not(m.Not) + "-d " + m.Prefix.String() }

// String is "-i eth0", or "-i eth+" for a prefix.
func (m InInterface) String() string { return not(m.Not) + "-i " + m.Name }

// String is "-o eth0", or "-o eth+" for a prefix.
func (m OutInterface) String() string { return not(m.Not) + "-o " + m.Name }

// String is "-f".
func (m Fragment) String() string { return not(m.Not) + "-f" }

// String is "-m tcp", a module without options.
func (m Module) String() string { return "-m " + m.Name }

// String quotes the text where a shell would need it.
func (m Comment) String() string { return "-m comment --comment " + quote(m.Text) }

// String leaves the module out: it is the protocol's, which the rule knows.
func (m SourcePort) String() string {
	return not(m.Not) + "--sport " + PortRange{m.First, m.Last}.String()
}

// String leaves the module out: it is the protocol's, which the rule knows.
func (m DestinationPort) String() string {
	return not(m.Not) + "--dport " + PortRange{m.First, m.Last}.String()
}

// String is "80" or "80:90".
func (r PortRange) String() string {
	s := strconv.Itoa(int(r.First))
	if r.First == r.Last {
		return s
	}
	return s + ":" + strconv.Itoa(int(r.Last))
}

// String leaves "-m tcp" out, which the ports of the same rule share.
func (m TCPFlags) String() string {
	return not(m.Not) + "--tcp-flags " + tcpFlagNames(m.Mask) + " " + tcpFlagNames(m.Value)
}

// String leaves "-m tcp" out, which the ports of the same rule share.
func (m TCPOption) String() string {
	return not(m.Not) + "--tcp-option " + strconv.Itoa(int(m.Number))
}

func tcpFlagNames(bits uint8) string {
	if bits == 0 {
		return "NONE"
	}
	return joinBits(uint32(bits), []bit{{1, "FIN"}, {2, "SYN"}, {4, "RST"}, {8, "PSH"}, {16, "ACK"}, {32, "URG"}})
}

// bit is one named bit of a mask.
type bit struct {
	mask uint32
	name string
}

// joinBits names the bits that are set, in the order of names.
func joinBits(v uint32, names []bit) string {
	var b strings.Builder
	for _, n := range names {
		if v&n.mask == 0 {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(n.name)
	}
	return b.String()
}

// String is "-m addrtype --dst-type LOCAL", with as many types and options as are set.
func (m AddrType) String() string {
	s := "-m addrtype"
	if m.Source != 0 {
		s += " " + not(m.NotSource) + "--src-type " + addrTypeNames(m.Source)
	}
	if m.Dest != 0 {
		s += " " + not(m.NotDest) + "--dst-type " + addrTypeNames(m.Dest)
	}
	if m.Flags&4 != 0 {
		s += " --limit-iface-in"
	}
	if m.Flags&8 != 0 {
		s += " --limit-iface-out"
	}
	return s
}

func addrTypeNames(bits uint16) string {
	return joinBits(uint32(bits), []bit{
		{1, "UNSPEC"},
		{2, "UNICAST"},
		{4, "LOCAL"},
		{8, "BROADCAST"},
		{16, "ANYCAST"},
		{32, "MULTICAST"},
		{64, "BLACKHOLE"},
		{128, "UNREACHABLE"},
		{256, "PROHIBIT"},
		{512, "THROW"},
		{1024, "NAT"},
		{2048, "XRESOLVE"},
	})
}

// String speaks of the module state where the rule does.
func (m ConntrackState) String() string {
	if m.Alias {
		return "-m state " + not(m.Not) + "--state " + joinBits(uint32(m.Mask), ctStates())
	}
	return "-m conntrack " + not(m.Not) + "--ctstate " + joinBits(uint32(m.Mask), ctStates())
}

// ctStates is in the order in which iptables-save prints them.
func ctStates() []bit {
	return []bit{
		{1, "INVALID"},
		{8, "NEW"},
		{4, "RELATED"},
		{2, "ESTABLISHED"},
		{0x100, "UNTRACKED"},
		{0x40, "SNAT"},
		{0x80, "DNAT"},
	}
}

// String has the probability with the eleven digits of iptables-save.
func (r Random) String() string {
	p := strconv.FormatFloat(float64(r.Threshold)/(1<<31), 'f', 11, 64)
	return "-m statistic --mode random " + not(r.Not) + "--probability " + p
}

// String is "-m statistic --mode nth --every 3 --packet 0".
func (m Nth) String() string {
	return "-m statistic --mode nth " + not(m.Not) + "--every " + strconv.FormatUint(uint64(m.Every), 10) +
		" --packet " + strconv.FormatUint(uint64(m.Packet), 10)
}

// String leaves a mask of all ones out.
func (m Mark) String() string {
	s := "-m mark " + not(m.Not) + "--mark " + hex32(m.Value)
	if m.Mask != 1<<32-1 {
		s += "/" + hex32(m.Mask)
	}
	return s
}

func hex32(v uint32) string { return "0x" + strconv.FormatUint(uint64(v), 16) }

// String leaves --mask out where it is all ones, though iptables-save prints
// it: the family that would tell its length is not in the match. Rule.Spec
// adds it.
func (m Recent) String() string { return m.text(netip.Addr{}) }

// text is the match with full as its mask where it has none of its own.
func (m Recent) text(full netip.Addr) string {
	s := "-m recent " + not(m.Not)
	switch {
	case m.Set:
		s += "--set"
	case m.Update:
		s += "--update"
	case m.Remove:
		s += "--remove"
	default:
		s += "--rcheck"
	}
	if m.Seconds != 0 {
		s += " --seconds " + strconv.FormatUint(uint64(m.Seconds), 10)
	}
	if m.Reap {
		s += " --reap"
	}
	if m.HitCount != 0 {
		s += " --hitcount " + strconv.FormatUint(uint64(m.HitCount), 10)
	}
	if m.TTL {
		s += " --rttl"
	}
	if m.List != "" {
		s += " --name " + m.List
	}
	if m.Mask.IsValid() {
		full = m.Mask
	}
	if full.IsValid() {
		s += " --mask " + full.String()
	}
	if m.Dest {
		return s + " --rdest"
	}
	return s + " --rsource"
}

// String has the two spaces that iptables-save prints.
func (m NFAcct) String() string { return "-m nfacct --nfacct-name  " + quote(m.Object) }

// String is "-m multiport --dports 80,443", or --sports, or --ports for both.
func (m Multiport) String() string {
	s := "-m multiport " + not(m.Not)
	switch {
	case m.Source && m.Dest:
		s += "--ports "
	case m.Source:
		s += "--sports "
	default:
		s += "--dports "
	}
	ports := make([]string, len(m.Ports))
	for i, p := range m.Ports {
		ports[i] = p.String()
	}
	return s + strings.Join(ports, ",")
}

// String is "-m limit" with the text.
func (m Limit) String() string { return "-m limit " + m.Text }

// String is nft's words: iptables has none for it.
func (m NetworkProtocol) String() string {
	return not(m.Not) + "meta nfproto " + strings.ToLower(m.Family.String())
}

// String is nft's words: "ip daddr @cluster-ips".
func (m InSet) String() string {
	if m.Not {
		return m.Key + " != @" + m.Set
	}
	return m.Key + " @" + m.Set
}

// String is nft's words: "update @clients { ip saddr }".
func (m SetUpdate) String() string {
	verb := "add"
	switch {
	case m.Update:
		verb = "update"
	case m.Delete:
		verb = "delete"
	}
	return verb + " @" + m.Set + " { " + m.Key + " }"
}

// String is that of the action.
func (m Also) String() string { return m.Action.String() }

// String is the text of a rule that came as text, else the bytes that have no decoder.
func (u Unknown) String() string {
	if u.Text != "" {
		return u.Text
	}
	s := "-m " + u.Name
	if len(u.Data) > 0 {
		s += " [rev " + strconv.Itoa(int(u.Revision)) + " unsupported: " + hex.EncodeToString(u.Data) + "]"
	}
	return s
}

// quote is iptables' xtables_save_string: plain words as they are, everything
// else in double quotes with a backslash before " ' and \.
func quote(s string) string {
	plain := s != ""
	for i := 0; i < len(s) && plain; i++ {
		c := s[i]
		plain = c == '_' || c == '-' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
	}
	if plain {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < len(s); i++ {
		if c := s[i]; c == '"' || c == '\'' || c == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	b.WriteByte('"')
	return b.String()
}
