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

// Sets reads the sets and maps of a table, without their elements; those without a name
// of their own (__set0, __map0), too.
func (a *Attempt) Sets(ctx context.Context, family netfilter.Family, table string, visit func(*nftables.Set)) error {
	attrs := nlattr.AppendString(nil, unix.NFTA_SET_TABLE, table)
	err := a.dump(ctx, request{typ: getSet, family: family, attrs: attrs}, func(b []byte) {
		s, err := nftables.DecodeSet(b)
		if a.decoded(message{"set", table, "", family}, err) {
			visit(&s)
		}
	})
	if err = ofThisState(err); err != nil {
		return fmt.Errorf("sets of table %s: %w", table, err)
	}
	return nil
}

// Elements reads the elements of a set or map, of which it needs family, table and name,
// and hands on what each message has of them: valid during the call only. Where visit
// returns false the rest is left out.
//
// The kernel finds a set by its name in a list of all of the table's, so that to read
// those of all costs it the square of their number: a set that does not change
// (nftables.SetConstant) is read once.
func (a *Attempt) Elements(ctx context.Context, s *nftables.Set, visit func(*nftables.Elements) bool) error {
	attrs := nlattr.AppendString(nil, unix.NFTA_SET_ELEM_LIST_TABLE, s.Table)
	attrs = nlattr.AppendString(attrs, unix.NFTA_SET_ELEM_LIST_SET, s.Name)
	within, enough := context.WithCancel(ctx)
	defer enough()
	more := true
	err := a.dump(within, request{typ: getSetElem, family: s.Family, attrs: attrs}, func(b []byte) {
		es, err := nftables.DecodeElements(b)
		if !a.decoded(message{"element", s.Table, "", s.Family}, err) || !more {
			return
		}
		if more = visit(&es); !more {
			enough()
		}
	})
	if !more && errors.Is(err, context.Canceled) && ctx.Err() == nil {
		err = nil
	}
	if err = ofThisState(err); err != nil {
		return fmt.Errorf("elements of set %s of table %s: %w", s.Name, s.Table, err)
	}
	return nil
}

// ofThisState says what it means that an object which was there is not: a commit has
// taken it away.
func ofThisState(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return ErrInterrupted
	}
	return err
}
