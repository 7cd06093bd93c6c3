// SPDX-License-Identifier: Apache-2.0

package labtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// StartChurn changes the endpoints of a Service every second until the process
// is stopped. args are flags of `lab churn`, or names of further Services.
func (l *Lab) StartChurn(name string, args ...string) *Process {
	l.t.Helper()
	return l.start(append([]string{"churn", name}, args...))
}

// StartConstantLoad opens rate new connections a second until Finish, 40,000
// at most. args are further flags of `lab load`.
func (l *Lab) StartConstantLoad(from, to string, rate int, args ...string) *Process {
	l.t.Helper()
	return l.StartLoad(from, to, append([]string{fmt.Sprintf("--rate=%d", rate), "--until-stopped", "-o=json"}, args...)...)
}

// Finish ends a constant load and returns what became of its connections.
func (p *Process) Finish(t testing.TB) Result {
	t.Helper()
	if err := p.Stop(); err != nil {
		t.Fatalf("lab load: %v: %s", err, p.Output())
	}
	var r Result
	if err := json.Unmarshal([]byte(p.Output()), &r); err != nil {
		t.Fatalf("lab load: %v: %s", err, p.Output())
	}
	return r
}

// Sync is one of kube-proxy's rewrites, from its log.
type Sync struct {
	// Family is "IPv4" or "IPv6".
	Family string
	// Full is true where all of kube-proxy's chains were written.
	Full bool
	// End is when it was over, and Elapsed how long it took.
	End     time.Time
	Elapsed time.Duration
}

// Begin is when it began.
func (s Sync) Begin() time.Time { return s.End.Add(-s.Elapsed) }

var syncLine = regexp.MustCompile(`^I(\d{4} [\d:.]+) .*"(Syncing iptables rules|SyncProxyRules complete)" ipFamily="(IPv[46])" (?:fullSync=(true|false)|elapsed="([^"]+)")`)

// Syncs returns all that kube-proxy has completed so far, oldest first.
func (l *Lab) Syncs() []Sync {
	l.t.Helper()
	b, err := os.ReadFile(filepath.Join(l.Info.State, "logs", "kube-proxy.log"))
	if err != nil {
		l.t.Fatal(err)
	}
	return parseSyncs(l.t, string(b))
}

// Syncs returns all that a kube-proxy that the test started has completed.
func (p *Process) Syncs(t testing.TB) []Sync {
	t.Helper()
	return parseSyncs(t, p.Output())
}

// StartWatcher starts a client of the API that has the server send it what
// kube-proxy asks for, and does nothing with it.
func (l *Lab) StartWatcher(where string) *Process {
	l.t.Helper()
	p := l.StartProcess(where, "lab", "__watch", l.Info.Kubeconfig)
	p.WaitOutput(l.t, "watching")
	return p
}

// StartListener starts a listener on the notices of nf_tables that does
// nothing but read them.
func (l *Lab) StartListener(where string) *Process {
	l.t.Helper()
	p := l.StartProcess(where, "lab", "__listen")
	p.WaitOutput(l.t, "listening")
	return p
}

// klogTime is how klog writes the time, without the year.
const klogTime = "0102 15:04:05.000000"

// parseSyncs reads kube-proxy's log. Without a line that begins a sync there
// was none: kube-proxy completes it without rules before it has the API's list.
func parseSyncs(t testing.TB, log string) []Sync {
	t.Helper()
	var out []Sync
	begun := map[string]*Sync{}
	for line := range strings.Lines(log) {
		m := syncLine.FindStringSubmatch(line)
		switch {
		case m == nil:
		case m[4] != "":
			begun[m[3]] = &Sync{Family: m[3], Full: m[4] == "true"}
		case begun[m[3]] != nil:
			d, err := time.ParseDuration(m[5])
			end, err2 := time.ParseInLocation(klogTime, m[1], time.Local)
			if err := errors.Join(err, err2); err != nil {
				t.Fatalf("kube-proxy's log: %q: %v", line, err)
			}
			s := begun[m[3]]
			s.End, s.Elapsed = end, d
			out = append(out, *s)
			delete(begun, m[3])
		}
	}
	return out
}
