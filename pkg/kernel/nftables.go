// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// NFTables reads the nf_tables rules of the network namespace it was opened
// in. Its methods may be called from several goroutines; they wait for each
// other.
type NFTables struct{ conn conn }

// OpenNFTables opens a netlink socket and asks once for the generation. It
// returns an error that wraps ErrAbsent where the kernel has no nf_tables (a
// kernel that would have to load its module counts as such), and a
// *CapabilityError without CAP_NET_ADMIN.
func OpenNFTables() (*NFTables, error) { return openNFTables(running, dialNetfilter) }

func openNFTables(m *modules, dial func() (transport, error)) (*NFTables, error) {
	if m.loadable(nftablesModule) {
		return nil, fmt.Errorf("open nf_tables: %w: its module is not loaded", ErrAbsent)
	}
	n := &NFTables{conn: conn{dial: dial}}
	_, err := n.generation(context.Background())
	if errors.Is(err, unix.EINVAL) { // nfnetlink_rcv_msg: no such subsystem
		err = fmt.Errorf("%w: %w", ErrAbsent, err)
	}
	if err != nil {
		_ = n.Close()
		return nil, meaning("open nf_tables", err)
	}
	return n, nil
}

// Close closes the socket.
func (n *NFTables) Close() error { return n.conn.close() }

// Generation returns the number of the last commit of the namespace, of any
// table and family. It is one small exchange: where it stands, no rule was
// added, removed or replaced; counters move without it.
func (n *NFTables) Generation(ctx context.Context) (uint32, error) {
	gen, err := n.generation(ctx)
	return gen, meaning("read nf_tables generation", err)
}

func (n *NFTables) generation(ctx context.Context) (gen uint32, err error) {
	ctx, cancel := n.conn.limit(ctx)
	defer cancel()
	err = n.conn.exchange(ctx, request{typ: getGen}, func(m *nlattr.Message) error {
		g, err := nftables.DecodeGen(m.Payload)
		gen = g.ID
		return err
	})
	return gen, err
}

// Selector says which chains of a table are read, and in which order: the
// rules of one chain are read after those of the chain before, so counters
// of a chain that comes later are younger. It must not keep the slice.
type Selector func(table nftables.Table, chains []nftables.Chain) []nftables.Chain

// NFTablesReading is what one Read brought.
type NFTablesReading struct {
	nftables.Ruleset
	// Retries counts the attempts that a change of the ruleset spoiled.
	Retries int
	// Skipped counts messages that could not be decoded and are left out,
	// by kind: table, chain, rule. SkipErr is the first one's error, with
	// family, table and chain. None of them is of a table of iptables: without
	// one of those messages, Read fails with a *DamagedError.
	Skipped map[string]uint64
	SkipErr error
	// Undecoded counts expressions that are kept as nftables.Opaque, by
	// "expression/" and their name.
	Undecoded map[string]uint64
}

// TornError says that no reading of one state was possible, because every
// attempt met a change. It wraps ErrInterrupted.
type TornError struct {
	Op       string
	Attempts int
}

// Error names the operation and the number of attempts.
func (e *TornError) Error() string {
	return fmt.Sprintf("%s: %v, %d times in a row", e.Op, ErrInterrupted, e.Attempts)
}

// Unwrap returns ErrInterrupted.
func (e *TornError) Unwrap() error { return ErrInterrupted }

// DamagedError says that a message of a table of iptables (nat, filter,
// mangle, raw, security), or of a table whose name cannot be read, could not
// be decoded: the reading has no such table, chain or rule, and must not be
// taken for a whole one. Reading again gives the same while the rules stand.
type DamagedError struct {
	// Skipped counts all messages that could not be decoded, of any table, by
	// kind: table, chain, rule.
	Skipped map[string]uint64
	// Err is the first one's of such a table, with operation and object:
	// "read rules of chain KUBE-SVC-X of table nat (IPv4): ...".
	Err error
}

// Error names the operation, the object and the damage.
func (e *DamagedError) Error() string { return e.Err.Error() }

// Unwrap returns the decoder's error.
func (e *DamagedError) Unwrap() error { return e.Err }

// readAttempts bounds how often Read starts anew.
const readAttempts = 5

// readPause is how long Read waits after an attempt, counted from 0, that a
// change spoiled: kube-proxy commits several times at one sync, for some
// hundred milliseconds on a large node.
func readPause(attempt int) time.Duration {
	pauses := [readAttempts]time.Duration{5, 20, 80, 200} // none after the last
	return pauses[attempt] * time.Millisecond
}

// Read reads the tables, chains and rules of the families ip and ip6: all
// rules with a nil Selector. Rules are asked for chain by chain, because a
// dump of a whole table costs the kernel time with the square of its rules.
// What it returns is of one generation: when the ruleset changes meanwhile it
// starts anew a little later, and after five attempts returns a *TornError. It returns a
// *DamagedError when something of a table of iptables could not be decoded.
func (n *NFTables) Read(ctx context.Context, sel Selector) (*NFTablesReading, error) {
	const op = "read nf_tables rules"
	ctx, cancel := n.conn.limit(ctx)
	defer cancel()
	for attempt := range readAttempts {
		r := &nftablesRead{conn: &n.conn, sel: sel, out: &NFTablesReading{
			Retries: attempt, Skipped: map[string]uint64{}, Undecoded: map[string]uint64{},
		}}
		err := n.attempt(ctx, r)
		if err == nil && r.damage != nil {
			return nil, &DamagedError{Skipped: r.out.Skipped, Err: r.damage}
		}
		if err == nil {
			return r.out, nil
		}
		if !errors.Is(err, ErrInterrupted) {
			return nil, meaning(op, err)
		}
		if err := pause(ctx, readPause(attempt)); err != nil {
			return nil, meaning(op, err)
		}
	}
	return nil, &TornError{Op: op, Attempts: readAttempts}
}

// pause waits, and returns why ctx ended if it did.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
	return ended(ctx)
}

// attempt does one reading between two looks at the generation.
func (n *NFTables) attempt(ctx context.Context, r *nftablesRead) error {
	before, err := n.generation(ctx)
	if err != nil {
		return err
	}
	r.out.Generation = before
	for _, family := range []netfilter.Family{netfilter.IPv4, netfilter.IPv6} {
		if err := r.family(ctx, family); err != nil {
			return err
		}
	}
	after, err := n.generation(ctx)
	if err == nil && after != before {
		err = ErrInterrupted
	}
	return err
}
