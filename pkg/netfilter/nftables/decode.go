// SPDX-License-Identifier: Apache-2.0

package nftables

import (
	"fmt"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// DecodeGen decodes the payload of an NFT_MSG_NEWGEN message.
func DecodeGen(b []byte) (Gen, error) {
	_, attrs, err := netfilter.DecodeGenMsg(b)
	if err != nil {
		return Gen{}, fmt.Errorf("generation: %w", err)
	}
	var g Gen
	a := nlattr.Attrs(attrs)
	for a.Next() {
		switch a.Type() {
		case attrGenID:
			g.ID = a.Uint32("NFTA_GEN_ID")
		case attrGenProcPID:
			g.ProcPID = a.Uint32("NFTA_GEN_PROC_PID")
		case attrGenProcName:
			g.ProcName = a.String()
		}
	}
	a.Require(attrGenID, "NFTA_GEN_ID")
	if err := a.Err(); err != nil {
		return Gen{}, fmt.Errorf("generation: %w", err)
	}
	return g, nil
}

// DecodeTable decodes the payload of an NFT_MSG_NEWTABLE message.
func DecodeTable(b []byte) (Table, error) {
	h, attrs, err := netfilter.DecodeGenMsg(b)
	if err != nil {
		return Table{}, fmt.Errorf("table: %w", err)
	}
	t := Table{Family: h.Family}
	a := nlattr.Attrs(attrs)
	for a.Next() {
		switch a.Type() {
		case attrTableName:
			t.Name = a.String()
		case attrTableFlags:
			t.Flags = TableFlags(a.Uint32("NFTA_TABLE_FLAGS"))
		case attrTableUse:
			t.Use = a.Uint32("NFTA_TABLE_USE")
		case attrTableHandle:
			t.Handle = a.Uint64("NFTA_TABLE_HANDLE")
		case attrTableUserdata:
			t.Comment = comment(a.Bytes(), 0)
		case attrTableOwner:
			t.Owner = a.Uint32("NFTA_TABLE_OWNER")
		}
	}
	a.Require(attrTableName, "NFTA_TABLE_NAME")
	if err := a.Err(); err != nil {
		return Table{}, fmt.Errorf("table: %w", err)
	}
	return t, nil
}

// DecodeChain decodes the payload of an NFT_MSG_NEWCHAIN message.
func DecodeChain(b []byte) (Chain, error) {
	var c Chain
	err := c.Decode(b)
	return c, err
}

// Decode is DecodeChain into c, whose name's memory it uses again where it is
// the same. After an error c is the zero value.
func (c *Chain) Decode(b []byte) error {
	name := c.Name
	*c = Chain{}
	h, attrs, err := netfilter.DecodeGenMsg(b)
	if err != nil {
		return fmt.Errorf("chain: %w", err)
	}
	c.Family = h.Family
	a := nlattr.Attrs(attrs)
	for a.Next() {
		switch a.Type() {
		case attrChainTable:
			c.Table = tableName(a.Text())
		case attrChainHandle:
			c.Handle = a.Uint64("NFTA_CHAIN_HANDLE")
		case attrChainName:
			if c.Name = name; string(a.Text()) != name {
				c.Name = a.String()
			}
		case attrChainUse:
			c.Use = a.Uint32("NFTA_CHAIN_USE")
		case attrChainFlags:
			c.Flags = ChainFlags(a.Uint32("NFTA_CHAIN_FLAGS"))
		case attrChainUserdata:
			c.Comment = comment(a.Bytes(), 0)
		}
	}
	a.Require(attrChainTable, "NFTA_CHAIN_TABLE")
	a.Require(attrChainName, "NFTA_CHAIN_NAME")
	if a.Seen(attrChainHook) {
		a.Fail(decodeBase(attrs, c))
	}
	if err := a.Err(); err != nil {
		name, *c = c.Name, Chain{}
		return fmt.Errorf("chain %s: %w", name, err)
	}
	return nil
}

// tableName is a table's name; those that iptables gives take no memory, as
// every one of many chains has it.
func tableName(b []byte) string {
	for _, name := range [...]string{"nat", "filter", "mangle", "raw", "security"} {
		if string(b) == name {
			return name
		}
	}
	return string(b)
}

// decodeBase fills c.Base from the attributes of a chain that has a hook.
func decodeBase(attrs []byte, c *Chain) error {
	base := &Base{}
	a := nlattr.Attrs(attrs)
	for a.Next() {
		switch a.Type() {
		case attrChainHook:
			a.Fail(decodeHook(a.Nested(), base))
		case attrChainPolicy:
			base.Policy = Code(a.Uint32("NFTA_CHAIN_POLICY"))
		case attrChainType:
			base.Type = a.String()
		case attrChainCounters:
			n, err := decodeCounter(a.Nested())
			base.Counter = (*netfilter.Counter)(&n)
			a.Fail(err)
		}
	}
	if a.Err() != nil {
		return a.Err()
	}
	c.Base = base
	return nil
}

func decodeHook(a nlattr.Iter, base *Base) error {
	for a.Next() {
		switch a.Type() {
		case attrHookNum:
			n := a.Uint32("NFTA_HOOK_HOOKNUM")
			if n > 255 {
				return &nlattr.Error{Attr: "NFTA_HOOK_HOOKNUM above 255", Len: 4, Want: 4}
			}
			base.Hook = netfilter.Hook(n)
		case attrHookPriority:
			base.Priority = int32(a.Uint32("NFTA_HOOK_PRIORITY"))
		case attrHookDev:
			base.Devices = append(base.Devices, a.String())
		case attrHookDevs:
			devs := a.Nested()
			for devs.Next() {
				if devs.Type() == attrDeviceName {
					base.Devices = append(base.Devices, devs.String())
				}
			}
			a.Fail(devs.Err())
		}
	}
	a.Require(attrHookNum, "NFTA_HOOK_HOOKNUM")
	a.Require(attrHookPriority, "NFTA_HOOK_PRIORITY")
	return a.Err()
}

// comment finds a comment in the user data of an object: a run of struct
// nftnl_udata {u8 type, u8 len, value}, libnftnl udata.h. The type of the
// comment is 0 for tables, chains, rules and elements, 7 for sets. User data
// are user space's own, so bytes of another shape are no comment, not an
// error.
func comment(b []byte, typ uint8) string {
	for len(b) >= 2 {
		n := int(b[1])
		if len(b) < 2+n {
			return ""
		}
		if b[0] == typ {
			v := b[2 : 2+n]
			for len(v) > 0 && v[len(v)-1] == 0 {
				v = v[:len(v)-1]
			}
			return string(v)
		}
		b = b[2+n:]
	}
	return ""
}
