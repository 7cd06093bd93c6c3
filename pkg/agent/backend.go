// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// writerUnknown is who changed the rules, as long as nobody listens.
const writerUnknown = "unknown"

// backend is one kernel interface that holds rules.
type backend interface {
	// read returns the families that could be read as a whole, and what was
	// not understood in them; that also beside an error. An interface that the kernel does not have
	// holds no rules: that is an answer, not an error.
	read(context.Context) ([]*ruleset.Ruleset, map[string]uint64, error)
	// changes returns the commits seen since the first reading.
	changes() []correlate.RulesetChanges
	close() error
}
