// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
)

// TestHistory has an endpoint go and come, rules edited, and the Service's chains
// deleted: each is one item of /api/v1/history, and what stood at the start is none.
func TestHistory(t *testing.T) {
	for _, backend := range []string{"nft", "legacy"} {
		t.Run(backend, func(t *testing.T) {
			kerneltest.Run(t, func(t *testing.T) {
				f := ipv4()
				f.load(t, backend)
				s, _, _ := drifting(t, &f)
				s.cfg.API = APIAll
				pages, err := newPages(s)
				if err != nil {
					t.Fatal(err)
				}
				ask := func(query string) (int, correlate.HistoryReport) {
					w := httptest.NewRecorder()
					pages.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api/v1/history"+query, nil))
					var r correlate.HistoryReport
					if w.Code == http.StatusOK {
						if err := json.Unmarshal(w.Body.Bytes(), &r); err != nil {
							t.Fatal(err)
						}
					}
					return w.Code, r
				}
				fewer := f
				fewer.endpoints = f.endpoints[:1]
				gone := f.endpoints[1].String()
				for _, step := range []struct {
					rules          family
					what           string
					added, removed []string
				}{
					{f, "", nil, nil},
					{fewer, "endpoints", nil, []string{gone}},
					{f, "endpoints", []string{gone}, nil},
				} {
					f.restore(t, backend, step.rules.chains())
					f.restore(t, backend, step.rules.rules(""))
					s.pass(t.Context())
					_, r := ask("?namespace=shop&name=web")
					if step.what == "" {
						if len(r.Items) != 0 {
							t.Errorf("the same rules are a change: %+v", r.Items)
						}
						continue
					}
					if len(r.Items) == 0 {
						t.Fatalf("no item of %s", step.what)
					}
					last := r.Items[len(r.Items)-1]
					if last.What != step.what || !slices.Equal(last.EndpointsAdded, step.added) || !slices.Equal(last.EndpointsRemoved, step.removed) ||
						last.Backend != backend || last.IPFamily != "IPv4" || last.PortName != "http" {
						t.Errorf("%+v, want %s", last, step.what)
					}
				}
				_, all := ask("")
				_, one := ask("?namespace=shop&name=web")
				if len(one.Items) == 0 || !slices.EqualFunc(all.Items, one.Items, func(a, b correlate.RuleChangeReport) bool {
					return a.Time.Equal(b.Time) && a.Namespace == "shop" && a.Name == "web" && a.What == b.What
				}) {
					t.Errorf("of all Services %+v, of the only one %+v", all.Items, one.Items)
				}
				if code, _ := ask("?name=web"); code != http.StatusBadRequest {
					t.Errorf("without a namespace: status %d", code)
				}
				if code, r := ask("?namespace=shop&name=other"); code != http.StatusOK || len(r.Items) != 0 {
					t.Errorf("of a Service that there is not: status %d, %+v", code, r.Items)
				}
			})
		})
	}
}
