// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"strings"
	"testing"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
)

// TestRestoredTables saves and restores all of a node's rules, as an
// administrator or another tool does. In IPv4 alone: ip6tables-nft-restore of
// iptables 1.8.9 forgets the counters.
func TestRestoredTables(t *testing.T) {
	for _, backend := range []string{"nft", "legacy"} {
		for _, counters := range []bool{true, false} {
			name := backend + " with counters"
			if !counters {
				name = backend + " without counters"
			}
			t.Run(name, func(t *testing.T) {
				kerneltest.Run(t, func(t *testing.T) {
					f := ipv4()
					f.load(t, backend)
					f.serve(t)
					connect(t, f.cluster(), 40)
					connect(t, f.external(), 20)
					s := newTestSampler(testConfig())
					start(t, s)
					connect(t, f.cluster(), 11)
					connect(t, f.external(), 7)
					passes(t, s, 2)
					restoreAll(t, backend, counters)
					connect(t, f.cluster(), 5)
					connect(t, f.external(), 4)
					passes(t, s, 4)
					check(t, get(t), f, 16, 11)
				})
			})
		}
	}
}

func restoreAll(t *testing.T, backend string, counters bool) {
	t.Helper()
	saved := kerneltest.Exec(t, "", "iptables-"+backend+"-save", "-c")
	if !strings.Contains(saved, "KUBE-SVC") {
		t.Fatalf("nothing to restore:\n%s", saved)
	}
	args := []string{"-w", "5"}
	if counters {
		args = append(args, "-c")
	}
	kerneltest.Exec(t, saved, "iptables-"+backend+"-restore", args...)
}
