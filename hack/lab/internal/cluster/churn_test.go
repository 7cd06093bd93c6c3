// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"slices"
	"testing"
)

func TestAChurnedServiceNeverLacksEndpointsAndAlwaysChanges(t *testing.T) {
	ch := Churn{Services: []Exposure{{Name: "web", Endpoints: []string{"pod1", "pod2", "pod3"}}}, Fillers: 2}
	last := map[string][]string{"web": ch.Services[0].Endpoints, "f00000": Filler(0).Endpoints, "f00001": Filler(1).Endpoints}
	for n := range 12 {
		changed := ch.step(n)
		if len(changed) != 2 {
			t.Fatalf("step %d changes %d Services, want 2", n, len(changed))
		}
		for _, e := range changed {
			if len(e.Endpoints) != 2 && e.Name == "web" || len(e.Endpoints) < 2 {
				t.Errorf("step %d leaves %s %v", n, e.Name, e.Endpoints)
			}
			if slices.Equal(e.Endpoints, last[e.Name]) {
				t.Errorf("step %d leaves %s as it was, %v", n, e.Name, e.Endpoints)
			}
			last[e.Name] = e.Endpoints
		}
	}
}

func TestFillersShareNoEndpoint(t *testing.T) {
	seen := map[string]bool{}
	for i := range 20000 {
		for _, ep := range Filler(i).Endpoints {
			if seen[ep] {
				t.Fatalf("filler %d has %s, as one before", i, ep)
			}
			seen[ep] = true
		}
	}
}
