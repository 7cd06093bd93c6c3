// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strings"

	"github.com/svcscope/svcscope/pkg/netfilter/xtables"
)

// target converts a target of x_tables, legacy or in a compat expression.
func (c *Converter) target(x xtables.Extension) Action {
	t, err := x.DecodeTarget()
	if err != nil {
		return c.unknownTarget(x)
	}
	switch t := t.(type) {
	case xtables.DNAT:
		return c.nat(DNAT, "--to-destination ", t.NATRange)
	case xtables.SNAT:
		return c.nat(SNAT, "--to-source ", t.NATRange)
	case xtables.Masquerade:
		return c.masquerade(t.NATRange)
	case xtables.Redirect:
		a := c.masquerade(t.NATRange)
		return Action{Kind: OtherKind, More: &Details{Name: "REDIRECT", Args: a.Details().Args}}
	case xtables.SetMark:
		return Action{Kind: SetMark, Value: t.Value, Mask: t.Mask}
	case xtables.Reject:
		if t.Name == "" {
			return Action{Kind: Reject, More: &Details{With: itoa(uint64(t.With))}}
		}
		return Action{Kind: Reject, More: &Details{With: t.Name}}
	case xtables.NFLOG:
		const copyLen = 1 // XT_NFLOG_F_COPY_LEN
		size := uint32(0)
		if t.Flags&copyLen != 0 {
			size = t.Length
		}
		return c.nflog(t.Group, t.Prefix, size, t.Threshold)
	case xtables.LOG:
		return c.syslog(t.Prefix, t.Level, t.Flags)
	}
	return c.unknownTarget(x)
}

// unknownTarget is a target that is kept by its name, and counted, but for two
// that are known without a structure: TRACE, and CT where all it does is to
// keep a packet from conntrack (struct xt_ct_target_info, xt_CT.h: flags are
// XT_CT_NOTRACK 1, and XT_CT_NOTRACK_ALIAS 2 for the name NOTRACK).
func (c *Converter) unknownTarget(x xtables.Extension) Action {
	switch {
	case x.Name == "TRACE":
		return Action{Kind: OtherKind, More: &Details{Name: "TRACE"}}
	case x.Name == "CT" && len(x.Data) > 1 && binary.NativeEndian.Uint16(x.Data) == 1:
		return Action{Kind: OtherKind, More: &Details{Name: "CT", Args: "--notrack"}}
	case x.Name == "CT" && len(x.Data) > 1 && binary.NativeEndian.Uint16(x.Data) == 3:
		return Action{Kind: OtherKind, More: &Details{Name: "NOTRACK"}}
	}
	c.undecoded["target/"+x.Name]++
	a := Action{Kind: OtherKind, More: &Details{Name: c.name(x.Name)}}
	if len(x.Data) > 0 {
		a.More.Args = "[rev " + itoa(uint64(x.Revision)) + " unsupported: " + hex.EncodeToString(x.Data) + "]"
	}
	return a
}

func (c *Converter) nat(kind ActionKind, option string, r xtables.NATRange) Action {
	a, d := Action{Kind: kind}, Details{To: r.First()}
	last := netip.AddrPortFrom(r.MaxAddr, 0)
	if r.Flags&xtables.NATMapIPs == 0 {
		last = netip.AddrPort{}
	}
	if r.Flags&xtables.NATProtoSpecified != 0 {
		last = netip.AddrPortFrom(last.Addr(), r.MaxPort)
	}
	text, isRange := natRange(d.To, last)
	flags := natFlags(r.Flags)
	if isRange || flags != "" {
		d.Args = c.name(option + text + flags)
	}
	a.SetDetails(d)
	return a
}

func natFlags(f uint32) string {
	s := ""
	if f&xtables.NATProtoRandom != 0 {
		s += " --random"
	}
	if f&xtables.NATRandomFully != 0 {
		s += " --random-fully"
	}
	if f&xtables.NATPersistent != 0 {
		s += " --persistent"
	}
	return s
}

func (c *Converter) masquerade(r xtables.NATRange) Action {
	a := Action{Kind: Masquerade, Random: r.Flags&xtables.NATRandomFully != 0}
	if r.Flags == 0 || r.Flags == xtables.NATRandomFully {
		return a
	}
	args := natFlags(r.Flags)
	if r.Flags&xtables.NATProtoSpecified != 0 {
		ports := itoa(uint64(r.MinPort))
		if r.MaxPort != r.MinPort {
			ports += "-" + itoa(uint64(r.MaxPort))
		}
		args = " --to-ports " + ports + args
	}
	if args != "" {
		a.More = &Details{Args: c.name(args[1:])}
	}
	return a
}

// nflog is the target NFLOG and nf_tables' log to a group; size is how many
// bytes to copy, 0 for the reader's choice.
func (c *Converter) nflog(group uint16, prefix string, size uint32, threshold uint16) Action {
	a := Action{Kind: Log, Group: group, More: &Details{Name: "NFLOG", Prefix: c.name(prefix)}}
	if size == 0 && threshold <= 1 {
		return a
	}
	// extensions/libxt_NFLOG.c, nflog_print.
	var args []string
	if prefix != "" {
		args = append(args, "--nflog-prefix "+quote(prefix))
	}
	if group != 0 {
		args = append(args, "--nflog-group "+itoa(uint64(group)))
	}
	if size != 0 {
		args = append(args, "--nflog-size "+itoa(uint64(size)))
	}
	if threshold > 1 {
		args = append(args, "--nflog-threshold "+itoa(uint64(threshold)))
	}
	a.More.Args = c.name(strings.Join(args, " "))
	return a
}

// syslog is the target LOG, extensions/libxt_LOG.c.
func (c *Converter) syslog(prefix string, level, flags uint8) Action {
	const warning = 4
	a := Action{Kind: Log, More: &Details{Name: "LOG", Prefix: c.name(prefix)}}
	var args []string
	if prefix != "" {
		args = append(args, "--log-prefix "+quote(prefix))
	}
	if level != warning {
		args = append(args, "--log-level "+itoa(uint64(level)))
	}
	for _, f := range [...]bit{{1, "sequence"}, {2, "options"}, {4, "ip-options"}, {8, "uid"}, {32, "macdecode"}} {
		name := f.name
		switch f.mask {
		case 1, 2:
			name = "tcp-" + name
		}
		if uint32(flags)&f.mask != 0 {
			args = append(args, "--log-"+name)
		}
	}
	a.More.Args = c.name(strings.Join(args, " "))
	return a
}
