// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"os"
	"strings"
	"testing"
)

func TestListsVirtualServers(t *testing.T) {
	captured, err := os.ReadFile("../netfilter/conntrack/testdata/ipvs/ip_vs.txt")
	if err != nil {
		t.Fatal(err)
	}
	head := strings.SplitAfterN(string(captured), "\n", 4)[:3]
	for name, tt := range map[string]struct {
		text string
		want bool
	}{
		"as captured":        {string(captured), true},
		"no virtual servers": {strings.Join(head, ""), false},
		"by mark":            {strings.Join(head, "") + "FWM  00000001 rr \n", false},
		"empty":              {"", false},
	} {
		if got := listsVirtualServers(strings.NewReader(tt.text)); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
