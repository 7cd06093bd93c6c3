// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/policy"
)

// noticeSource is *kernel.Notices.
type noticeSource interface {
	Next(context.Context, func(*nftables.Notice)) error
	Lost() uint64
	Close() error
}

// commit is what one commit of nf_tables did, as far as it matters to counts.
type commit struct {
	generation uint32
	writer     string // as in svcscope_ruleset_changes_total
	// notices are of tables, and of rules in chains that count, in order; the
	// payload of a rule is the commit's own.
	notices []nftables.Notice
	// whole has the tables of iptables of which built-in chains got rules.
	whole map[tableKey]bool
	// broken marks a place where notices were lost, or could not be read. The commit
	// after it is partial: some of its notices may be among the lost ones.
	broken  error
	partial bool
}

// queueRules bounds the rules that wait in a listener: what is more is lost, as
// in a socket's buffer. 100,000 take some 50 MB.
const queueRules = 100_000

// listener receives the notices of commits until it is closed.
type listener struct {
	source noticeSource
	stop   context.CancelFunc
	done   chan struct{}

	mu    sync.Mutex
	queue []commit // guarded by mu
	rules int      // guarded by mu: in queue
	// dropped counts the notices that found no room in queue; guarded by mu.
	dropped uint64
	more    chan struct{}
}

// listen starts a goroutine that ends with close.
func listenTo(source noticeSource) *listener {
	ctx, cancel := context.WithCancel(context.Background())
	l := &listener{source: source, stop: cancel, done: make(chan struct{}), more: make(chan struct{}, 1)}
	go l.run(ctx)
	return l
}

func (l *listener) run(ctx context.Context) {
	defer close(l.done)
	for lost := false; ctx.Err() == nil; {
		c, err := l.next(ctx)
		if ctx.Err() != nil {
			return
		}
		if c.partial, lost = lost, err != nil; err == nil {
			l.add(c)
			continue
		}
		l.add(commit{broken: err})
		if !errors.Is(err, kernel.ErrOverrun) {
			return // notices cannot be relied on
		}
	}
}

// next receives one commit.
func (l *listener) next(ctx context.Context) (commit, error) {
	var c commit
	owner, by := policy.Other, ""
	err := l.source.Next(ctx, func(n *nftables.Notice) {
		if o := ownerOf(n); owner == policy.Other || o == policy.KubeProxy {
			owner = o
		}
		switch {
		case n.Kind == nftables.NewGen:
			c.generation, by = n.Gen.ID, n.Gen.ProcName
		case n.Kind == nftables.NewTable, counts(n):
			kept := *n
			kept.Payload = append([]byte(nil), n.Payload...)
			c.notices = append(c.notices, kept)
		}
		if n.Kind == nftables.NewRule && builtIn(n.Chain) {
			if c.whole == nil {
				c.whole = make(map[tableKey]bool)
			}
			c.whole[tableKey{n.Family, n.Table}] = true
		}
	})
	c.writer = owner
	if owner == policy.Other && by == "nft" {
		c.writer = "nft"
	}
	return c, err
}

// ownerOf is whose chain or table a notice is of; Other where it does not tell.
func ownerOf(n *nftables.Notice) string {
	if n.Chain != "" {
		if o := policy.Owner(n.Chain); o != policy.Other {
			return o
		}
	}
	return policy.OwnerOfTable(n.Table)
}

// counts reports whether a rule is in a chain whose counters matter.
func counts(n *nftables.Notice) bool {
	if n.Kind != nftables.NewRule && n.Kind != nftables.DelRule ||
		!slices.Contains(tableFamilies(), n.Family) || isTap(n.Family, n.Table) {
		return false
	}
	switch kind, _ := kubeproxy.ParseChain(n.Chain); kind {
	case kubeproxy.KindService, kubeproxy.KindLocal, kubeproxy.KindExternal, kubeproxy.KindFirewall:
		return n.Table == "nat"
	case kubeproxy.KindServices, kubeproxy.KindExternalServices, kubeproxy.KindProxyFirewall, kubeproxy.KindForward, kubeproxy.KindKubeFirewall:
		return n.Table == "filter"
	case kubeproxy.KindOther: // it may refuse packets
		return n.Table != "nat"
	}
	return false
}

// builtIn reports whether a chain's name is one of those that iptables hooks
// to the kernel.
func builtIn(chain string) bool {
	switch chain {
	case "PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING":
		return true
	}
	return false
}

func (l *listener) add(c commit) {
	l.mu.Lock()
	if n := l.rules + len(c.notices); n > queueRules {
		l.dropped += uint64(n)
		l.queue, l.rules = nil, 0
		c = commit{broken: kernel.ErrOverrun}
	}
	l.queue = append(l.queue, c)
	l.rules += len(c.notices)
	l.mu.Unlock()
	select {
	case l.more <- struct{}{}:
	default:
	}
}

// noticeTime is how long notices may take to tell of a generation that was
// read: readings run ahead of them.
const noticeTime = time.Second

// upTo takes the commits up to a generation, and waits for the last of them. It
// ends at a place where notices were lost, and says so; what came before is
// true.
func (l *listener) upTo(ctx context.Context, generation uint32) (commits []commit, err error) {
	late := time.NewTimer(noticeTime)
	defer late.Stop()
	for {
		more, reached, err := l.take(generation)
		commits = append(commits, more...)
		if err != nil || reached {
			return commits, err
		}
		if n := len(commits); n > 0 && commits[n-1].generation == generation {
			return commits, nil
		}
		select {
		case <-ctx.Done():
			return commits, ctx.Err()
		case <-late.C:
			return commits, errLate
		case <-l.more:
		}
	}
}

// errLate says that notices did not tell of a commit that was read.
var errLate = errors.New("notices of nf_tables are late")

// take takes what has come, up to a generation. reached is true when a later
// commit has come, too.
func (l *listener) take(generation uint32) (commits []commit, reached bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for ; n < len(l.queue) && err == nil; n++ {
		c := &l.queue[n]
		if c.broken == nil && int32(c.generation-generation) > 0 {
			reached = true
			break
		}
		l.rules -= len(c.notices)
		if err = c.broken; err == nil {
			commits = append(commits, *c)
		}
	}
	l.queue = append([]commit(nil), l.queue[n:]...)
	return commits, reached, err
}

// lost counts what did not come: datagrams that the socket had no room for, and
// notices that the queue had none for.
func (l *listener) lost() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.source.Lost() + l.dropped
}

// rest takes what has come in whole before the listening ended.
func (l *listener) rest() []commit {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := slices.IndexFunc(l.queue, func(c commit) bool { return c.broken != nil })
	if n < 0 {
		n = len(l.queue)
	}
	return l.queue[:n]
}

// close ends the listening at once.
func (l *listener) close() error {
	l.stop()
	err := l.source.Close()
	<-l.done
	return err
}
