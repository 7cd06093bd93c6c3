// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/svcscope/svcscope/pkg/ledger"
	"github.com/svcscope/svcscope/pkg/policy"
	"github.com/svcscope/svcscope/pkg/service"
)

// DropLabels are what svcscope_drop_packets_total tells packets apart by.
type DropLabels struct {
	Reason string // a Reason, or one of policy.Reasons
	Hook   string // as ruleset.Hooks has it; unknownHook where nothing leads to the rule
	Owner  string // of policy.Owners
	// Service is the one whose packets are refused; the zero value where the rule
	// does not tell. Those without totals of their own share OtherServices.
	Service service.Name
}

// OtherServices is what Services above the cap are summed in. No Service can have that
// name: it is no DNS label.
const OtherServices = "_other"

// DropReasons returns all values of DropLabels.Reason, in a fixed order: those of
// Services, and of all other rules.
func DropReasons() []string {
	reasons := []string{string(NoEndpoints), string(NoLocalEndpoints), string(SourceRange)}
	for _, r := range policy.Reasons() {
		if r != policy.Marked { // counted where the mark was set
			reasons = append(reasons, string(r))
		}
	}
	return reasons
}

// unknownHook is of rules to which no jump is seen to lead.
const unknownHook = "unknown"

// DropKey is all that a rule tells of the packets that it refuses.
type DropKey struct {
	DropLabels
	Direction   policy.Direction
	Policy, Pod policy.Object
	Family      Family
	// unnamed: there was no room for the names of policy and pod.
	unnamed bool
}

// named reports whether a policy or pod is told.
func (k *DropKey) named() bool { return k.Policy != (policy.Object{}) || k.Pod != (policy.Object{}) }

// DropTotal counts packets refused. It only grows.
type DropTotal struct {
	DropLabels
	Packets uint64
	Created time.Time
}

// PolicyDropTotal counts the packets that rules of network policies refused. It is
// there while a rule is, and some minutes longer.
type PolicyDropTotal struct {
	Owner       string
	Direction   policy.Direction
	Policy, Pod policy.Object
	Packets     uint64
	Created     time.Time
}

// Drops counts the packets that rules refuse, each once, through rewrites of the
// rules. It is for one goroutine.
type Drops struct {
	own     func(service.Name) bool // whether a Service has totals of its own
	ledger  *ledger.Ledger
	keys    map[DropKey]*dropped
	ports   map[ledger.Port]*dropped                 // the same, by what the ledger calls them
	made    int                                      // keys so far, which number the ledger's ports
	named   int                                      // keys with a policy or pod, at most maxNamed
	used    map[ledger.Source]map[ledger.ID]*dropped // by the rules that there are
	round   uint64                                   // numbers the calls of Apply and Commit
	known   time.Time                                // when the ledger was told of the keys
	fresh   bool                                     // some it was not told of
	version uint64                                   // of the ledger's totals
	totals  map[DropLabels]*DropTotal
	// accounts are objects that count what some of the rules refuse.
	accounts accounts
	// policies are packets by what PolicyDropTotal tells them apart by, as long as one of
	// the keys is there that have it.
	policies map[policyLabels]uint64
	unnamed  uint64 // packets of keys whose names had no room
}

// policyLabels are what the packets of several keys have in common.
type policyLabels struct {
	owner       string
	direction   policy.Direction
	policy, pod policy.Object
}

func (k *DropKey) policyLabels() policyLabels {
	return policyLabels{k.Owner, k.Direction, k.Policy, k.Pod}
}

// dropped is one key's state.
type dropped struct {
	key     DropKey
	port    ledger.Port
	counted uint64 // of the ledger's total, in Drops.totals
	created time.Time
	made    uint64 // the round
}

// NewDrops returns one that has counted nothing. own tells which Services have totals
// of their own.
func NewDrops(own func(service.Name) bool) *Drops {
	return &Drops{
		own: own, ledger: ledger.New(math.MaxInt), keys: make(map[DropKey]*dropped), ports: make(map[ledger.Port]*dropped),
		used: make(map[ledger.Source]map[ledger.ID]*dropped), totals: make(map[DropLabels]*DropTotal), policies: make(map[policyLabels]uint64),
	}
}

// maxNamed bounds the keys with a policy or pod. What is refused on account of
// further ones is counted without these names.
const maxNamed = 5000

// Begin has the counters of a source start from 0, and all objects: each counts its
// whole value.
func (d *Drops) Begin(source ledger.Source, now time.Time) {
	d.accounts.read = true
	for range 2 {
		d.ledger.Apply(ledger.Reading{Source: source}, now)
	}
}

// of returns the state of a key, which is made where there is none.
func (d *Drops) of(key DropKey) *dropped {
	e := d.keys[key]
	if e == nil && key.named() {
		if d.named == maxNamed {
			return d.of(DropKey{DropLabels: key.DropLabels, Family: key.Family, unnamed: true})
		}
		d.named++
	}
	if e == nil {
		d.made++
		e = &dropped{key: key, made: d.round, port: ledger.Port{Service: ledger.Service{Name: strconv.Itoa(d.made)}, Family: uint8(key.Family)}}
		d.keys[key], d.ports[e.port] = e, e
		d.fresh = true
	}
	return e
}

// keysEvery is how often the ledger is told of the keys although none is new: it
// forgets what is gone after a time.
const keysEvery = time.Minute

// Apply takes the refusals of one backend and family as they stand now. A reading
// that leaves something in doubt wants another one, as in ledger.Ledger.Apply.
func (d *Drops) Apply(r RefusalReading, now time.Time) ledger.Outcome {
	d.round++
	r.counters = d.unaccounted(r.counters, now)
	was, used := d.used[r.reading.Source], make(map[ledger.ID]*dropped, len(r.counters))
	r.reading.Counters = d.counters(r.counters, was, used)
	d.used[r.reading.Source] = used
	d.know(now)
	out := d.ledger.Apply(r.reading, now)
	d.take(now)
	return out
}

// Commit takes what notices tell of rules that refuse packets.
func (d *Drops) Commit(c RefusalCommit, now time.Time) {
	c.ended, c.begun = d.unaccounted(c.ended, now), d.unaccounted(c.begun, now)
	if len(c.ended)+len(c.begun) == 0 {
		return
	}
	d.round++
	used := d.used[c.commit.Source]
	if used == nil {
		used = make(map[ledger.ID]*dropped)
		d.used[c.commit.Source] = used
	}
	c.commit.Ended = d.counters(c.ended, used, used)
	d.know(now)
	for i := range c.ended { // their IDs may be of others now
		delete(used, c.ended[i].counter.ID)
	}
	c.commit.Begun = d.counters(c.begun, used, used)
	d.know(now)
	d.ledger.Commit(c.commit, now)
	d.take(now)
}

// counters makes the ledger's of what is refused, and notes the keys. Of a rule that is
// known what was known of it holds, where what it tells now is news: the packets until
// now are not those of a key that is new. So it does where only the pod is not known any
// more: it has ended before its rules.
func (d *Drops) counters(all []refusedCounter, was, used map[ledger.ID]*dropped) []ledger.Counter {
	out := make([]ledger.Counter, len(all))
	for i := range all {
		id, key := all[i].counter.ID, all[i].key
		e, old := d.keys[key], was[id]
		switch {
		case old != nil && key.lacksPod(&old.key):
			e = old
		case old != nil && (e == nil || e.made == d.round):
			_ = d.of(key) // for the next time
			e = old
		case e == nil:
			e = d.of(key)
		}
		used[id] = e
		out[i] = all[i].counter
		out[i].Port = e.port
	}
	return out
}

// know tells the ledger of all keys in use, where some are new or it is time.
func (d *Drops) know(now time.Time) {
	if !d.fresh && now.Sub(d.known) < keysEvery {
		return
	}
	d.fresh, d.known = false, now
	var k ledger.Known
	told := make(map[*dropped]struct{})
	tell := func(e *dropped) {
		if _, twice := told[e]; !twice {
			told[e] = struct{}{}
			k.Ports = append(k.Ports, e.port)
		}
	}
	for _, used := range d.used {
		for _, e := range used {
			tell(e)
		}
	}
	for _, e := range d.keys {
		if e.made == d.round { // it will be used
			tell(e)
		}
	}
	d.ledger.Know(k, now)
	d.forget(told)
}

// forget drops keys that no rule has and that the ledger has forgotten. Their
// packets stay in the totals.
func (d *Drops) forget(used map[*dropped]struct{}) {
	for key, e := range d.keys {
		if _, ok := used[e]; ok {
			continue
		}
		if _, ok := d.ledger.Total(e.port); !ok {
			if key.named() {
				d.named--
			}
			delete(d.keys, key)
			delete(d.ports, e.port)
		}
	}
	left := make(map[policyLabels]struct{})
	for key := range d.keys {
		left[key.policyLabels()] = struct{}{}
	}
	maps.DeleteFunc(d.policies, func(l policyLabels, _ uint64) bool {
		_, ok := left[l]
		return !ok
	})
}

// take adds what the ledger's totals have grown by.
func (d *Drops) take(now time.Time) {
	grown, version := d.ledger.Changed(d.version)
	d.version = version
	for i := range grown {
		e := d.ports[grown[i].Port]
		if e == nil {
			continue
		}
		var n uint64
		for _, packets := range grown[i].Rejected {
			n += packets
		}
		more := n - min(n, e.counted)
		d.add(e.key.DropLabels, more, now)
		switch {
		case e.key.named():
			d.policies[e.key.policyLabels()] += more
		case e.key.unnamed:
			d.unnamed += more
		}
		e.counted, e.created = n, grown[i].Created
	}
}

// Tapped adds packets that a tap alone has counted, of rules without a counter.
func (d *Drops) Tapped(more map[DropLabels]uint64, now time.Time) {
	for labels, packets := range more {
		d.add(labels, packets, now)
	}
}

// add counts packets, also none.
func (d *Drops) add(l DropLabels, packets uint64, now time.Time) {
	labels := d.labels(l)
	t := d.totals[labels]
	if t == nil {
		t = &DropTotal{DropLabels: labels, Created: now}
		d.totals[labels] = t
	}
	t.Packets += packets
}

// labels are those that packets are told by now.
func (d *Drops) labels(l DropLabels) DropLabels {
	l.Service = ownOrOther(l.Service, d.own)
	return l
}

// ownOrOther is the name that a Service's packets are told by; that of none stays.
func ownOrOther(name service.Name, own func(service.Name) bool) service.Name {
	if name != (service.Name{}) && !own(name) {
		return service.Name{Name: OtherServices}
	}
	return name
}

// unwanted reports whether a total is of a Service that keep does not want.
func unwanted(name service.Name, keep func(service.Name) bool) bool {
	return name.Name != "" && name.Name != OtherServices && !keep(name)
}

// Totals returns the packets refused since the start, in order. Those of a Service
// that keep does not want are left out, and forgotten.
func (d *Drops) Totals(keep func(service.Name) bool) []DropTotal {
	out := make([]DropTotal, 0, len(d.totals))
	for labels, t := range d.totals {
		if unwanted(labels.Service, keep) {
			delete(d.totals, labels)
			continue
		}
		out = append(out, *t)
	}
	slices.SortFunc(out, func(a, b DropTotal) int {
		return cmp.Or(
			cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Hook, b.Hook), cmp.Compare(a.Owner, b.Owner), a.Service.Compare(b.Service),
		)
	})
	return out
}

// Unnamed counts the packets that Policies does not tell as there are too many names.
func (d *Drops) Unnamed() uint64 { return d.unnamed }

// Policies returns what rules of network policies refused, in order.
func (d *Drops) Policies() []PolicyDropTotal {
	sums := make(map[policyLabels]PolicyDropTotal)
	for key, e := range d.keys {
		if !key.named() {
			continue
		}
		l := key.policyLabels()
		t, ok := sums[l]
		if !ok {
			t = PolicyDropTotal{
				Owner: key.Owner, Direction: key.Direction, Policy: key.Policy, Pod: key.Pod, Created: e.created, Packets: d.policies[l],
			}
		}
		if e.created.Before(t.Created) {
			t.Created = e.created
		}
		sums[l] = t
	}
	out := make([]PolicyDropTotal, 0, len(sums))
	for _, t := range sums {
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b PolicyDropTotal) int {
		return cmp.Or(
			cmp.Compare(a.Owner, b.Owner), cmp.Compare(a.Direction, b.Direction),
			a.Policy.Compare(b.Policy), a.Pod.Compare(b.Pod),
		)
	})
	return out
}
