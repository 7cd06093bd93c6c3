// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nfacct"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// NFAcct reads the counter objects of nfnetlink_acct in the network namespace that
// it was opened in. Its methods may be called from several goroutines.
type NFAcct struct {
	modules *modules
	conn    conn
}

// OpenNFAcct opens the reader. It opens no socket before Objects needs one, and
// never fails.
func OpenNFAcct() *NFAcct { return &NFAcct{modules: running, conn: conn{dial: dialNetfilter}} }

// Close closes the socket.
func (r *NFAcct) Close() error { return r.conn.close() }

// Objects reads all objects, and sets none back, by name, in one
// exchange. It returns a *CapabilityError without CAP_NET_ADMIN, and an error
// that wraps ErrAbsent where the kernel has no nfnetlink_acct or its module is not
// loaded; no rule counts in an object there. An object is made and deleted while
// others are read: a dump is not of one state.
func (r *NFAcct) Objects(ctx context.Context) (map[string]netfilter.Counter, error) {
	const op = "read nfacct objects"
	if r.modules.loadable(nfacctModule) {
		return nil, fmt.Errorf("%s: %w: its module is not loaded", op, ErrAbsent)
	}
	ctx, cancel := r.conn.limit(ctx)
	defer cancel()
	all := make(map[string]netfilter.Counter)
	err := r.conn.exchange(ctx, request{typ: getAccounts, dump: true}, func(m *nlattr.Message) error {
		o, err := nfacct.Decode(m.Payload)
		if err == nil {
			all[o.Name] = o.Counter
		}
		return err
	})
	if errors.Is(err, unix.EINVAL) { // nfnetlink_rcv_msg: no such subsystem
		err = fmt.Errorf("%w: %w", ErrAbsent, err)
	}
	if err != nil {
		return nil, meaning(op, err)
	}
	return all, nil
}
