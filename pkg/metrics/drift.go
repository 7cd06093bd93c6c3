// SPDX-License-Identifier: Apache-2.0

package metrics

import "github.com/svcscope/svcscope/pkg/correlate"

// buildDrift adds where rules are not what the API wants.
func buildDrift(b *builder, s *correlate.Snapshot) {
	d := s.Drift
	if d == nil {
		return
	}
	for i := range d.Named {
		n := &d.Named[i]
		b.gauge("svcscope_service_drift", 1, n.Port.Namespace, n.Port.Name.Name, n.Port.Port, string(n.Port.Protocol),
			familyValue(n.Family), string(n.Kind), string(n.Frontend))
	}
	for _, n := range d.Counts() {
		name := "svcscope_drifting_services"
		if n.OfNode {
			name = "svcscope_node_drift"
		}
		b.gauge(name, float64(n.Count), string(n.Kind), familyValue(n.Family))
	}
	for _, p := range d.Proxies {
		if !p.LastCommit.IsZero() {
			b.gauge("svcscope_kube_proxy_last_commit_timestamp_seconds", unixSeconds(p.LastCommit), familyValue(p.Family))
		}
		if d.Unknown != "" {
			continue
		}
		waits := 0.0
		if !p.Waiting.IsZero() {
			waits = max(0, s.Time.Sub(p.Waiting).Seconds())
		}
		b.gauge("svcscope_kube_proxy_pending_change_seconds", waits, familyValue(p.Family))
	}
}
