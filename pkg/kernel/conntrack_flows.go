// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/netfilter/conntrack"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// FlowFilter says which entries a dump is to have; the zero value is all.
type FlowFilter struct {
	// DstNAT leaves out what has no destination NAT. The kernel does it where
	// it can (Linux 5.15), and else the reader.
	DstNAT bool
}

// FlowDump is what one dump had.
type FlowDump struct {
	Entries   uint64 // given to visit
	Undecoded uint64 // left out: their message has another form than it should
	// UndecodedErr is why, of the first; nil where there is none.
	UndecodedErr error
	// Filtered is true where the kernel left out what the filter does not want.
	Filtered bool
}

// dumpTime is how long a dump of all entries may take: 1.75 s for a million of them.
const dumpTime = 2 * time.Minute

// Flows reads the table of both families, entry by entry, and calls visit with
// each; the value is valid during the call. Nothing is kept, so that the memory
// does not depend on the table's size. The kernel locks one bucket after the
// other: an entry made meanwhile may be missing, and where the table is resized,
// or the entry is gone at which a part of the answer ended, some may be missing or come twice. One that cannot be decoded is counted and left out.
//
// Errors: *CapabilityError without CAP_NET_ADMIN, ErrAbsent where there is no
// ctnetlink or its module is not loaded, ErrInterrupted and ErrOverrun where the
// dump is not whole; what visit saw by then is not the table.
func (c *Conntrack) Flows(ctx context.Context, filter FlowFilter, visit func(*conntrack.Flow)) (FlowDump, error) {
	const op = "read conntrack entries"
	if c.modules.loadable(ctnetlinkModule) {
		return FlowDump{}, fmt.Errorf("%s: %w: its module is not loaded", op, ErrAbsent)
	}
	ctx, cancel := c.flows.limit(ctx)
	defer cancel()
	var dump FlowDump
	var f conntrack.Flow
	err := c.flows.exchange(ctx, request{typ: getFlows, dump: true, attrs: filter.attrs()}, func(m *nlattr.Message) error {
		dump.Filtered = dump.Filtered || m.Flags&nlattr.FlagDumpFiltered != 0
		if err := f.Decode(m.Payload); err != nil {
			if dump.Undecoded++; dump.Undecoded == 1 {
				dump.UndecodedErr = err
			}
			return nil
		}
		// Kernels that do not know a filter's attribute give all entries.
		if !filter.DstNAT || f.Status.Has(conntrack.DstNAT) {
			dump.Entries++
			visit(&f)
		}
		return nil
	})
	if errors.Is(err, ErrInterrupted) || errors.Is(err, ErrOverrun) {
		c.interrupted.Add(1)
	}
	if errors.Is(err, unix.EINVAL) { // nfnetlink_rcv_msg: no such subsystem
		err = fmt.Errorf("%w: %w", ErrAbsent, err)
	}
	return dump, meaning(op, err)
}

// attrs are the filter's in the request.
func (f FlowFilter) attrs() []byte {
	if !f.DstNAT {
		return nil
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(conntrack.DstNAT))
	const ctaStatus, ctaStatusMask = 3, 26
	return nlattr.Append(nlattr.Append(nil, ctaStatus, b), ctaStatusMask, b)
}

// FlowStats returns what dumps of entries have received since the reader was
// opened.
func (c *Conntrack) FlowStats() ReadStats {
	return ReadStats{Bytes: c.flows.bytes.Load(), Messages: c.flows.messages.Load(), Interrupted: c.interrupted.Load()}
}
