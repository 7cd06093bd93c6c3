// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// TestHistoryReport: of one Service, and of all, each change once and in order; of very many the
// newest.
func TestHistoryReport(t *testing.T) {
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	both := []netfilter.Family{netfilter.IPv4, netfilter.IPv6}
	s := &Snapshot{Node: NodeInfo{Name: "node-a"}, Time: noon}
	for _, name := range []string{"web", "api"} {
		for _, f := range both {
			s.Services = append(s.Services, &ServicePort{
				Port: service.PortName{Name: service.Name{Namespace: "shop", Name: name}, Port: "http", Protocol: service.TCP}, Family: f,
			})
		}
	}
	changes := func(n int) func(service.PortName) []RuleChange {
		return func(p service.PortName) (all []RuleChange) {
			for i := range n {
				at := noon.Add(time.Duration(i) * time.Minute)
				if p.Name.Name == "api" {
					at = at.Add(time.Second)
				}
				c := RuleChange{Time: at, Family: both[i%2], Backend: ruleset.NFT, Made: i == 0}
				if i == 1 {
					c.EndpointsAdded = []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:80"), {}}
				}
				all = append(all, c)
			}
			return all
		}
	}
	told := func(r *HistoryReport) (all []string) {
		for _, c := range r.Items {
			all = append(all, fmt.Sprintf("%s %s/%s:%s %s %s %v", c.Time.Format(time.TimeOnly), c.Namespace, c.Name, c.PortName, c.IPFamily, c.What, c.EndpointsAdded))
		}
		return all
	}
	one := NewHistoryReport(s, service.Name{Namespace: "shop", Name: "web"}, changes(3))
	if diff := cmp.Diff([]string{
		"12:00:00 shop/web:http IPv4 made []", "12:01:00 shop/web:http IPv6 endpoints [10.0.0.1:80]", "12:02:00 shop/web:http IPv4 rules []",
	}, told(&one)); diff != "" || one.Name != "web" {
		t.Errorf("of one (-want +got)\n%s", diff)
	}
	all := NewHistoryReport(s, service.Name{}, changes(2))
	if diff := cmp.Diff([]string{
		"12:00:00 shop/web:http IPv4 made []", "12:00:01 shop/api:http IPv4 made []",
		"12:01:00 shop/web:http IPv6 endpoints [10.0.0.1:80]", "12:01:01 shop/api:http IPv6 endpoints [10.0.0.1:80]",
	}, told(&all)); diff != "" || all.Omitted != 0 {
		t.Errorf("of all (-want +got)\n%s", diff)
	}
	none := NewHistoryReport(s, service.Name{Namespace: "shop", Name: "other"}, changes(2))
	if b, err := json.Marshal(none); err != nil || !strings.Contains(string(b), `"items":[]`) {
		t.Errorf("of none: %s, %v", b, err)
	}
	many := NewHistoryReport(s, service.Name{}, changes(maxChanges))
	if len(many.Items) != maxChanges || many.Omitted != maxChanges {
		t.Errorf("%d changes, %d left out", len(many.Items), many.Omitted)
	}
	if first, last := many.Items[0], many.Items[maxChanges-1]; !first.Time.Before(last.Time) || last.Name != "api" || !last.Time.Equal(noon.Add((maxChanges-1)*time.Minute+time.Second)) {
		t.Errorf("not the newest: from %+v to %+v", first, last)
	}
}
