// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
)

// TestWatchTellsWhatChanges: that a group is held, and then that it is read.
func TestWatchTellsWhatChanges(t *testing.T) {
	s := newTestSampler(testConfig())
	defer s.close()
	f := newFakeGroups()
	f.held[100] = 4242
	s.groups = f.read(groupChoice{auto: true})
	s.groups.freeFor = 0
	loggers := inputsOf(false, 100)().loggers
	s.loggers.Store(&loggers)
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	want := []string{
		`not_read: [held "NFLOG group 100 is held by netlink port 4242; it is to be read once it is free" 4242]`,
		`: [read "" 0]`,
	}
	var got []string
	err := s.watchDrops(ctx, DropWatch{
		Sources: func(r *correlate.DropsReport) {
			var groups []string
			for _, g := range r.Groups {
				groups = append(groups, fmt.Sprintf("%s %q %d", g.State, g.Error, g.HolderPort))
			}
			if got = append(got, fmt.Sprintf("%s: %v", r.NoEvents, groups)); len(got) == len(want) {
				stop()
				return
			}
			f.mu.Lock()
			clear(f.held)
			f.mu.Unlock()
			s.groups.look <- struct{}{}
		},
		Visit: func(*correlate.DropEventReport) {},
	})
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, told %q, want %q", err, got, want)
	}
	if held, _ := f.all(); len(held) != 0 {
		t.Errorf("bound are %v", held)
	}
}

// TestOneLookTellsGroups that rules log to, and reads none.
func TestOneLookTellsGroups(t *testing.T) {
	f := newFakeGroups()
	f.held[5] = 4242
	g := f.read(groupChoice{})
	got := fmt.Sprint(states(g.once(inputsOf(false, 100, 5, 100)().loggers)))
	if want := `[5 held "NFLOG group 5 is held by netlink port 4242" 100 free "nobody reads NFLOG group 100"]`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if len(f.open) != 0 {
		t.Errorf("it has bound %v", f.open)
	}
}

// states are what is told of groups.
func states(all []correlate.LogGroup) []string {
	var told []string
	for _, s := range all {
		told = append(told, fmt.Sprintf("%d %s %q", s.Group, s.State, s.Err))
	}
	return told
}

// TestWhyThereAreNoGroups is told apart.
func TestWhyThereAreNoGroups(t *testing.T) {
	tests := []struct {
		name   string
		choice groupChoice
		rules  bool // could be read
		groups []uint16
		once   bool
		want   correlate.NoEvents
	}{
		{"no rule logs", groupChoice{auto: true}, true, nil, false, correlate.NoEventsRule},
		{"rules could not be read", groupChoice{auto: true}, false, nil, false, correlate.NoEventsUnread},
		{"not looked yet", groupChoice{auto: true}, true, []uint16{100}, false, correlate.NoEventsNotRead},
		{"not tried yet", groupChoice{groups: []uint16{100}}, false, nil, false, correlate.NoEventsNotRead},
		{"declined", groupChoice{}, true, []uint16{100}, false, correlate.NoEventsDeclined},
		{"one look", groupChoice{}, true, []uint16{100}, true, correlate.NoEventsOneLook},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			backend := &fakeBackend{answers: []answer{{set: emptyRules()}}}
			s := fakeSampler(backend, nil, nil)
			if !tt.rules {
				backend.answers[0] = answer{err: errUnread}
				s.sources[0].backend = backend
			}
			s.groups, s.since = newFakeGroups().read(tt.choice), tt.once
			s.pass(t.Context())
			loggers := inputsOf(false, tt.groups...)().loggers
			s.loggers.Store(&loggers)
			if got := s.noGroups(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestDropsTellOfGroupsNow: what has become of groups since the last sampling is told.
func TestDropsTellOfGroupsNow(t *testing.T) {
	s := webSampler(t, "", nil)
	f := newFakeGroups()
	f.held[100] = 4242
	s.groups = f.read(groupChoice{groups: []uint16{100}})
	s.pass(t.Context())
	pages, err := newPages(s)
	if err != nil {
		t.Fatal(err)
	}
	told := func() string {
		var r correlate.DropsReport
		got := ask(pages, "/api/v1/drops", "127.0.0.1:4711")
		if err := json.Unmarshal(got.Body.Bytes(), &r); err != nil || got.Code != http.StatusOK {
			t.Fatalf("%d, %v: %s", got.Code, err, got.Body)
		}
		if len(r.Groups) == 0 {
			return string(r.NoEvents)
		}
		return fmt.Sprintf("%s %s %d", r.NoEvents, r.Groups[0].State, r.Groups[0].HolderPort)
	}
	if got := told(); got != "not_read" { // yet
		t.Errorf("got %q before groups are chosen", got)
	}
	ctx, stop := context.WithCancel(t.Context())
	now := time.Now()
	s.groups.choose(ctx, inputsOf(false, 100), now)
	if got := told(); got != "not_read held 4242" {
		t.Errorf("got %q of a group that is held", got)
	}
	clear(f.held)
	s.groups.choose(ctx, inputsOf(false, 100), now.Add(firstRetry))
	if got := told(); got != " read 0" {
		t.Errorf("got %q of a group that is read", got)
	}
	stop()
	s.groups.release(100)
}
