// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/service"
)

// TestWitnessed sums what came, Services above the cap in one, and forgets those that
// are gone.
func TestWitnessed(t *testing.T) {
	web, gone, many := service.Name{Namespace: "shop", Name: "web"}, service.Name{Namespace: "shop", Name: "gone"}, service.Name{Namespace: "shop", Name: "many"}
	key := func(n service.Name) WitnessKey { return WitnessKey{SourceNFLOG, "rule", n} }
	w := NewWitnessed(func(n service.Name) bool { return n != many })
	at := time.Unix(1, 0)
	w.Add(map[WitnessKey]uint64{key(web): 2, key(gone): 3, key(many): 4, key(service.Name{}): 5}, at)
	w.Add(map[WitnessKey]uint64{key(web): 1}, time.Unix(2, 0))
	other := service.Name{Name: OtherServices}
	want := []WitnessedDrops{{key(service.Name{}), 5, at}, {key(other), 4, at}, {key(web), 3, at}}
	for range 2 {
		if d := cmp.Diff(want, w.Totals(func(n service.Name) bool { return n == web })); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	}
	if len(w.totals) != len(want) {
		t.Errorf("%d totals are kept, want %d", len(w.totals), len(want))
	}
}
