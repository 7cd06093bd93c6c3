// SPDX-License-Identifier: Apache-2.0

// Package nfacct decodes the counter objects of nfnetlink_acct
// (include/uapi/linux/netfilter/nfnetlink_acct.h). Rules of iptables add to such an
// object with "-m nfacct"; it stays when they are rewritten:
//
//	o, err := nfacct.Decode(message.Payload)
//	fmt.Println(o.Name, o.Packets)
//
// It opens nothing.
package nfacct

import (
	"fmt"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// enum nfnl_acct_type
const (
	attrName    = 1 // NFACCT_NAME
	attrPackets = 2 // NFACCT_PKTS
	attrBytes   = 3 // NFACCT_BYTES
)

// Object is one counter object of a network namespace.
type Object struct {
	Name string // at most 31 bytes (NFACCT_NAME_MAX)
	// Counter is what it has counted since it was made, or since somebody set it back.
	netfilter.Counter
}

// Decode decodes the payload of one message of a dump of NFNL_MSG_ACCT_GET.
// Attributes that it has no use for, such as a quota, are left out.
func Decode(b []byte) (Object, error) {
	_, attrs, err := netfilter.DecodeGenMsg(b)
	if err != nil {
		return Object{}, fmt.Errorf("nfacct object: %w", err)
	}
	var o Object
	a := nlattr.Attrs(attrs)
	for a.Next() {
		switch a.Type() {
		case attrName:
			o.Name = a.String()
		case attrPackets:
			o.Packets = a.Uint64("NFACCT_PKTS")
		case attrBytes:
			o.Bytes = a.Uint64("NFACCT_BYTES")
		}
	}
	a.Require(attrName, "NFACCT_NAME")
	a.Require(attrPackets, "NFACCT_PKTS")
	a.Require(attrBytes, "NFACCT_BYTES")
	if err := a.Err(); err != nil {
		return Object{}, fmt.Errorf("nfacct object %q: %w", o.Name, err)
	}
	return o, nil
}
