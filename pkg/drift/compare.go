// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"slices"
	"time"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// Rules is one backend's rules of one family.
type Rules struct {
	View *kubeproxy.View
	Set  *ruleset.Ruleset // that View is of
	// NFTablesMode is true where a table of kube-proxy's nftables mode is present in
	// this family.
	NFTablesMode bool
	// Age is for how long they have been read at most: what was written since is not in
	// them.
	Age time.Duration
}

// Input is one moment of a node.
type Input struct {
	// Catalog is the API. Where it is nil or not Synced, only the node's kinds are
	// looked for.
	Catalog *service.Catalog
	// NodeMissing: the API has no Node of Catalog's node name, so that it is not known
	// which endpoints are local, or does not let it be read, so that its zone is not known.
	NodeMissing bool
	Rules       []Rules
	// IPVS is true where the kernel has virtual servers of IPVS.
	IPVS bool
}

// Result is how the rules of one moment differ. It is not changed after.
type Result struct {
	// Differences is sorted, and has each one once.
	Differences []Difference
	// Families are those in which kube-proxy's iptables mode was recognised: of
	// others nothing is said.
	Families []netfilter.Family
	// Backends are those by which kube-proxy is taken to write them.
	Backends map[netfilter.Family]ruleset.Backend
	// Changed are the ports for which the API wants something else than at the last
	// call; those that came and went, too. None at the first call with a Catalog.
	Changed []PortFamily

	causes map[Difference]Difference // of differences that are consequences of one
}

// Cause is the difference of the node that d is a consequence of, where several Service ports
// differ by one cause, and else d itself. Only a Judge can tell whether there is time for it to go.
func (r *Result) Cause(d *Difference) Difference {
	if c, ok := r.causes[*d]; ok {
		return c
	}
	return *d
}

// PortFamily names a Service port in one family.
type PortFamily struct {
	Port   service.PortName
	Family netfilter.Family
}

// Comparer compares one moment after another. Ports of which neither what the API
// wants nor the rules have changed are not compared again: the cost follows activity.
// It is for one goroutine; the zero value is ready.
type Comparer struct {
	intent intent
	sides  map[place]*side
	state  []viewState // of the last call's Rules
	ipvs   bool
	last   *Result // of the last call, with no Changed; nil before the first
}

// place is where rules are.
type place struct {
	backend ruleset.Backend
	family  netfilter.Family
}

// viewState is what a View says at one time.
type viewState struct {
	view         *kubeproxy.View
	version      uint64
	nftablesMode bool
}

// Compare compares without a past.
func Compare(in *Input) *Result { return new(Comparer).Compare(in) }

// Compare returns where the rules are not what the API wants. Catalogs and views that
// are known from the last call, by their pointers and View.Version, are taken to say
// the same.
func (c *Comparer) Compare(in *Input) *Result {
	news := c.intent.next(in)
	if c.last != nil && !news.any() && c.ipvs == in.IPVS && c.same(in.Rules) {
		return c.last
	}
	c.ipvs = in.IPVS
	c.remember(in.Rules)
	out := &Result{Changed: news.changed, Backends: make(map[netfilter.Family]ruleset.Backend), causes: make(map[Difference]Difference)}
	sides := make(map[place]*side)
	for _, f := range [...]netfilter.Family{netfilter.IPv4, netfilter.IPv6} {
		at := candidates(in, f)
		for _, r := range at.rules {
			key := place{r.View.Backend, f}
			s := c.sides[key]
			if s == nil || s.view != r.View || news.first {
				s = newSide(r, &c.intent)
			}
			s.set = r.Set
			s.update(&news)
			sides[key] = s
			at.sides = append(at.sides, s)
		}
		out.add(&at)
	}
	c.sides = sides
	slices.SortFunc(out.Differences, Difference.Compare)
	out.Differences = slices.Compact(out.Differences)
	c.last = &Result{Differences: out.Differences, Families: out.Families, Backends: out.Backends, causes: out.causes}
	return out
}

// Writes reports whether a commit is kube-proxy's: of two backends it writes one.
func (r *Result) Writes(c *Commit) bool {
	b, ok := r.Backends[c.Family]
	return !ok || c.Backend == "" || c.Backend == b
}

// same reports whether the rules are those of the last call.
func (c *Comparer) same(rules []Rules) bool {
	return slices.EqualFunc(rules, c.state, func(r Rules, s viewState) bool { return stateOf(&r) == s })
}

func (c *Comparer) remember(rules []Rules) {
	c.state = c.state[:0]
	for i := range rules {
		c.state = append(c.state, stateOf(&rules[i]))
	}
}

func stateOf(r *Rules) viewState { return viewState{r.View, r.View.Version, r.NFTablesMode} }
