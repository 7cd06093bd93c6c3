// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"strings"
	"testing"

	"github.com/svcscope/svcscope/pkg/policy"
)

// TestDropNotes: who refuses packets out of sight of rules is told, and nobody else.
func TestDropNotes(t *testing.T) {
	if notes := dropNotes(&Snapshot{Tables: []TableSize{{Owner: policy.Calico}}, Node: NodeInfo{ProxyMode: "iptables"}}); len(notes) != 0 {
		t.Errorf("got %q", notes)
	}
	s := &Snapshot{Queues: []uint16{7, 100}, Node: NodeInfo{ProxyMode: "nftables"}, UnnamedDrops: 9}
	want := []string{"Cilium", "Antrea", "AWS", "OVN", "queue 7 of NFQUEUE", "queue 100 of NFQUEUE", "nftables mode", "9 refused packets"}
	for _, owner := range []string{policy.OVN, policy.AWS, policy.Antrea, policy.Cilium} {
		s.Tables = append(s.Tables, TableSize{Owner: owner})
	}
	notes := dropNotes(s)
	if len(notes) != len(want) {
		t.Fatalf("got %q, want %d notes", notes, len(want))
	}
	for i, words := range want {
		if !strings.Contains(notes[i], words) {
			t.Errorf("note %q, want %s", notes[i], words)
		}
	}
}
