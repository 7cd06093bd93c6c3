// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"slices"
	"strings"
	"testing"
)

// TestStrays: a rule to the chains of nobody that can be named is a fault of the node, and
// one of the kinds that are counted.
func TestStrays(t *testing.T) {
	for _, f := range fixtures {
		t.Run(f.file, func(t *testing.T) {
			edit := func(s save) save {
				return s.before("-A KUBE-SERVICES -p tcp -m tcp --dport 81 -j KUBE-SVC-ABCDEFGHABCDEFGH", "-A KUBE-SERVICES", "default/web:http cluster IP")
			}
			f.check(t, edit, []string{"extra_dispatch"})
			text := edit(strings.Split(strings.TrimSpace(f.text(t)), "\n")).String()
			for _, d := range Compare(&Input{Catalog: catalog(t), Rules: []Rules{f.rules(t, text)}}).Differences {
				if d.OfNode() && !slices.Contains(NodeKinds(), d.Kind) {
					t.Errorf("%s is no kind of the node", d.Kind)
				}
			}
		})
	}
}
