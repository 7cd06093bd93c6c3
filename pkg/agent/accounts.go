// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/netfilter"
)

// accountReader reads the counter objects of nfacct.
type accountReader struct {
	reader[nfacctReader]
	collector
}

// readAccounts reads the objects that count what rules refuse, whatever becomes of the
// rules. What could not be read is as it was; that is told where some rule counts in an
// object.
func (s *sampler) readAccounts(ctx context.Context) {
	a := &s.accounts
	if a.open == nil {
		return
	}
	begin := time.Now()
	objects, err := a.read(ctx)
	if ctx.Err() != nil {
		return
	}
	if errors.Is(err, kernel.ErrAbsent) { // no rule counts in any
		objects, err = nil, nil
	}
	if s.drops.HasAccounts() {
		a.report(begin, time.Now(), err)
	}
	if err == nil {
		s.drops.Accounts(objects, time.Now())
	}
}

func (a *accountReader) read(ctx context.Context) (map[string]netfilter.Counter, error) {
	r, err := a.get()
	if err != nil {
		return nil, err
	}
	return r.Objects(ctx)
}

// states is the collector's, where it has something to tell.
func (a *accountReader) states() []correlate.CollectorState {
	if !a.tried {
		return nil
	}
	return []correlate.CollectorState{a.CollectorState}
}
