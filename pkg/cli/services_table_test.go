// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
)

// TestTableFits checks that the table of a usual cluster fits a terminal of
// 100 characters, from an agent and from the kernel. Wide may be wider.
func TestTableFits(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	since := at.Add(-3*time.Hour - 20*time.Minute)
	item := func(namespace, name, ip string, port uint16) correlate.ServiceReport {
		n := 250
		return correlate.ServiceReport{
			Namespace: namespace, Name: name, Protocol: "TCP", IPFamily: "IPv6", ClusterIP: ip, Port: port,
			Connections: &correlate.ConnectionsReport{Total: 12345678901},
			Since:       &since, RejectedPackets: map[correlate.Reason]uint64{correlate.NoEndpoints: 12345678},
			Endpoints: correlate.EndpointsReport{Kernel: &n, API: &n},
		}
	}
	r := correlate.ServicesReport{ReportHead: correlate.ReportHead{Time: at}, Items: []correlate.ServiceReport{
		item("default", "kubernetes", "10.96.0.1", 443),
		item("kube-system", "kube-dns", "fd00:10:96::a", 53),
		item("kube-system", "metrics-server", "fd00:10:96::78e1", 8443),
	}, Other: []correlate.OtherReport{{Protocol: "TCP", IPFamily: "IPv6", Since: &since}}}
	for _, r.Source = range []correlate.ReportSource{correlate.SourceAgent, correlate.SourceKernel} {
		var b strings.Builder
		if err := writeServices(&b, &r, servicesOptions{format: formatTable}); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(b.String()) {
			if n := len(strings.TrimRight(line, "\n")); n > 100 {
				t.Errorf("source %s: a line has %d characters, want 100 at most:\n%s", r.Source, n, b.String())
				break
			}
		}
	}
}
