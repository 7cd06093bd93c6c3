// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// NFTables reads the nf_tables rules of the network namespace it was opened
// in. Its methods may be called from several goroutines; they wait for each
// other.
type NFTables struct {
	conn        conn
	interrupted atomic.Uint64
}

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
// mangle, raw, security) or of kube-proxy's nftables mode (kube-proxy), not of family inet,
// or of a table whose name cannot be read, could not be decoded: the reading lacks the
// table, chain, rule or element, and must not be
// taken for a whole one. Reading again gives the same while the rules stand.
type DamagedError struct {
	// Skipped counts all messages that could not be decoded, of any table, by
	// kind: table, chain, rule, set, element.
	Skipped map[string]uint64
	// Err is the first one's of such a table, with operation and object:
	// "read rules of chain KUBE-SVC-X of table nat (IPv4): ...".
	Err error
}

// Error names the operation, the object and the damage.
func (e *DamagedError) Error() string { return e.Err.Error() }

// Unwrap returns the decoder's error.
func (e *DamagedError) Unwrap() error { return e.Err }

// readAttempts bounds how often Try starts anew.
const readAttempts = 9

// readPause is how long Try waits after an attempt, counted from 0, that a
// change spoiled: kube-proxy commits several times at one sync, some
// milliseconds apart on a small node and for some hundred on a large one.
func readPause(attempt int) time.Duration {
	if attempt == readAttempts-1 {
		return 0
	}
	return time.Millisecond << attempt
}

// Try runs read until it has seen one state of the rules: when they change
// meanwhile it runs it anew a little later, with another Attempt, so that read
// must forget what the one before brought. After nine it returns a *TornError,
// and a *DamagedError when something of a table that serves could not be
// decoded. An error of read is returned with the operation's name before it.
func (n *NFTables) Try(ctx context.Context, read func(context.Context, *Attempt) error) error {
	const op = "read nf_tables rules"
	ctx, cancel := n.conn.limit(ctx)
	defer cancel()
	for retries := range readAttempts {
		a := &Attempt{conn: &n.conn, Retries: retries, Skipped: map[string]uint64{}}
		err := n.attempt(ctx, a, read)
		if err == nil && a.damage != nil {
			return &DamagedError{Skipped: a.Skipped, Err: a.damage}
		}
		if err == nil || !errors.Is(err, ErrInterrupted) {
			return meaning(op, err)
		}
		n.interrupted.Add(1)
		if err := pause(ctx, readPause(retries)); err != nil {
			return meaning(op, err)
		}
	}
	return &TornError{Op: op, Attempts: readAttempts}
}

// attempt runs read between two looks at the generation.
func (n *NFTables) attempt(ctx context.Context, a *Attempt, read func(context.Context, *Attempt) error) error {
	before, err := n.generation(ctx)
	if err != nil {
		return err
	}
	a.generation = before
	if err := read(ctx, a); err != nil {
		return err
	}
	after, err := n.generation(ctx)
	if err == nil && after != before {
		err = ErrInterrupted
	}
	return err
}

// ReadStats is what a reader has taken from the kernel since it was opened.
type ReadStats struct {
	Bytes       uint64
	Messages    uint64 // netlink messages, or calls of getsockopt
	Interrupted uint64 // readings that a change of the rules spoiled
}

// Stats returns what was read so far. It may be called at any time.
func (n *NFTables) Stats() ReadStats {
	return ReadStats{Bytes: n.conn.bytes.Load(), Messages: n.conn.messages.Load(), Interrupted: n.interrupted.Load()}
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
