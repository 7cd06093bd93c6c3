// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// modelSeries is what the ledger should know of a port.
type modelSeries struct {
	uid, toldUID string
	api          bool // it is in the API's list
	known        bool // and was in the last one that the ledger was told
	ever         bool
	met          bool // a whole reading has told its rules by its name since
	leftAt       time.Time
	left         ways // the truth when the ledger was told that it is gone
	whole        ways // the truth when the last whole reading began

	series  int  // grows when another one starts
	start   ways // the truth then
	unkept  bool // packets were lost while it was not known
	exempt  bool // losses since the last check are allowed
	deficit ways // at the last check
	last    PortTotal
	lastOf  int // the series of last
}

// lose notes that a rule of the port is replaced.
func (p *modelPort) lose(m *model, r *rule) {
	if m.joined {
		if r.Kind == Refusal && !p.named {
			p.exempt = true // nothing tells whose packets they were
		}
		return
	}
	if !r.read {
		m.lossy[r.ID.Table] = true // it came and went between two readings
	}
	if !p.known || !p.met {
		p.unkept, p.exempt = true, true
	}
}

// run is a model and the ledger that watches it.
type run struct {
	*model
	l        *Ledger
	now      time.Time
	stop     func(format string, args ...any)
	story    []string        // what the ledger was told
	replaced map[string]bool // since the last check
	dips     int             // in a row
	deaf     bool            // there are no witnesses
	checked  int             // the generation of the last check
	dipped   bool            // a reading since was within a dip
	// introduced: a Service came to be known since the last reading.
	introduced bool
}

// drive runs steps random ones.
func drive(d dice, source Source, steps int, stop func(string, ...any)) {
	r := &run{model: newModel(d, source), l: New([]int{10, 10, 10, 1}[d.IntN(4)]), now: start, stop: stop, replaced: make(map[string]bool), dips: 1}
	r.deaf = d.IntN(3) == 0
	for _, p := range r.ports {
		p.api = !r.flip(4)
	}
	r.know()
	r.traffic(30)
	r.apply(r.read(nil, 0))
	// The externals between the two readings of a baseline are held back
	// from the cluster's share.
	burst := 2 * r.IntN(2)
	if source == nft { // the second may lie within a dip
		r.traffic(burst)
	}
	for _, p := range r.ports {
		p.start, p.whole, p.unkept = p.truth, p.truth, burst > 0
	}
	r.apply(r.read(nil, burst))
	if source == nft && r.flip(2) {
		r.join()
	}
	r.check(burst > 0)
	for range steps {
		r.step()
		r.within()
	}
	r.check(false)
}

// note adds a line to the story of the run.
func (r *run) note(format string, args ...any) {
	r.story = append(r.story, fmt.Sprintf(format, args...))
}

func values(cs []Counter) string {
	var b strings.Builder
	for _, c := range cs {
		fmt.Fprintf(&b, " %s/%d.%d:%d=%d", c.Chain, c.ID.TableHandle, c.ID.RuleHandle, c.ID.Digest[2], c.Packets)
	}
	return b.String()
}

// fail ends the run with the end of its story.
func (r *run) fail(format string, args ...any) {
	for _, p := range r.ports {
		t, _ := r.l.Total(p.Port)
		r.note("%s: truth %+v start %+v ledger %+v", p.Service.Name, p.truth, p.start, t.ways())
	}
	r.stop("%s\n"+format, append([]any{strings.Join(r.story[max(0, len(r.story)-14):], "\n")}, args...)...)
}

func (r *run) step() {
	r.traffic(12)
	switch r.IntN(16) {
	case 0, 1, 2, 3:
		r.observe(nil)
	case 4, 5:
		r.partly()
	case 6, 7:
		r.sync()
	case 8:
		r.zero()
	case 9:
		r.restore()
	case 10:
		r.flush()
	case 11, 12:
		r.change()
	case 13:
		r.deliver(r.generation - r.IntN(3))
	case 14:
		r.listen()
	case 15:
		r.check(false)
	}
}

// listen joins, leaves, or loses notices.
func (r *run) listen() {
	switch {
	case r.source == leg:
	case !r.joined:
		r.join()
	case r.flip(2):
		r.drop()
		r.joined = false
	default: // an overrun
		r.drop()
		r.join()
	}
}

// drop loses what has not been delivered.
func (r *run) drop() {
	r.deliver(r.alone)
	for _, n := range r.queue {
		for _, k := range n.ended {
			r.lossy[k.ID.Table] = true // it may have begun and ended unheard
			if !k.at.known {
				k.at.unkept, k.at.exempt = true, true
			}
		}
	}
	r.queue = nil
}

// join begins to listen, and reads all.
func (r *run) join() {
	r.joined = true
	r.observe(func(rd *Reading) { rd.Listening = false })
}

// deliver gives the ledger the notices of commits up to a generation.
func (r *run) deliver(generation int) {
	for len(r.queue) > 0 && r.queue[0].generation <= generation {
		n := r.queue[0]
		r.queue = r.queue[1:]
		c := Commit{Source: r.source, Ended: r.names(n.ended), Begun: r.names(n.begun), InFlight: inFlight}
		r.l.Commit(c, r.now)
		r.note("commit %d ended%s begun%s", n.generation, values(c.Ended), values(c.Begun))
	}
}

// names gives counters the ports that are known now.
func (r *run) names(ks []told) []Counter {
	var counters []Counter
	for _, k := range ks {
		if k.at != nil && (k.at.known || k.at.named) {
			k.Counter.Port = k.at.Port
		}
		counters = append(counters, k.Counter)
	}
	return counters
}

// dump is a reading before it is named.
type dump struct {
	Reading
	counters   []told
	generation int
}

// read takes the counters one after another; up to burst packets come in
// before each.
func (r *run) read(cover []*modelPort, burst int) *dump {
	d := &dump{generation: r.generation, Reading: reading(r.source)}
	d.Listening = r.joined
	take := func(rules ...*rule) {
		for _, k := range rules {
			r.traffic(burst)
			k.read = true
			d.counters = append(d.counters, told{k.Counter, k.at})
		}
	}
	ext := func(ports []*modelPort) {
		for _, p := range ports {
			if p.ext != nil {
				take(p.ext)
			}
		}
	}
	ports := r.ports
	if cover != nil {
		ports = cover
		d.Cover = make(Cover)
	}
	if r.source == leg {
		ext(ports)
	}
	disp := func(now bool) {
		for _, p := range ports {
			if now && p.disp != nil {
				take(p.disp)
			}
		}
	}
	first := r.flip(2)
	disp(first)
	for _, p := range ports {
		take(p.conns...)
		if cover != nil {
			d.Cover[ChainName{"nat", "SVC-" + p.Service.Name}] = struct{}{}
			d.Cover[ChainName{"nat", "EXT-" + p.Service.Name}] = struct{}{}
		}
	}
	disp(!first)
	if r.source == nft {
		ext(ports)
	}
	if cover == nil || r.flip(2) {
		take(r.rules("filter")...)
		if cover != nil {
			d.Cover[ChainName{"filter", "KUBE-SERVICES"}] = struct{}{}
		}
	}
	if r.source == leg && !r.deaf || r.source == nft && (cover == nil || !r.flip(4)) {
		for table, w := range r.witness {
			d.Witnesses = append(d.Witnesses, Witness{ID: w.ID, Rule: [16]byte{table[0]}, Packets: w.Packets})
		}
	}
	return d
}

// apply gives a reading to the ledger when the notices before it are.
func (r *run) apply(d *dump) Outcome {
	r.deliver(d.generation)
	d.Counters = r.names(d.counters)
	for _, p := range r.ports {
		p.met = p.met || p.known && d.Cover == nil
	}
	r.now = r.now.Add(100 * time.Millisecond)
	if r.source == leg {
		r.dip(d)
	}
	out := r.l.Apply(d.Reading, r.now)
	r.note("reading %d listening %v cover %v%s: %+v", d.generation, d.Listening, d.Cover, values(d.Counters), out)
	for table := range out.Replaced {
		r.replaced[table] = true
	}
	// What was reset while its Service was not known is told when it is.
	if d.Listening && out.Replaced != nil && !r.introduced {
		r.fail("a loss in %v while listening", out.Replaced)
	}
	r.introduced = false
	return out
}

// dip zeroes the counters of one table or two, as libiptc does, never more
// than twice in a row.
func (r *run) dip(d *dump) {
	if !r.flip(4) || r.dips > 1 {
		r.dips = 0
		return
	}
	r.dips++
	r.dipped = true
	table := []string{"nat", "filter", ""}[r.IntN(3)]
	for i := range d.Counters {
		if k := &d.Counters[i]; k.ID.Table != table {
			k.Packets = min(k.Packets/2, uint64(r.IntN(2)))
			if k.Kind == External { // its packets pass a Connection counter, too
				k.Packets = 0
			}
		}
	}
	for i := range d.Witnesses {
		if w := &d.Witnesses[i]; w.ID.Table != table {
			w.Packets = min(w.Packets/2, uint64(r.IntN(3)))
		}
	}
}

// observe takes a whole reading and those that it calls for.
func (r *run) observe(first func(*Reading)) {
	for _, p := range r.ports {
		p.whole = p.truth
	}
	d := r.read(nil, 3)
	if first != nil {
		first(&d.Reading)
	}
	if r.flip(3) {
		r.traffic(3)
		if r.joined && r.flip(2) {
			r.sync()
		}
	}
	out := r.apply(d)
	r.dirty = false
	r.settle(out, 1)
}

func (r *run) settle(out Outcome, burst int) {
	for range 4 {
		if !out.Suspect && !out.Pending {
			return
		}
		out = r.apply(r.read(nil, burst))
	}
}

// partly reads the chains of some ports.
func (r *run) partly() {
	if r.source == leg {
		return
	}
	cover := slices.DeleteFunc(slices.Clone(r.ports), func(*modelPort) bool { return r.flip(2) })
	if len(cover) > 0 {
		r.apply(r.read(cover, 2))
	}
}

// change is one of the API.
func (r *run) change() {
	p := r.ports[r.IntN(len(r.ports))]
	switch {
	case !p.api:
		p.api = true
		if r.flip(2) {
			p.uid += "0"
		}
	case r.flip(3):
		p.uid += "0"
	default:
		p.api = false
	}
	if r.flip(4) {
		r.observe(nil) // no minute goes by without one
		r.now = r.now.Add(time.Duration(r.IntN(4)) * 2 * time.Minute)
		for _, p := range r.ports {
			p.unkept = true
		}
	}
	if !r.flip(4) {
		r.know()
	}
}

// know tells the ledger the API's list.
func (r *run) know() {
	k := Known{UIDs: make(map[Service]string), Complete: true}
	for _, p := range r.ports {
		if p.api {
			k.Ports = append(k.Ports, p.Port)
			k.UIDs[p.Service] = p.uid
		}
		p.tell(r)
	}
	r.l.Know(k, r.now)
	r.note("know %v", k.UIDs)
}
