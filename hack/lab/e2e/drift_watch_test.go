// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// driftReport is what /api/v1/drift says, as far as these tests look.
type driftReport struct {
	Time      time.Time
	ProxyMode string
	Unknown   string
	KubeProxy []struct {
		IPFamily                 string
		LastCommit, PendingSince *time.Time
	}
	Items, Pending []driftItem
}

// driftItem is one drift or difference.
type driftItem struct {
	Namespace, Name, IPFamily, Kind, Frontend, Detail string
}

// told is what a drift is told apart by: the kind, the family, and of a Service's also
// whose it is and the kind of address.
type told struct{ kind, family, service, frontend string }

func (i *driftItem) told() told {
	t := told{kind: i.Kind, family: i.IPFamily, frontend: i.Frontend}
	if i.Name != "" {
		t.service = i.Namespace + "/" + i.Name
	}
	return t
}

// drifts are the report's, each with one detail.
func (r *driftReport) drifts() map[told]string {
	all := map[told]string{}
	for i := range r.Items {
		all[r.Items[i].told()] = r.Items[i].Detail
	}
	return all
}

// pendingFor is how long the oldest change of the API has waited for kube-proxy.
func (r *driftReport) pendingFor() (longest time.Duration) {
	for _, p := range r.KubeProxy {
		if p.PendingSince != nil {
			longest = max(longest, r.Time.Sub(*p.PendingSince))
		}
	}
	return longest
}

// settled says what is still open, if anything is.
func (r *driftReport) settled() error {
	switch {
	case r.Unknown != "":
		return fmt.Errorf("unknown: %s", r.Unknown)
	case len(r.KubeProxy) != len(families):
		return fmt.Errorf("kube-proxy is recognised in %d families", len(r.KubeProxy))
	case len(r.Items)+len(r.Pending) > 0:
		return fmt.Errorf("%d drifts and %d differences: %+v", len(r.Items), len(r.Pending), slices.Concat(r.Items, r.Pending))
	case r.pendingFor() > 0:
		return fmt.Errorf("a change has waited for %v", r.pendingFor())
	}
	return nil
}

// driftWatch keeps what an agent says of drift, each reading once.
type driftWatch struct {
	page string
	done chan struct{}

	mu      sync.Mutex
	reports []driftReport // guarded by mu
	err     error         // guarded by mu: why there is no newer one
}

// pollEvery is well below the agents' --interval, so that no reading is missed.
const pollEvery = 150 * time.Millisecond

// watchDrift asks at an address of this machine until the test ends.
func watchDrift(t *testing.T, address string) *driftWatch {
	w := &driftWatch{page: "http://" + address + "/api/v1/drift", done: make(chan struct{})}
	stop := make(chan struct{})
	t.Cleanup(func() {
		close(stop)
		<-w.done
	})
	go func() {
		defer close(w.done)
		tick := time.NewTicker(pollEvery)
		defer tick.Stop()
		client := &http.Client{Timeout: 10 * time.Second}
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			r, err := fetchDrift(client, w.page)
			w.mu.Lock()
			if w.err = err; err == nil && (len(w.reports) == 0 || r.Time.After(w.reports[len(w.reports)-1].Time)) {
				w.reports = append(w.reports, *r)
			}
			w.mu.Unlock()
		}
	}()
	return w
}

func fetchDrift(client *http.Client, page string) (*driftReport, error) {
	answer, err := client.Get(page)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("get %s: %s", page, answer.Status)
	}
	r := new(driftReport)
	if err := json.NewDecoder(answer.Body).Decode(r); err != nil {
		return nil, fmt.Errorf("get %s: %w", page, err)
	}
	const enough = 50 // of thousands, while they load
	r.Pending = r.Pending[:min(enough, len(r.Pending))]
	return r, nil
}

// mark is a place between two readings, for since.
func (w *driftWatch) mark() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.reports)
}

// since are the readings after a mark.
func (w *driftWatch) since(mark int) []driftReport {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.reports[mark:len(w.reports):len(w.reports)]
}

// last is the newest reading; one of before a time is an error.
func (w *driftWatch) last(after time.Time) (*driftReport, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch n := len(w.reports); {
	case n > 0 && w.reports[n-1].Time.After(after):
		return &w.reports[n-1], nil
	case w.err != nil:
		return nil, w.err
	}
	return nil, fmt.Errorf("no reading since %s", after.Format(time.TimeOnly))
}

// awaitReading waits for a reading of after a time for which ok returns nil.
func (w *driftWatch) awaitReading(t *testing.T, limit time.Duration, what string, after time.Time, ok func(*driftReport) error) *driftReport {
	t.Helper()
	var found *driftReport
	poll(t, limit, what, func() error {
		r, err := w.last(after)
		if err == nil {
			err = ok(r)
		}
		found = r
		return err
	})
	return found
}

// logged counts the lines of the agent's log with these texts.
func (a *agent) logged(texts ...string) (n int) {
lines:
	for line := range strings.Lines(a.Output()) {
		for _, text := range texts {
			if !strings.Contains(line, text) {
				continue lines
			}
		}
		n++
	}
	return n
}

// What the agent logs when drift begins and ends.
const (
	driftBegins = `msg="rules are not what the API wants"`
	driftEnds   = `msg="rules are what the API wants again"`
)
