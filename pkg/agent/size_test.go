// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"strings"
	"testing"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
)

// TestOthersRulesKeepFromListening: a commit costs by all rules that it
// touches, whoever's they are, and so do set elements.
func TestOthersRulesKeepFromListening(t *testing.T) {
	var set, rules strings.Builder
	set.WriteString("add table inet other\nadd set inet other s { type ipv4_addr; }\nadd element inet other s { ")
	for i := range 500 {
		fmt.Fprintf(&set, "10.1.%d.%d, ", i/250, i%250)
	}
	set.WriteString("}\n")
	rules.WriteString("add table inet other\nadd chain inet other c\n")
	for range 500 {
		rules.WriteString("add rule inet other c counter accept\n")
	}
	for name, text := range map[string]string{"set elements": set.String(), "rules": rules.String()} {
		t.Run(name, func(t *testing.T) {
			kerneltest.Run(t, func(t *testing.T) {
				f := ipv4()
				f.load(t, "nft")
				cfg := testConfig()
				cfg.Kube, cfg.MaxRules = KubeAuto, 500
				s := apiSampler(t, cfg, chaosAPI(&f))
				s.pass(t.Context())
				if s.nft.notices.listener == nil {
					t.Fatal("it does not listen to a few rules")
				}
				kerneltest.Exec(t, text, "nft", "-f", "-")
				s.pass(t.Context())
				if s.nft.notices.listener != nil {
					t.Errorf("it listens with %d rules and elements", s.nft.size())
				}
				kerneltest.Exec(t, "", "nft", "delete", "table", "inet", "other")
				s.pass(t.Context())
				if s.nft.notices.listener == nil {
					t.Errorf("it does not listen again: %d rules and elements", s.nft.size())
				}
			})
		})
	}
}
