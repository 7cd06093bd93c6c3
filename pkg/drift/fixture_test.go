// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"os"
	"testing"

	"github.com/svcscope/svcscope/pkg/internal/iptsave"
	"github.com/svcscope/svcscope/pkg/internal/realcluster"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// fixture is one of the captures.
type fixture struct {
	file    string
	backend ruleset.Backend
	family  netfilter.Family
}

var fixtures = func() []fixture {
	var all []fixture
	for _, r := range realcluster.All() {
		all = append(all, fixture{r.File, r.Backend, r.Family})
	}
	return all
}()

func (f fixture) text(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile(realcluster.Dir + f.file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// rules makes Rules of iptables-save's text.
func (f fixture) rules(t testing.TB, text string) Rules {
	t.Helper()
	rs, err := iptsave.Parse(f.family, f.backend, text)
	if err != nil {
		t.Fatal(err)
	}
	return Rules{View: kubeproxy.NewView(rs), Set: rs}
}

// forget drops the rules of endpoints' chains, as readings of nf_tables do once the View
// knows them.
func forget(r Rules) Rules {
	nat := r.Set.Table("nat")
	if nat == nil {
		return r
	}
	for _, c := range nat.Chains {
		if kind, _ := kubeproxy.ParseChain(c.Name); kind == kubeproxy.KindEndpoint {
			c.Rules, c.Unread = nil, true
		}
	}
	return r
}

func catalog(t testing.TB) *service.Catalog {
	t.Helper()
	c, err := realcluster.Catalog()
	if err != nil {
		t.Fatal(err)
	}
	return c
}
