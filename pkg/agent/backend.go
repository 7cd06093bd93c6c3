// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/ledger"
)

// writerUnknown is who changed the rules, as long as nobody listens.
const writerUnknown = "unknown"

// useCommit takes what a commit has done: to counters of Services' rules, and to
// those of rules that refuse packets.
type useCommit func(ledger.Commit, correlate.RefusalCommit)

// backend is one kernel interface that holds rules. It keeps them from one
// reading to the next.
type backend interface {
	// read brings the families up to date that could be read as a whole. It
	// returns what is not understood in their rules; that also beside an error.
	// An interface that the kernel does not have holds no rules: that is an
	// answer, not an error.
	read(context.Context) (undecoded map[string]uint64, err error)
	// look reads what is watched alone, and drops from it what has been
	// rewritten. second is true right after a look that left something open.
	// next is when to look again; the zero time leaves that to the caller.
	look(ctx context.Context, w *watched, second bool) (next time.Time, err error)
	// families are those of the kernel, always the same.
	families() []*familyRules
	// refusers are those of which only refusals are told, always the same.
	refusers() []*familyRules
	// tell hands on what is known to have happened before the newest reading
	// and is to be applied first. It reports whether all that ended was told:
	// absence from the reading then ends nothing.
	tell(ctx context.Context, names *correlate.Names, use useCommit) (listening bool, err error)
	// unseen is how long a table had not been looked at when its counters were
	// reset, where that is known.
	unseen(f *familyRules, table string) (time.Duration, bool)
	// changes returns the commits seen since the first reading.
	changes() []correlate.RulesetChanges
	stats() kernel.ReadStats
	close() error
}
