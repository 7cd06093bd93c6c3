// SPDX-License-Identifier: Apache-2.0

package ruleset_test

import (
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/internal/kernelrules"
	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/internal/syncrules"
	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/xtables"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// TestXTablesKeepsWhatIsAsBefore syncs one Service: its chains alone are
// converted anew, although every jump of the table leads elsewhere then.
func TestXTablesKeepsWhatIsAsBefore(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		s := syncrules.Services{Number: 20, Endpoints: 2}
		kerneltest.Exec(t, s.Full(), "iptables-legacy-restore", "--noflush")
		r, err := kernel.OpenLegacy(kernel.LegacyConfig{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = r.Close() }()
		all := ruleset.NewXTables(netfilter.IPv4)
		read := func() (d ruleset.Delta) {
			err := r.Read(t.Context(), netfilter.IPv4, "nat", func(x *xtables.Table) (err error) {
				d, err = all.Update(x)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		if d := read(); len(d.Changed) != len(all.Ruleset().Table("nat").Chains) {
			t.Errorf("%d chains are new of %d", len(d.Changed), len(all.Ruleset().Table("nat").Chains))
		}
		if d := read(); !d.Same() || len(d.Moved) > 0 {
			t.Errorf("nothing changed: got %+v", d)
		}
		kept := all.Ruleset().Table("nat").Chain(kubeproxy.ServiceChain(s.Port(3)))
		kerneltest.Exec(t, s.Sync(7, 1), "iptables-legacy-restore", "--noflush")
		got := map[string]bool{}
		for _, c := range read().Changed {
			got[c.Name] = true
		}
		want := map[string]bool{kubeproxy.ServiceChain(s.Port(7)): true}
		for e := range 2 {
			want[kubeproxy.EndpointChain(s.Port(7), s.Endpoint(7, e, 1))] = true
		}
		if diff := gocmp.Diff(want, got); diff != "" {
			t.Errorf("changed chains (-want +got):\n%s", diff)
		}
		if all.Ruleset().Table("nat").Chain(kept.Name) != kept {
			t.Error("a chain that stayed is another value")
		}
		kerneltest.Exec(t, "", "iptables-legacy", "-t", "nat", "-N", "AAA")
		kerneltest.Exec(t, "", "iptables-legacy", "-t", "nat", "-X", "AAA")
		kerneltest.Exec(t, "", "iptables-legacy", "-t", "nat", "-N", "BBB")
		kerneltest.Exec(t, "", "iptables-legacy", "-t", "nat", "-A", "OUTPUT", "-j", "BBB")
		if d := read(); len(d.Changed) != 2 || len(d.Gone) != 0 {
			t.Errorf("a new chain and a jump to it: got %+v", d)
		}
		kerneltest.Exec(t, "", "iptables-legacy", "-t", "nat", "-D", "OUTPUT", "-j", "BBB")
		kerneltest.Exec(t, "", "iptables-legacy", "-t", "nat", "-X", "BBB")
		if d := read(); len(d.Changed) != 1 || !gocmp.Equal(d.Gone, []string{"BBB"}) {
			t.Errorf("a chain less: got %+v", d)
		}
		fresh, _ := kernelrules.Legacy(t, netfilter.IPv4)
		if diff := gocmp.Diff(fresh.Table("nat"), all.Ruleset().Table("nat"), sameRules()); diff != "" {
			t.Errorf("the same kernel (-read at once +followed):\n%s", diff)
		}
	})
}
