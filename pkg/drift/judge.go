// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"maps"
	"slices"
	"time"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// Reading is what a Judge is fed with: one reading of all rules, as the agent makes them
// at its interval.
type Reading struct {
	Time   time.Time
	Result *Result
	// Current is true while the API is followed, so that the Catalog of Result is what
	// the API says, but for a second.
	Current bool
	// Commits are those since the last Reading, in the order of time.
	Commits []Commit
	// ChangedAt tells when the latest change of a Service or of its endpoints arrived
	// from the API, the zero time where that is not known. May be nil: a change then
	// counts from the Reading that has it.
	ChangedAt func(service.Name) time.Time
}

// Drift is a Difference that lasts although kube-proxy has had its time.
type Drift struct {
	Difference
	Since time.Time // the Reading that saw the difference first
}

// Unknown is why nothing is said of Services.
type Unknown string

// The reasons.
const (
	// APIUnknown: the API is not followed. What is wrong with the node's own chains is
	// told all the same.
	APIUnknown Unknown = "api"
	// ModeUnknown: no rules of kube-proxy's iptables mode were recognised.
	ModeUnknown Unknown = "mode"
)

// Verdict is what a Judge says after a Reading.
type Verdict struct {
	// Drifts is what is drift now, in the order of Difference.Compare.
	Drifts []Drift
	// Began and Ended are those that this Reading has made drift, and those that it has
	// not found any more. What is not judged for the moment has not ended.
	Began, Ended []Drift
	// Unknown is empty where Services are judged.
	Unknown Unknown
	// Waiting has, by family, since when a change of the API waits for kube-proxy.
	Waiting map[netfilter.Family]time.Time
}

// DefaultGrace is how long kube-proxy has at least to write what the API has changed, and
// the API to tell of what kube-proxy has written.
const DefaultGrace = 10 * time.Second

const (
	// edits is how long a difference that nothing explains must last at least: two
	// readings may be close together, and kube-proxy writes filter and nat one after
	// the other.
	edits = 2 * time.Second
	// syncs is how long a change may wait without any commit, at least, and slowSyncs
	// how many of the slowest sync seen.
	syncs     = time.Minute
	slowSyncs = 5
	// early is how much earlier a change may be announced than a Catalog has it.
	early = 5 * time.Second
)

// Judge tells drift from what kube-proxy is about to write. It is for one goroutine.
type Judge struct {
	grace    time.Duration
	entries  map[Difference]*entry
	changes  map[PortFamily]change
	families map[netfilter.Family]*pace
	told     map[Difference]time.Time // what is drift, and since when
	current  bool                     // the last Reading was
}

// entry is one difference from the reading that saw it first on.
type entry struct {
	first, last time.Time // when it was seen
	before      time.Time // the judged reading before the first
	readings    int
	drift       bool
	cause       Difference // what is told of it
}

// change is the latest one of what the API wants of a port.
type change struct {
	at time.Time
	// open: since then no reading has found the port as the API wants it.
	open bool
	// guessed: the port differed when judging began, and it is not known whether a
	// change came before.
	guessed bool
}

// NewJudge returns a Judge that has seen nothing. A grace of 0 is DefaultGrace.
func NewJudge(grace time.Duration) *Judge {
	if grace == 0 {
		grace = DefaultGrace
	}
	return &Judge{
		grace: grace, entries: make(map[Difference]*entry), changes: make(map[PortFamily]change),
		families: make(map[netfilter.Family]*pace), told: make(map[Difference]time.Time),
	}
}

// Judge takes the next Reading.
func (j *Judge) Judge(r *Reading) *Verdict {
	for i := range r.Commits {
		if c := &r.Commits[i]; r.Result.Writes(c) {
			j.pace(c.Family).commit(c)
		}
	}
	for f, p := range j.families {
		if !slices.Contains(r.Result.Families, f) {
			p.forget()
		}
	}
	for _, f := range r.Result.Families {
		j.pace(f)
	}
	v := &Verdict{Waiting: make(map[netfilter.Family]time.Time)}
	j.change(r)
	j.see(r)
	j.settle(r)
	j.wait(r, v)
	j.decide(r, v)
	for _, f := range r.Result.Families {
		j.pace(f).read(r)
	}
	j.current = r.Current
	switch {
	case len(r.Result.Families) == 0:
		v.Unknown = ModeUnknown
	case !r.Current:
		v.Unknown = APIUnknown
	}
	for _, list := range [...][]Drift{v.Drifts, v.Began, v.Ended} {
		slices.SortFunc(list, func(a, b Drift) int { return a.Compare(b.Difference) })
	}
	return v
}

func (j *Judge) pace(f netfilter.Family) *pace {
	p := j.families[f]
	if p == nil {
		p = &pace{}
		j.families[f] = p
	}
	return p
}

// judged reports whether a reading tells if a difference is there. Where rules of two modes
// are, kube-proxy's own mode is not recognised.
func (r *Reading) judged(d *Difference) bool {
	return d.Kind == TwoModes || slices.Contains(r.Result.Families, d.Family) && (r.Current || d.OfNode() && !d.InFlight)
}

// change notes what the API wants otherwise. Changes of a time in which it was not
// followed count from when it is again: kube-proxy may have been without it, too.
func (j *Judge) change(r *Reading) {
	if !j.current && r.Current {
		for pf, c := range j.changes {
			c.at = r.Time
			j.changes[pf] = c
		}
	}
	for _, pf := range r.Result.Changed {
		at := r.Time
		if j.current && r.Current {
			if told := r.changedAt(pf.Port.Name); !told.IsZero() && !told.After(at) && !told.Before(j.pace(pf.Family).api.Add(-early)) {
				at = told
			}
		}
		j.changes[pf] = change{at: at, open: true}
	}
	for i := range r.Result.Differences {
		d := &r.Result.Differences[i]
		pf := PortFamily{d.Port, d.Family}
		if d.InFlight && r.judged(d) && j.pace(d.Family).api.IsZero() && !j.changes[pf].open {
			j.changes[pf] = change{at: r.Time, open: true, guessed: true}
		}
	}
}

func (r *Reading) changedAt(name service.Name) time.Time {
	if r.ChangedAt == nil {
		return time.Time{}
	}
	return r.ChangedAt(name)
}

// see brings the entries up to date.
func (j *Judge) see(r *Reading) {
	for i := range r.Result.Differences {
		d := r.Result.Differences[i]
		if !r.judged(&d) {
			continue
		}
		e := j.entries[d]
		if e == nil {
			e = &entry{first: r.Time, before: j.pace(d.Family).before(&d)}
			j.entries[d] = e
		}
		e.last, e.cause = r.Time, r.Result.Cause(&d)
		e.readings++
	}
	maps.DeleteFunc(j.entries, func(d Difference, e *entry) bool {
		return !e.last.Equal(r.Time) && (r.judged(&d) || !e.drift)
	})
}

// settle finds the changes that are done: their ports differ in nothing that a change
// explains. They are forgotten when rules of before can come no more.
func (j *Judge) settle(r *Reading) {
	if len(j.changes) == 0 || !r.Current {
		return
	}
	differ := make(map[PortFamily]bool)
	for i := range r.Result.Differences {
		if d := &r.Result.Differences[i]; d.InFlight {
			differ[PortFamily{d.Port, d.Family}] = true
		}
	}
	for pf, c := range j.changes {
		switch {
		case c.open && differ[pf]:
		case r.Time.Sub(c.at) > j.pace(pf.Family).echo()+early:
			delete(j.changes, pf)
		default:
			c.open = false
			j.changes[pf] = c
		}
	}
}

// wait finds since when changes wait for kube-proxy, and whether for too long.
func (j *Judge) wait(r *Reading, v *Verdict) {
	oldest := make(map[netfilter.Family]time.Time)
	if r.Current {
		for pf, c := range j.changes {
			old, ok := oldest[pf.Family]
			if c.open && !c.guessed && j.pace(pf.Family).commits(c.at) == 0 && (!ok || c.at.Before(old)) {
				oldest[pf.Family] = c.at
			}
		}
	}
	for f, p := range j.families {
		if p.wait(oldest[f]); !p.waiting.IsZero() {
			v.Waiting[f] = p.waiting
		}
		if !r.Current || !slices.Contains(r.Result.Families, f) {
			continue
		}
		d := Difference{Family: f, Kind: NotSyncing}
		was := p.stuck
		switch p.stuck = p.stands(r); {
		case p.stuck && !was:
			p.stuckSince = p.waiting
			v.Began = append(v.Began, Drift{d, p.stuckSince})
		case was && !p.stuck:
			v.Ended = append(v.Ended, Drift{d, p.stuckSince})
		}
		if p.stuck {
			v.Drifts = append(v.Drifts, Drift{d, p.stuckSince})
		}
	}
}

// decide tells which entries are drift, and those of one cause once.
func (j *Judge) decide(r *Reading, v *Verdict) {
	now, kept := make(map[Difference]time.Time), make(map[Difference]bool)
	for d, e := range j.entries {
		p := j.pace(d.Family)
		if !r.judged(&d) || d.InFlight && p.stuck {
			kept[e.cause] = kept[e.cause] || e.drift
			continue
		}
		e.drift = e.drift || e.readings >= 2 && j.lasts(r, &d, e, p)
		if since, ok := now[e.cause]; e.drift && (!ok || e.first.Before(since)) {
			now[e.cause] = e.first
		}
	}
	for d, since := range j.told {
		if _, ok := now[d]; !ok && !kept[d] {
			v.Ended = append(v.Ended, Drift{d, since})
			delete(j.told, d)
		}
	}
	for d, since := range now {
		if was, ok := j.told[d]; ok {
			since = was
		} else {
			v.Began = append(v.Began, Drift{d, since})
		}
		j.told[d] = since
		v.Drifts = append(v.Drifts, Drift{d, since})
	}
}

// lasts reports whether kube-proxy has had its time with a difference that two readings
// have seen.
func (j *Judge) lasts(r *Reading, d *Difference, e *entry, p *pace) bool {
	if !d.InFlight {
		return true
	}
	c := j.changes[PortFamily{d.Port, d.Family}]
	quiet, told := max(j.grace, p.echo()), later(r.changedAt(d.Port.Name), c.at)
	written := p.last.Seen.After(e.before) // so that kube-proxy may have brought it
	switch {
	case p.busy(r):
		return false
	case c.open && c.at.After(e.before): // the difference came with the change, and another one may have come and gone
		return p.hasWritten(r, c.at, told, j.grace) || c.guessed && p.rests(r, c.at)
	case c.open: // it came later, by what kube-proxy wrote
		return p.hasWritten(r, c.at, later(e.first, told), j.grace)
	// Nobody has changed the API, as far as is known here: somebody has edited the rules.
	// But rules of a change that was taken back may come late, and be put right later still;
	// and kube-proxy may know of a change that is not known here yet: it then has written.
	case !told.Before(e.before.Add(-early - p.echo())):
		if written && p.last.Backend != ruleset.Legacy { // there it may have been an edit
			quiet = max(quiet, retries)
		}
		return p.settled(r.Time, later(e.first, told), quiet)
	case written:
		return p.settled(r.Time, e.first, quiet)
	}
	return r.Time.Sub(e.first) >= edits
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
