// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"testing"

	"github.com/svcscope/svcscope/pkg/ledger"
)

// TestAPICountsBeforeAnyReading: where no rules can be read, what the API says
// is shown by Service up to the cap, and summed above it.
func TestAPICountsBeforeAnyReading(t *testing.T) {
	names := NewNames(catalog())
	for _, limit := range []int{1, 2} {
		l := ledger.New(limit)
		l.Know(KnownPorts(nil, names), at)
		s := Build(Inputs{Names: names, Ledger: l, Unread: bothFamilies(), Self: Self{SeriesLimit: limit}}, at)
		exposed, sum := 0, 0
		for _, p := range s.Services {
			if !p.Uncounted || p.KernelCount != -1 {
				t.Errorf("limit %d, %v: counted, or endpoints of an unread kernel: %+v", limit, p.Port, p)
			}
			if p.Exposed {
				exposed++
				sum += p.APICount
			}
		}
		for _, o := range s.Other {
			sum += o.APICount
			if !o.Uncounted {
				t.Errorf("limit %d: sums are counted: %+v", limit, o)
			}
		}
		if want := limit / 2 * 2; exposed != want || sum != 2 {
			t.Errorf("limit %d: %d of 2 Services exposed with %d endpoints in all, want %d and 2", limit, exposed, sum, want)
		}
		for _, item := range NewServicesReport(s).Items {
			if item.Connections != nil || item.Uncounted != UncountedUnread {
				t.Errorf("limit %d: report says %+v", limit, item)
			}
		}
	}
}
