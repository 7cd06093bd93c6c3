// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/svcscope/svcscope/pkg/netfilter/conntrack"
	"github.com/svcscope/svcscope/pkg/service"
)

const (
	// StaleGrace is how long an address should have been no endpoint of a port
	// before entries toward it are stale: kube-proxy takes its time to clean
	// up, and the API's news and the kernel's are not of one moment.
	StaleGrace = 30 * time.Second
	// maxSuspects bounds the addresses whose grace is known at once. Above, an
	// entry is stale without grace.
	maxSuspects = 4096
)

// FlowCounter counts the entries of the table, reading by reading: Begin, Add
// for each entry, End. Its memory depends on the number of Services, not on
// that of entries. It is for one goroutine; the zero value is ready.
type FlowCounter struct {
	// Grace is StaleGrace, or 0 for a single reading, which can't tell since
	// when an address has been no endpoint.
	Grace time.Duration

	index    *flowIndex
	digest   uint64 // of the rows that the index was made of; 0: of the API's catalog
	now      time.Time
	stalled  bool
	entries  uint64
	owners   [NumOwners]uint64
	states   [len(protocols)][maxStates]uint64
	rows     []ServiceFlows // of the index's
	ports    portSketch
	pairs    flowPairs
	taking   func(*flowPair, *pairCount) // take
	suspects map[suspect]sighting
}

// suspect is an address that is no endpoint of the port of whose entries some
// lead there.
type suspect struct {
	port service.PortName
	addr netip.AddrPort
}

// sighting is when the address was seen first, and whether this reading has.
type sighting struct {
	first time.Time
	now   bool
}

// protocols are those with counts of their own; the last one is all others.
var protocols = [...]struct {
	name   string
	number uint8 // IPPROTO_*
}{{"tcp", protocolTCP}, {"udp", protocolUDP}, {"sctp", protocolSCTP}, {"icmp", 1}, {"icmpv6", 58}, {"other", 255}}

// maxStates is above all states of a protocol: unreplied and replied, then the
// protocol's own.
const maxStates = 16

// FlowInputs is what entries are held against.
type FlowInputs struct {
	// Catalog is the API's; without a synced one, what Rows say is taken for
	// the Services.
	Catalog *service.Catalog
	Rows    []*ServicePort
	Local   []netip.Addr // the node's own addresses
	Routed  []netip.Addr // those with routes of their own to its interfaces: pods'
	// Pods are those of this node, and Policies the names of all NetworkPolicies; nil
	// where they are not watched.
	Pods     *service.Pods
	Policies *service.Policies
	// Stalled tells that the Catalog is not followed now: there may be endpoints that
	// it lacks, and no address is taken to be none that was not before.
	Stalled bool
}

// Begin starts a reading.
func (c *FlowCounter) Begin(in FlowInputs, now time.Time) {
	c.reindex(in)
	c.index.setNode(in.Local, in.Routed)
	clear(c.rows)
	c.now, c.entries, c.owners, c.states = now, 0, [NumOwners]uint64{}, [len(protocols)][maxStates]uint64{}
	c.stalled = in.Stalled
	c.ports.reset()
	c.pairs.begin()
	c.taking = c.take
	if c.suspects == nil {
		c.suspects = make(map[suspect]sighting)
	}
}

// reindex makes the index anew where the Services are others: of a table's size by
// Services, it is not made for each reading.
func (c *FlowCounter) reindex(in FlowInputs) {
	catalog, digest := in.Catalog, uint64(0)
	if catalog == nil || !catalog.Synced {
		catalog, digest = nil, frontendsDigest(in.Rows)
	}
	switch {
	case c.index == nil || digest != c.digest:
	case catalog == nil || catalog == c.index.catalog:
		return
	}
	if catalog == nil {
		catalog = catalogOf(in.Rows)
	}
	c.index, c.digest = newFlowIndex(catalog), digest
	c.rows = make([]ServiceFlows, len(c.index.rows))
}

// Add counts one entry.
func (c *FlowCounter) Add(f *conntrack.Flow) {
	c.entries++
	c.countState(f)
	takes := c.takesPort(f)
	if !takes && !redirected(f) {
		c.owners[c.index.owner(f.Orig.Src, f.Orig.Dst)]++
		return
	}
	p := pairOf(f, takes)
	n, fresh := c.pairs.count(&p, c.taking)
	if fresh {
		n.row = c.row(&p)
	}
	switch {
	case f.Closing():
		n.closing++
	case f.Status.Has(conntrack.SeenReply):
		n.replied++
	default:
		n.unreplied++
	}
	switch {
	case n.row >= 0: // take counts it
	case p.redirected:
		c.owners[OwnerRedirected]++
	default:
		c.owners[c.index.owner(f.Orig.Src, f.Orig.Dst)]++
	}
}

// row is that of the port by whose address the entries of a pair came, or -1.
func (c *FlowCounter) row(p *flowPair) int32 {
	if !p.redirected {
		return -1
	}
	return int32(c.index.find(p.to, p.protocol))
}

// take takes the count of a pair.
func (c *FlowCounter) take(p *flowPair, n *pairCount) {
	if p.source.IsValid() {
		c.ports.add(portTarget{source: p.source, destination: p.from, protocol: p.protocol}, n.all())
	}
	if n.row >= 0 {
		c.owners[OwnerService] += n.all()
		c.countService(p, n)
	}
}

// takesPort reports whether a flow takes a source port that masquerading could
// give: a masqueraded one does, and one of the node's own, whose address is the
// one that others are given. Of IPVS the addresses alone tell: it sets no bit of
// status.
func (c *FlowCounter) takesPort(f *conntrack.Flow) bool {
	to := f.Reply.Dst.Addr()
	return f.Orig.Dst.Port() != 0 && !to.IsLoopback() && (to != f.Orig.Src.Addr() || c.index.own(to))
}

func (c *FlowCounter) countState(f *conntrack.Flow) {
	p := 0
	for p < len(protocols)-1 && protocols[p].number != f.Protocol {
		p++
	}
	state := 0
	switch {
	case f.HasState && int(f.State)+2 < maxStates && p != len(protocols)-1:
		state = int(f.State) + 2
	case f.Status.Has(conntrack.SeenReply):
		state = 1
	}
	c.states[p][state]++
}

func (c *FlowCounter) countService(p *flowPair, n *pairCount) {
	row, port := &c.rows[n.row], &c.index.rows[n.row]
	row.Closing += uint64(n.closing)
	row.Replied += uint64(n.replied)
	row.Unreplied += uint64(n.unreplied)
	open := uint64(n.replied) + uint64(n.unreplied)
	if open == 0 { // they go, wherever they lead
		return
	}
	switch e := port.endpoint(p.from); {
	case e == nil:
		if c.stale(suspect{port.name, p.from}) {
			row.Stale += open
		}
	case c.index.local(e):
		row.UnansweredLocal += uint64(n.unreplied)
	default:
		row.UnansweredRemote += uint64(n.unreplied)
	}
}

// stale reports whether the address has been no endpoint for the grace.
func (c *FlowCounter) stale(s suspect) bool {
	seen, ok := c.suspects[s]
	if !ok {
		if c.stalled {
			return false
		}
		if len(c.suspects) >= maxSuspects {
			return true
		}
		seen.first = c.now
	}
	if !seen.now {
		seen.now = true
		c.suspects[s] = seen
	}
	return c.now.Sub(seen.first) >= c.Grace
}

// Abort ends a reading that is not whole: what it has not seen may be there.
func (c *FlowCounter) Abort() {
	c.pairs.end(c.taking)
	c.forget(false)
}

// forget ends the sightings of a reading, and forgets those that it lacks.
func (c *FlowCounter) forget(unseen bool) {
	for s, seen := range c.suspects {
		switch {
		case seen.now:
			seen.now = false
			c.suspects[s] = seen
		case unseen:
			delete(c.suspects, s)
		}
	}
}

// End returns what the reading had.
func (c *FlowCounter) End() *Flows {
	c.pairs.end(c.taking)
	c.forget(true)
	out := &Flows{Time: c.now, Entries: c.entries, Owners: c.owners, States: c.stateEntries(), Ports: c.ports.top()}
	for i := range c.rows {
		n := c.rows[i]
		if n.Entries() > 0 {
			n.Port, n.Family = c.index.rows[i].name, c.index.rows[i].family
			out.Services = append(out.Services, n)
		}
	}
	slices.SortFunc(out.Services, func(a, b ServiceFlows) int {
		return cmp.Or(a.Port.Compare(b.Port), cmp.Compare(a.Family, b.Family))
	})
	return out
}

func (c *FlowCounter) stateEntries() []StateEntries {
	var out []StateEntries
	for p := range c.states {
		for state, n := range c.states[p] {
			if n == 0 {
				continue
			}
			f := conntrack.Flow{Protocol: protocols[p].number}
			switch {
			case state >= 2:
				f.HasState, f.State = true, conntrack.State(state-2)
			case state == 1:
				f.Status = conntrack.SeenReply
			}
			out = append(out, StateEntries{Protocol: protocols[p].name, State: f.StateName(), Entries: n})
		}
	}
	slices.SortFunc(out, func(a, b StateEntries) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.State, b.State))
	})
	return out
}
