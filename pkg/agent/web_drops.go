// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
)

const (
	// maxFollowers bounds the requests that follow events.
	maxFollowers = 8
	// followedAtOnce is how many events are sent between two looks at the log.
	followedAtOnce = 256
	// followWrite is how long a follower may take to read what was sent.
	followWrite = 10 * time.Second
	// toldEvents is how many of the last events a report has.
	toldEvents = 200
)

// drops serves the report of refused packets, or with ?follow=true the events as they
// come, one JSON object a line.
func drops(s *sampler, places, followers chan struct{}) http.Handler {
	whole := bound(places, report(s, func(snapshot *correlate.Snapshot) any {
		l := s.groups.events
		events, _, _, _ := l.after(l.newest(toldEvents), toldEvents)
		return correlate.NewDropsReport(s.withSources(snapshot), events, s.dropReport)
	}))
	stream := bound(followers, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = streamDrops(r.Context(), w, s.groups.events, s.dropReport) // the client has gone
	}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("follow") == "true" {
			stream.ServeHTTP(w, r)
			return
		}
		whole.ServeHTTP(w, r)
	})
}

// streamDrops writes events until ctx ends or the client does not read.
func streamDrops(ctx context.Context, w http.ResponseWriter, l *dropLog, report func(*correlate.DropEvent) correlate.DropEventReport) error {
	w.Header().Set("Content-Type", "application/x-ndjson")
	c, lines := http.NewResponseController(w), json.NewEncoder(w)
	for next := l.newest(0); ; {
		events, missed, after, more := l.after(next, followedAtOnce)
		next = after
		if err := c.SetWriteDeadline(time.Now().Add(followWrite)); err != nil {
			return err
		}
		if missed > 0 {
			if err := lines.Encode(correlate.DropEventReport{Time: time.Now().UTC(), Missed: missed}); err != nil {
				return err
			}
		}
		for i := range events {
			if err := lines.Encode(report(&events[i])); err != nil {
				return err
			}
		}
		if err := errors.Join(c.Flush(), c.SetWriteDeadline(time.Time{})); err != nil {
			return err
		}
		if len(events) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-more:
		}
	}
}
