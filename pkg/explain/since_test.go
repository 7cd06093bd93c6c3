// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/capture"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// drifting is a node on which an endpoint's rule is missing in IPv4, shares are others in
// both families, and nothing comes from PREROUTING.
func drifting(t testing.TB) *capture.Node {
	svc := "-A KUBE-SVC-" + webHash
	return node(t, ruleset.NFT, without("-A PREROUTING"),
		replaced("0.50000000000", "0.90000000000", svc), without("-j KUBE-SEP-YYQCU4TCGTAHGAPQ"))
}

// webSightings are what an agent has seen of it: of one difference since when it is
// drift, of another one that it is none yet, and of what is not in the report.
func webSightings(at time.Time) []Sighting {
	web := service.PortName{Name: service.Name{Namespace: "default", Name: "web"}, Port: "http", Protocol: service.TCP}
	other := web
	other.Name.Name = "other"
	seen := func(port service.PortName, family, kind, detail string, minutes int) Sighting {
		s := Sighting{Port: port, IPFamily: family, Difference: Difference{Kind: kind, Detail: detail, Drift: new(minutes > 0)}}
		if minutes > 0 {
			s.Difference.Since = new(at.Add(-time.Duration(minutes) * time.Minute))
		}
		return s
	}
	return []Sighting{
		seen(service.PortName{}, "IPv4", "jump_missing", "nat PREROUTING → KUBE-SERVICES", 7),
		seen(other, "IPv4", "missing_endpoint", "10.244.2.11:8080", 9),
		seen(web, "IPv6", "missing_endpoint", "10.244.2.11:8080", 9),
		seen(web, "IPv4", "missing_endpoint", "10.244.2.99:8080", 9),
		seen(web, "IPv4", "missing_endpoint", "10.244.2.11:8080", 5),
		seen(web, "IPv6", "wrong_probability", "KUBE-SVC-"+webHash, 0),
	}
}

// TestSince: an agent that has told gives each difference its word, and is believed of
// nothing else.
func TestSince(t *testing.T) {
	for _, tt := range []struct {
		name       string
		told       bool
		ofServices bool
		want       []string
	}{
		{"no agent", false, false, []string{
			"the node IPv4 jump_missing: not told", "the node IPv6 jump_missing: not told", "http IPv4 missing_endpoint: not told", "http IPv6 wrong_probability: not told",
		}},
		{"an agent", true, true, []string{
			"the node IPv4 jump_missing: since 07:34:00", "the node IPv6 jump_missing: no drift", "http IPv4 missing_endpoint: since 07:36:00", "http IPv6 wrong_probability: no drift",
		}},
		{"one without the API", true, false, []string{
			"the node IPv4 jump_missing: since 07:34:00", "the node IPv6 jump_missing: no drift", "http IPv4 missing_endpoint: not told", "http IPv6 wrong_probability: not told",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := report(t, drifting(t), "web")
			at := r.Time.Add(-8 * time.Second)
			if tt.told {
				r.Recall(at, webSightings(at), tt.ofServices)
			}
			if (r.Watched != nil) != tt.told || !r.Differs() {
				t.Errorf("watched %v, differs %v", r.Watched, r.Differs())
			}
			var got []string
			r.eachDifference(func(port service.PortName, family string, d *Difference) {
				line := "the node "
				if port.Name.Name != "" {
					line = port.Port + " "
				}
				line += family + " " + d.Kind + ": "
				switch {
				case d.Drift == nil && d.Since == nil:
					line += "not told"
				case *d.Drift && d.Since != nil:
					line += "since " + d.Since.Format(time.TimeOnly)
				case !*d.Drift && d.Since == nil:
					line += "no drift"
				default:
					line += fmt.Sprint(*d.Drift, d.Since)
				}
				got = append(got, line)
			})
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
	if report(t, plain(t), "web").Differs() {
		t.Error("what is right differs")
	}
}

// TestSinceGolden: how it is printed.
func TestSinceGolden(t *testing.T) {
	r := report(t, drifting(t), "web")
	at := r.Time.Add(-8 * time.Second)
	r.Recall(at, webSightings(at), true)
	golden(t, "since.txt", write(t, r, Options{Width: width}))
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "since.json", string(text)+"\n")
}
