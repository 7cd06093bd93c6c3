// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// setCount is NFTA_SET_COUNT, the number of a set's elements, which Linux 6.17
// and later tell with the set (include/uapi/linux/netfilter/nf_tables.h).
const setCount = 20

// sized is a set whose elements are read.
type sized struct {
	family      netfilter.Family
	table, name string
}

// Size counts the rules, jumps to chains once more, and the set elements of all
// tables of all families, of nft's own as of iptables'. It stops to count when
// both together are above limit: they are then more, and at least so many.
//
// Rules are counted by the use of chains, one dump of these. Elements are told
// with the sets by Linux 6.17 and later; elsewhere each set's are dumped. Its
// errors are those of Try.
func (n *NFTables) Size(ctx context.Context, limit int) (rules, elements int, err error) {
	err = n.Try(ctx, func(ctx context.Context, a *Attempt) error {
		rules, elements = 0, 0
		err := a.dump(ctx, request{typ: getChain}, func(b []byte) {
			if c, err := nftables.DecodeChain(b); err == nil {
				rules += int(c.Use)
			}
		})
		if err != nil || rules > limit {
			return err
		}
		elements, err = a.elements(ctx, limit-rules)
		return err
	})
	return rules, elements, err
}

// elements counts those of all sets, until they are above limit.
func (a *Attempt) elements(ctx context.Context, limit int) (total int, err error) {
	var uncounted []sized
	err = a.dump(ctx, request{typ: getSet}, func(b []byte) {
		s, n, told := decodeSize(b)
		if total += n; !told {
			uncounted = append(uncounted, s)
		}
	})
	for _, s := range uncounted {
		if err != nil || total > limit {
			break
		}
		var n int
		n, err = a.count(ctx, s, limit-total)
		total += n
	}
	return total, err
}

// decodeSize returns of which set a message is, and how many elements it has if
// the kernel tells.
func decodeSize(b []byte) (s sized, elements int, told bool) {
	h, attrs, err := netfilter.DecodeGenMsg(b)
	if err != nil {
		return s, 0, true
	}
	s.family = h.Family
	it := nlattr.Attrs(attrs)
	for it.Next() {
		switch it.Type() {
		case unix.NFTA_SET_TABLE:
			s.table = it.String()
		case unix.NFTA_SET_NAME:
			s.name = it.String()
		case setCount:
			elements, told = int(it.Uint32("NFTA_SET_COUNT")), true
		}
	}
	return s, elements, told
}

// count counts the elements of one set, and gives up above limit.
func (a *Attempt) count(ctx context.Context, s sized, limit int) (elements int, err error) {
	attrs := nlattr.AppendString(nil, unix.NFTA_SET_ELEM_LIST_TABLE, s.table)
	attrs = nlattr.AppendString(attrs, unix.NFTA_SET_ELEM_LIST_SET, s.name)
	within, enough := context.WithCancel(ctx)
	defer enough()
	err = a.dump(within, request{typ: getSetElem, family: s.family, attrs: attrs}, func(b []byte) {
		elements += countElements(b)
		if elements > limit {
			enough()
		}
	})
	if elements > limit && errors.Is(err, context.Canceled) && ctx.Err() == nil {
		return elements, nil
	}
	if err != nil {
		return elements, fmt.Errorf("elements of set %s of table %s: %w", s.name, s.table, err)
	}
	return elements, nil
}

// countElements counts the elements in one message.
func countElements(b []byte) (n int) {
	_, attrs, err := netfilter.DecodeGenMsg(b)
	if err != nil {
		return 0
	}
	for it := nlattr.Attrs(attrs); it.Next(); {
		if it.Type() != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		for e := nlattr.Attrs(it.Bytes()); e.Next(); {
			n++
		}
	}
	return n
}
