// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/ledger"
	"github.com/svcscope/svcscope/pkg/netfilter"
)

// Rules is the newest reading of one backend and family. Of one that cannot be
// read any more it is the last one that could.
type Rules struct {
	View  *kubeproxy.View
	Sizes []TableSize
	// NFTablesMode is true where a table of kube-proxy's nftables mode is
	// present in this family.
	NFTablesMode bool
}

// Inputs is all that Build joins.
type Inputs struct {
	NodeName string
	Kernel   string // uname -r
	Kube     KubeState
	Names    *Names
	Rules    []Rules
	// Unread has the families whose rules are not known: some source that
	// may hold kube-proxy's was never read, and no other one holds them.
	Unread []Family
	// IPVS is true where the kernel has virtual servers of IPVS.
	IPVS   bool
	Ledger *ledger.Ledger
	// SinceRule tells that the ledger's totals are the rules' own counters.
	SinceRule bool
	Changes   []RulesetChanges
	// Listening tells that the ledger has final values from notices.
	Listening bool
	Conntrack *Conntrack
	Flows     *Flows
	Exact     []LedgerExact
	Blind     []BlindTime
	Lock      *LockTime
	Self      Self
	// Drops, PolicyDrops and UnnamedDrops are the Snapshot's.
	Drops        []DropTotal
	PolicyDrops  []PolicyDropTotal
	UnnamedDrops uint64
	// Witnessed, LogGroups and NoGroups likewise.
	Witnessed []WitnessedDrops
	LogGroups []LogGroup
	NoGroups  NoEvents
	Tap       *Tap
	Queues    []uint16
	Drift     *Drift // the Snapshot's
}

// Build makes one snapshot for a caller that makes no other. Of more than one
// a Builder is the way.
func Build(in Inputs, now time.Time) *Snapshot { return new(Builder).Build(in, now) }

// Builder makes one snapshot after another. Rows of Services of which nothing
// has changed are those of the snapshot before, and where only totals have,
// only their rows are made: the cost follows activity. It is for one goroutine;
// the zero value is ready.
type Builder struct {
	shape   shape
	views   []viewState
	rows    []*ServicePort  // of the last snapshot, sorted
	origins []origin        // of the rows
	at      map[portKey]int // where a port's row is
	// hashes has the rows of each view's chains, by the hash in their names.
	hashes  []map[string]int
	folded  map[ledger.OtherKey]*OtherTotal
	version uint64 // of the ledger's totals
	// strays tells that the ledger alone knows of some row: no API and no
	// rules tell when it goes.
	strays bool
}

// shape is what rows are joined from, but for the rules and the totals.
type shape struct {
	names                            *Names
	node, zone                       string // by the API
	ledger                           *ledger.Ledger
	nodeMissing, sinceRule, counting bool
	limit                            int
	uncounted                        uncountedFamilies
}

// viewState names what a View says at one time.
type viewState struct {
	view    *kubeproxy.View
	version uint64
}

// Build joins what the kernel holds with what the API says. It keeps of in the
// slices of Changes and Self, and copies the ledger's totals. Names and views
// that are known from the last call by their pointers and View.Version are
// taken to say the same.
func (b *Builder) Build(in Inputs, now time.Time) *Snapshot {
	s := &Snapshot{
		Time: now, Node: node(&in), Kube: in.Kube, Changes: in.Changes, Conntrack: in.Conntrack, Flows: in.Flows, Self: in.Self,
		Exact: in.Exact, Blind: in.Blind, Lock: in.Lock, Drops: in.Drops, PolicyDrops: in.PolicyDrops, UnnamedDrops: in.UnnamedDrops,
		Drift: in.Drift, Witnessed: in.Witnessed, LogGroups: in.LogGroups, NoGroups: in.NoGroups, Tap: in.Tap, Queues: in.Queues,
	}
	for i := range in.Rules {
		v := in.Rules[i].View
		s.Tables = append(s.Tables, in.Rules[i].Sizes...)
		if v.Present {
			s.Dispatch = append(s.Dispatch, DispatchSize{Backend: v.Backend, Family: v.Family, Rules: v.DispatchRules})
		}
	}
	s.Counting = counting(&in, s.Node.ProxyMode)
	from := shape{
		names: in.Names, ledger: in.Ledger, nodeMissing: in.Kube.NodeMissing, sinceRule: in.SinceRule,
		counting: in.Ledger.Counting(), limit: in.Self.SeriesLimit, uncounted: uncountedOf(&in, s.Node.ProxyMode),
	}
	if c := in.Names.catalog; c != nil {
		from.node, from.zone = c.Node.Name, c.Node.Zone
	}
	if (!b.holds(from, in.Rules) || !b.update(&in)) && !b.refresh(&in, from) {
		b.join(&in, from)
	}
	s.Services, s.Other = b.rows, b.others(&in)
	s.Self.SeriesDropped = in.Ledger.Folded()
	return s
}

// holds reports whether the rows are joined from the same.
func (b *Builder) holds(from shape, rules []Rules) bool {
	if b.at == nil || b.strays || len(rules) != len(b.views) || !sameNames(from.names, b.shape.names) {
		return false
	}
	from.names = b.shape.names
	if from != b.shape {
		return false
	}
	for i := range rules {
		if (viewState{rules[i].View, rules[i].View.Version}) != b.views[i] {
			return false
		}
	}
	return true
}

// update puts the totals that changed into their rows. It returns false where
// they belong to a row that there is not yet.
func (b *Builder) update(in *Inputs) bool {
	totals, version := in.Ledger.Changed(b.version)
	var rows []*ServicePort // a copy once one differs: the last snapshot has b.rows
	admitted := false
	for i := range totals {
		at, ok := b.at[keyOf(&totals[i].Port)]
		if !ok && in.Names.catalog != nil {
			continue // not of the API
		}
		if !ok {
			return false
		}
		p := b.rows[at]
		q := p.withTotals(&totals[i])
		if p == q {
			continue
		}
		if rows == nil {
			rows = slices.Clone(b.rows)
		}
		rows[at] = q
		admitted = admitted || !p.Exposed
	}
	b.version = version
	if rows != nil {
		b.rows = rows
	}
	if admitted {
		b.folded = fold(b.rows)
	}
	return true
}

// join makes the rows anew. Those that are made of the same as before are kept,
// but for what they count.
func (b *Builder) join(in *Inputs, from shape) {
	j := newJoin(in)
	j.kernel()
	strays := j.strays()
	keep := b.keeps(from)
	j.finish(from, func(e *entry) *ServicePort {
		if at, ok := b.at[e.key]; ok && keep && b.origins[at] == e.origin {
			return b.rows[at]
		}
		return nil
	})
	rows, origins := make([]*ServicePort, len(j.entries)), make([]origin, len(j.entries))
	place := make([]int, len(j.entries)) // of entries in the order in which they were added
	for i := range j.entries {
		place[j.entries[i].index] = i
		e := &j.entries[i]
		rows[i], origins[i] = e.row, e.origin
		if last, ok := b.at[e.key]; ok && e.row.same(b.rows[last]) {
			rows[i] = b.rows[last]
		}
		j.at[e.key] = i
	}
	for _, hashes := range j.hashes {
		for hash, i := range hashes {
			hashes[hash] = place[i]
		}
	}
	b.shape, b.rows, b.origins, b.at, b.hashes, b.strays = from, rows, origins, j.at, j.hashes, strays
	b.views = b.views[:0]
	for i := range in.Rules {
		b.views = append(b.views, viewState{in.Rules[i].View, in.Rules[i].View.Version})
	}
	if keep {
		b.update(in)
	} else {
		_, b.version = in.Ledger.Changed(math.MaxUint64)
	}
	b.folded = fold(b.rows)
}

// keeps reports whether rows of before may be kept: all that says something of
// every row is the same. Without the API there is more of that than a row tells.
func (b *Builder) keeps(from shape) bool {
	last := b.shape
	if b.at == nil || !from.counting || from.names.catalog == nil || last.names.catalog == nil {
		return false
	}
	last.names = from.names
	return from == last
}

// uncountedFamilies has the families in which nothing counts: 0 would be wrong.
// That is all of a node without kube-proxy's iptables rules, and the families
// whose rules are unread.
type uncountedFamilies struct {
	v4, v6 bool
	// Of seen4 and seen6 the endpoints in the rules are known although nothing counts: in
	// the nftables mode.
	seen4, seen6 bool
}

func uncountedOf(in *Inputs, mode string) uncountedFamilies {
	all := slices.Contains([]string{"nftables", "ipvs", "unknown"}, mode)
	u := uncountedFamilies{
		v4: all || slices.Contains(in.Unread, netfilter.IPv4),
		v6: all || slices.Contains(in.Unread, netfilter.IPv6),
	}
	if mode != "nftables" {
		return u
	}
	for i := range in.Rules {
		v := in.Rules[i].View
		u.seen4 = u.seen4 || v.Native != nil && v.Present && v.Family == netfilter.IPv4
		u.seen6 = u.seen6 || v.Native != nil && v.Present && v.Family == netfilter.IPv6
	}
	return u
}

func (u uncountedFamilies) has(f Family) bool {
	return u.v4 && f == netfilter.IPv4 || u.v6 && f == netfilter.IPv6
}

// mark says in a row what is not known of its family.
func (u uncountedFamilies) mark(p *ServicePort) {
	if !u.has(p.Family) {
		return
	}
	p.Uncounted = true
	if seen := u.seen4 && p.Family == netfilter.IPv4 || u.seen6 && p.Family == netfilter.IPv6; !seen {
		p.KernelCount = -1
	}
}

// node tells the proxy's mode from what is in the kernel. Others have virtual
// servers too (kube-vip, keepalived), and kube-proxy's IPVS mode has a
// KUBE-SERVICES, but no chain of a Service. Where rules of the iptables and of the nftables
// mode are there it is the one to whose chains packets come, and iptables where they come
// to both: that is drift.
func node(in *Inputs) NodeInfo {
	n := NodeInfo{Name: in.NodeName, Kernel: in.Kernel, ProxyMode: "none"}
	backends := map[string]bool{}
	native, nativeServes, serves, chains := false, false, false, false
	for i := range in.Rules {
		r := &in.Rules[i]
		native = native || r.NFTablesMode
		if r.View.Native != nil {
			nativeServes = nativeServes || r.View.Recognised()
			continue
		}
		chains = chains || hasServiceChains(r.View)
		serves = serves || r.View.Recognised()
		if r.View.Present {
			backends[string(r.View.Backend)] = true
		}
	}
	n.Backend = strings.Join(slices.Sorted(maps.Keys(backends)), ",")
	present := n.Backend != ""
	switch {
	case native && !present, nativeServes && !serves:
		n.ProxyMode = "nftables"
	case in.IPVS && !chains && (present || len(in.Unread) == 0):
		n.ProxyMode = "ipvs"
	case present:
		n.ProxyMode = "iptables"
	case len(in.Unread) > 0:
		n.ProxyMode = "unknown"
	}
	return n
}

func hasServiceChains(v *kubeproxy.View) bool {
	for _, p := range v.Ports {
		if p.Service != nil || p.Local != nil {
			return true
		}
	}
	return false
}

// counting says how the numbers are made: from the rules, or not at all.
func counting(in *Inputs, mode string) []CountingMethod {
	method := "none"
	if mode == "iptables" && in.Ledger.Counting() {
		method = "rules"
		if in.Listening {
			method = "notices"
		}
	}
	refusals := method
	if mode == "nftables" && in.Tap != nil && in.Tap.Active {
		refusals = "tap"
	}
	return []CountingMethod{{What: "connections", Method: method}, {What: "refusals", Method: refusals}}
}
