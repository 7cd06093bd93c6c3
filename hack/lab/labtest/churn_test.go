// SPDX-License-Identifier: Apache-2.0

package labtest

import (
	"slices"
	"testing"
	"time"
)

func TestSyncsAreReadFromTheLog(t *testing.T) {
	got := parseSyncs(t, `I1124 13:07:26.191491     114 proxier.go:631] "Not syncing iptables until Services and Endpoints have been received from master" ipFamily="IPv6"
I1124 13:07:26.253969     114 proxier.go:655] "Syncing iptables rules" ipFamily="IPv4" fullSync=true
I1124 13:07:27.115032     114 proxier.go:655] "Syncing iptables rules" ipFamily="IPv6" fullSync=true
I1124 13:07:27.893692     114 proxier.go:649] "SyncProxyRules complete" ipFamily="IPv6" elapsed="778.754975ms"
I1124 13:07:28.114881     114 proxier.go:649] "SyncProxyRules complete" ipFamily="IPv4" elapsed="1m2.5s"
I1124 13:07:28.000681     114 proxier.go:655] "Syncing iptables rules" ipFamily="IPv4" fullSync=false
`)
	at := func(us int) time.Time { return time.Date(0, 11, 24, 13, 7, 0, us*1000, time.Local) }
	want := []Sync{
		{Family: "IPv6", Full: true, End: at(27893692), Elapsed: 778754975},
		{Family: "IPv4", Full: true, End: at(28114881), Elapsed: 62500 * time.Millisecond},
	}
	if !slices.Equal(got, want) {
		t.Errorf("syncs: %v, want %v", got, want)
	}
}
