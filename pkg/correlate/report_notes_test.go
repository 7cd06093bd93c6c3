// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"strings"
	"testing"

	"github.com/svcscope/svcscope/pkg/policy"
)

// TestDropNotesOfEvents: with a tap that works kube-proxy's refusals are counted in the nftables
// mode, too; and what events of NFLOG lack is told only where there can be any.
func TestDropNotesOfEvents(t *testing.T) {
	const mode, flows = "nftables mode", "CONFIG_NETFILTER_NETLINK_GLUE_CT"
	read, held := LogGroup{Group: 100, State: LogGroupRead}, LogGroup{Group: 5, State: LogGroupHeld}
	flow := LogGroup{Group: 100, State: LogGroupRead, HasFlows: true}
	tests := []struct {
		name   string
		tap    *Tap
		groups []LogGroup
		want   []string
	}{
		{"no tap", nil, nil, []string{mode}},
		{"a tap that waits", &Tap{}, nil, []string{mode}},
		{"a tap", &Tap{Active: true, Log: LogGroup{Group: 10988, State: LogGroupRead}}, nil, nil},
		{"a group without flows", nil, []LogGroup{held, read}, []string{mode, flows}},
		{"a tap and a group without flows", &Tap{Active: true}, []LogGroup{read}, []string{flows}},
		{"a group with flows, and one that is not read", &Tap{Active: true}, []LogGroup{held, flow}, nil},
	}
	for _, tt := range tests {
		notes := dropNotes(&Snapshot{Node: NodeInfo{ProxyMode: "nftables"}, Tap: tt.tap, LogGroups: tt.groups})
		if len(notes) != len(tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, notes, tt.want)
			continue
		}
		for i, words := range tt.want {
			if !strings.Contains(notes[i], words) {
				t.Errorf("%s: note %q, want %s", tt.name, notes[i], words)
			}
		}
	}
}

// TestNoEvents: why there are none is told where there are none.
func TestNoEvents(t *testing.T) {
	read, held := LogGroup{Group: 100, State: LogGroupRead}, LogGroup{Group: 5, State: LogGroupHeld}
	works := &Tap{Active: true, Log: LogGroup{Group: 10988, State: LogGroupRead}}
	tests := []struct {
		name string
		s    Snapshot
		want NoEvents
	}{
		{"a group is read", Snapshot{LogGroups: []LogGroup{held, read}}, ""},
		{"a tap alone", Snapshot{NoGroups: NoEventsDeclined, Tap: works}, ""},
		{"a tap that does not work", Snapshot{NoGroups: NoEventsDeclined, Tap: &Tap{Err: "tap: another owner"}}, NoEventsTap},
		{"a tap whose group is not read", Snapshot{NoGroups: NoEventsDeclined, Tap: &Tap{Active: true}}, NoEventsTap},
		{"a tap that does not work, and no rule", Snapshot{NoGroups: NoEventsRule, Tap: &Tap{}}, NoEventsRule},
		{"declined", Snapshot{NoGroups: NoEventsDeclined}, NoEventsDeclined},
		{"all are held", Snapshot{LogGroups: []LogGroup{held}, NoGroups: NoEventsNotRead}, NoEventsNotRead},
		{"one look", Snapshot{LogGroups: []LogGroup{held}, NoGroups: NoEventsOneLook}, NoEventsOneLook},
	}
	for _, tt := range tests {
		if got := NewDropsReport(&tt.s, nil, nil).NoEvents; got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

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
