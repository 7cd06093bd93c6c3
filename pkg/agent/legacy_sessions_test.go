// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"slices"
	"testing"
	"time"

	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/netfilter"
)

// bench drives sessions by a clock of its own.
type bench struct {
	t      *testing.T
	s      *sessions
	now    time.Time
	cost   map[legacyTable]time.Duration
	reads  map[legacyTable]int
	gap    map[legacyTable]time.Duration // as the last reading that saw a change told it
	inside time.Duration                 // that readings took of sessions
	late   int
}

var (
	natTable    = legacyTable{netfilter.IPv4, "nat"}
	filterTable = legacyTable{netfilter.IPv4, "filter"}
)

func newBench(t *testing.T, nat, filter time.Duration) *bench {
	t.Helper()
	now := time.Unix(1000, 0)
	b := &bench{
		t: t, s: newSessions(), now: now, reads: map[legacyTable]int{}, gap: map[legacyTable]time.Duration{},
		cost: map[legacyTable]time.Duration{natTable: nat, filterTable: filter},
	}
	for table := range b.cost {
		b.read(table, false)
	}
	return b
}

func (b *bench) read(table legacyTable, changed bool) {
	b.reads[table]++
	begin := b.now
	b.now = b.now.Add(b.cost[table])
	b.s.expire(b.now)
	if b.s.held() {
		b.inside += b.cost[table]
	}
	b.s.read(tableRead{table, begin, b.now, changed})
	if changed {
		b.gap[table] = b.s.blind(table)
	}
	if b.s.tables[table].late {
		b.late++
	}
}

// until makes the readings that are due before a time, which it makes now.
func (b *bench) until(end time.Time, changed func(legacyTable) bool) {
	for {
		table, at, ok := b.s.next()
		if !ok || at.After(end) {
			break
		}
		if at.After(b.now) {
			b.now = at
		}
		b.read(table, changed(table))
	}
	if end.After(b.now) {
		b.now = end
	}
}

// session is a writer that holds the lock for so long, and replaces table nine
// tenths into it.
func (b *bench) session(length time.Duration, table legacyTable, dirty map[legacyTable]bool) {
	begin := b.now
	changed := func(t legacyTable) bool { d := dirty[t]; delete(dirty, t); return d }
	b.s.event(kernel.LockEvent{Kind: kernel.LockOpened, At: begin})
	b.until(begin.Add(length*9/10), changed)
	dirty[table] = true
	b.until(begin.Add(length), changed)
	b.s.event(kernel.LockEvent{Kind: kernel.LockClosed, At: b.now})
}

// sync is what kube-proxy does: a session for filter, one for nat, and a second's pause.
func (b *bench) sync(nat time.Duration) {
	dirty := map[legacyTable]bool{}
	b.session(4*ms, filterTable, dirty)
	b.now = b.now.Add(50 * time.Microsecond)
	b.session(nat, natTable, dirty)
	b.until(b.now.Add(time.Second), func(t legacyTable) bool { d := dirty[t]; delete(dirty, t); return d })
	if len(dirty) > 0 {
		b.t.Errorf("no reading after the session has seen that %v changed", dirty)
	}
}

const ms = time.Millisecond

func TestSessionsReadJustBeforeTheWrite(t *testing.T) {
	tests := []struct {
		name                string
		cost, length        time.Duration
		shorter             time.Duration // the shortest of the sessions
		blindest, filterMax time.Duration // at most, from the begin of a reading, once it has learned
		reads               int           // of nat in a sync
		again               int           // how many more, and too late, where it costs little
	}{
		{"100 Services", 300 * time.Microsecond, 25 * ms, 22 * ms, 10 * ms, 4 * ms, 2, 1},
		{"1,000 Services", 6 * ms, 110 * ms, 100 * ms, 46 * ms, 4 * ms, 2, 0},
		{"10,000 Services", 130 * ms, 2200 * ms, 1900 * ms, 900 * ms, 4 * ms, 2, 0},
		{"a reading that takes too much of the session", 60 * ms, 400 * ms, 300 * ms, 2 * time.Second, 4 * ms, 1, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, tt.cost, 80*time.Microsecond)
			spent := time.Duration(0)
			for i := range 62 {
				length := tt.length
				if i%3 == 0 {
					length = tt.shorter
				}
				b.sync(length)
				if i < 12 {
					b.reads, b.late, b.inside, spent = map[legacyTable]int{}, 0, 0, 0
					continue
				}
				spent += length + 4*ms
				if got := b.gap[natTable]; got > tt.blindest {
					t.Errorf("sync %d: nat not looked at for %v, want at most %v", i, got, tt.blindest)
				}
				if got := b.gap[filterTable]; got > tt.filterMax {
					t.Errorf("sync %d: filter not looked at for %v, want at most %v", i, got, tt.filterMax)
				}
			}
			if b.late > 1+50*tt.again {
				t.Errorf("%d readings came after the write", b.late)
			}
			if b.inside*share > spent {
				t.Errorf("readings took %v of %v", b.inside, spent)
			}
			if got, least := b.reads[natTable], 50*tt.reads; got < least || got > least+50*tt.again {
				t.Errorf("nat was read %d times in 50 syncs, want %d to %d", got, least, least+50*tt.again)
			}
		})
	}
}

func TestSessionsOfOtherCommandsAreNotLearnedFrom(t *testing.T) {
	b := newBench(t, 500*time.Microsecond, 80*time.Microsecond)
	for range 20 {
		b.sync(25 * ms)
		for range 10 { // iptables -C
			begin := b.now
			b.s.event(kernel.LockEvent{Kind: kernel.LockOpened, At: begin})
			b.until(begin.Add(2*ms), func(legacyTable) bool { return false })
			b.s.event(kernel.LockEvent{Kind: kernel.LockClosed, At: b.now})
			b.now = b.now.Add(ms)
		}
	}
	if got := b.gap[natTable]; got > 12*ms {
		t.Errorf("nat not looked at for %v", got)
	}
	if got := b.s.tables[natTable].lengths.usual(); got < 20*ms {
		t.Errorf("usual length of a session that changes nat: %v", got)
	}
}

func TestSessionsMoveAwayFromTheWrite(t *testing.T) {
	b := newBench(t, 500*time.Microsecond, 80*time.Microsecond)
	for range 10 {
		b.sync(40 * ms)
	}
	for range 40 { // the rules became fewer
		b.sync(20 * ms)
	}
	b.late = 0
	for range 10 {
		b.sync(20 * ms)
	}
	if b.late > 0 {
		t.Errorf("%d readings still come after the write", b.late)
	}
}

func TestSessionsTellHowLongTheLockIsOpen(t *testing.T) {
	start := time.Unix(1000, 0)
	s := newSessions()
	at := func(d time.Duration) time.Time { return start.Add(d) }
	event := func(k kernel.LockEventKind, d time.Duration) { s.event(kernel.LockEvent{Kind: k, At: at(d)}) }
	event(kernel.LockOpened, 12*time.Second)
	event(kernel.LockOpened, 12*time.Second+500*ms) // waits
	event(kernel.LockClosed, 13*time.Second)
	if !s.held() {
		t.Error("the second one holds the lock")
	}
	event(kernel.LockClosed, 17*time.Second)
	event(kernel.LockClosed, 19*time.Second) // of an opening that nobody saw
	event(kernel.LockOverflow, 21*time.Second)
	if s.held() {
		t.Error("nobody holds the lock")
	}
	if got := s.lockOpen(at(50 * time.Second)); got != 5*time.Second {
		t.Errorf("open for %v, want 5s", got)
	}
}

// TestSessionsForgetWhatWasMerged has two closings told as one.
func TestSessionsForgetWhatWasMerged(t *testing.T) {
	b := newBench(t, 300*time.Microsecond, 80*time.Microsecond)
	for range 3 {
		b.sync(25 * ms)
	}
	begin := b.now
	for _, kind := range []kernel.LockEventKind{kernel.LockOpened, kernel.LockOpened, kernel.LockClosed} {
		b.s.event(kernel.LockEvent{Kind: kind, At: b.now})
		b.until(b.now.Add(10*ms), func(legacyTable) bool { return false })
	}
	if !b.s.held() {
		t.Fatal("the second writer is at work, for all that is known")
	}
	for b.s.held() && b.now.Sub(begin) < time.Second { // what is read in its session, again and again
		table, at, ok := b.s.next()
		if !ok {
			t.Fatal("nothing is read any more while the lock is held, for all that is known")
		}
		b.now = at
		if b.s.expire(b.now); b.s.held() {
			b.read(table, false)
		}
	}
	if b.s.read(tableRead{natTable, b.now, b.now.Add(ms), true}) {
		t.Error("a writer is at work that has ended, most likely: what is new would not be believed until the next session")
	}
	if wait := b.now.Sub(begin); wait < leastPatience || wait > 2*leastPatience {
		t.Errorf("the lock is held for %v, want about %v after the second one began", wait, leastPatience)
	}
	if got := b.s.lockOpen(b.now); got < 3*29*ms+20*ms || got > 3*29*ms+25*ms {
		t.Errorf("open for %v in all, want what was seen of it", got)
	}
}

// TestSessionsWaitForLongOnes has sessions that take longer than any before.
func TestSessionsWaitForLongOnes(t *testing.T) {
	s := newSessions()
	now := time.Unix(1000, 0)
	for i, tt := range []struct {
		length  time.Duration
		patient bool
	}{{50 * ms, true}, {700 * ms, false}, {700 * ms, true}, {800 * ms, true}, {2 * time.Second, false}, {2 * time.Second, true}} {
		s.event(kernel.LockEvent{Kind: kernel.LockOpened, At: now})
		now = now.Add(tt.length)
		s.expire(now.Add(-ms))
		if s.held() != tt.patient {
			t.Errorf("session %d of %v: still held %v, want %v", i, tt.length, s.held(), tt.patient)
		}
		s.event(kernel.LockEvent{Kind: kernel.LockClosed, At: now})
		if s.held() {
			t.Errorf("session %d: held after its end", i)
		}
		now = now.Add(time.Second)
	}
}

// TestLockTimeOnlyGrows has a session end earlier than it was told to go on for.
func TestLockTimeOnlyGrows(t *testing.T) {
	now := time.Unix(1000, 0)
	l := legacyLock{path: "lock", watch: func(string) (lockWatch, error) { return quietLock{}, nil }}
	if err := l.retry(now); err != nil {
		t.Fatal(err)
	}
	last := time.Duration(0)
	told := func(at time.Duration) {
		t.Helper()
		got := l.openTime(now.Add(at)).Open
		if got < last {
			t.Errorf("after %v it was open for %v, %v earlier", at, got, last)
		}
		last = got
	}
	event := func(k kernel.LockEventKind, at time.Duration) {
		l.take(kernel.LockEvent{Kind: k, At: now.Add(at)}, true, now.Add(at))
	}
	event(kernel.LockOpened, 0)
	event(kernel.LockOpened, 10*ms)
	event(kernel.LockClosed, 20*ms) // of both
	told(900 * ms)
	l.drain(now.Add(3 * time.Second))
	told(3 * time.Second)
	event(kernel.LockOpened, 4*time.Second)
	event(kernel.LockClosed, 8*time.Second)
	told(9 * time.Second)
	if want := 4*time.Second + 20*ms; last != want {
		t.Errorf("open for %v, want %v", last, want)
	}
}

// TestSessionsOfTablesThatAreNotDue has filter written in one session and nat in
// the next one, 4 ms later, as kube-proxy does. What its writer's pace says is not
// due is left alone.
func TestSessionsOfTablesThatAreNotDue(t *testing.T) {
	for _, tt := range []struct {
		name string
		due  time.Duration // from now
		cost time.Duration
		want int // readings of nat in both sessions
	}{
		{"it may be written", 0, 900 * time.Microsecond, 2},
		{"it may be, and takes long", 0, 1300 * time.Microsecond, 0},
		{"not due", ms, 900 * time.Microsecond, 0},
		{"not due, and cheap", ms, 100 * time.Microsecond, 2},
		{"not due for long, and cheap", farOff + ms, 100 * time.Microsecond, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, tt.cost, 100*time.Microsecond)
			b.s.quiet = func(table legacyTable, _ time.Time) time.Duration {
				if table == natTable {
					return tt.due
				}
				return 0
			}
			b.now = b.now.Add(time.Second)
			for range 2 {
				before := b.reads[natTable]
				b.s.event(kernel.LockEvent{Kind: kernel.LockOpened, At: b.now})
				b.until(b.now.Add(4*ms), never)
				b.s.event(kernel.LockEvent{Kind: kernel.LockClosed, At: b.now})
				tt.want -= b.reads[natTable] - before
			}
			if tt.want != 0 {
				t.Errorf("%d more readings are wanted", tt.want)
			}
		})
	}
}

func never(legacyTable) bool { return false }

// TestSessionsThatAreTooShort: a writer reads what it writes.
func TestSessionsThatAreTooShort(t *testing.T) {
	b := newBench(t, 100*ms, 100*time.Microsecond)
	for i, tt := range []struct {
		length time.Duration
		reads  int // of nat after it
	}{{40 * ms, 0}, {80 * ms, 1}, {40 * ms, 0}} {
		before := b.reads[natTable]
		b.session(tt.length, filterTable, map[legacyTable]bool{})
		b.until(b.now.Add(2*time.Second), never)
		if got := b.reads[natTable] - before; got != tt.reads {
			t.Errorf("session %d of %v: nat was read %d times, want %d", i, tt.length, got, tt.reads)
		}
	}
}

// TestSessionsInLine has a writer wait for another one: its session begins when
// the other one ends.
func TestSessionsInLine(t *testing.T) {
	b := newBench(t, 100*time.Microsecond, 100*time.Microsecond)
	event := func(kind kernel.LockEventKind, after time.Duration) {
		b.until(b.now.Add(after), never)
		b.s.event(kernel.LockEvent{Kind: kind, At: b.now})
	}
	event(kernel.LockOpened, time.Second)
	event(kernel.LockOpened, 10*ms)
	before := b.reads[natTable]
	event(kernel.LockClosed, 60*ms)
	if b.reads[natTable] != before {
		t.Error("nat was read again while one writer held the lock")
	}
	event(kernel.LockClosed, 5*ms)
	if got := b.reads[natTable] - before; got != 1 {
		t.Errorf("nat was read %d times in the session of the one who waited, want once", got)
	}
	if want := (lengths{70 * ms, 5 * ms}); !slices.Equal(b.s.all, want) {
		t.Errorf("the sessions took %v, want %v", b.s.all, want)
	}
}
