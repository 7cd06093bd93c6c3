// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
)

// eventsText says where events come from; where none can, why.
func eventsText(r *correlate.DropsReport, o sourceOptions) string {
	if from := eventSources(r); from != "" {
		return "from " + from
	}
	return "none: " + noEventsText(r, o)
}

// eventSources are the groups of NFLOG that are read, and the tap; empty without any.
func eventSources(r *correlate.DropsReport) string {
	var groups, from []string
	for i := range r.Groups {
		if r.Groups[i].Bound {
			groups = append(groups, strconv.Itoa(int(r.Groups[i].Group)))
		}
	}
	if len(groups) > 0 {
		word := "NFLOG group "
		if len(groups) > 1 {
			word = "NFLOG groups "
		}
		from = append(from, word+strings.Join(groups, ", "))
	}
	if r.Tap != nil && r.Tap.Active && r.Tap.Group.Bound {
		from = append(from, "the tap")
	}
	return strings.Join(from, " and ")
}

// noEventsText says why no events can come.
func noEventsText(r *correlate.DropsReport, o sourceOptions) string {
	const oneLook = "one look at the kernel waits for no packet (svcscope drops -f does)"
	why := "no group of NFLOG is read" // why each of them is not, is told beside
	if len(r.Groups) == 0 && r.NoEvents == correlate.NoEventsNotRead {
		why += " yet"
	}
	switch r.NoEvents {
	case correlate.NoEventsOneLook:
		if o.from != "" || o.agent == noAgent {
			return "this is without an agent, and " + oneLook
		}
		return "no agent answers here, and " + oneLook
	case correlate.NoEventsRule:
		why = "no rule on this node logs to a group of NFLOG"
	case correlate.NoEventsDeclined, correlate.NoEventsTap:
		why = "no group of NFLOG is to be read (--nflog.group=none)"
	case correlate.NoEventsUnread:
		why = "the rules could not be read, and with them to which groups of NFLOG they log"
	}
	if r.Tap != nil {
		return why + ", and the tap does not work"
	}
	return why + ", and there is no tap"
}

// groupText says what becomes of a group's packets, with times of a zone.
func groupText(g *correlate.LogGroupReport, zone *time.Location) string {
	switch {
	case g.Bound && g.State != "" && g.Rules == 0:
		return fmt.Sprintf("%d: %d packets, %d lost; no rule is seen to log to it", g.Group, g.Packets, g.Lost)
	case g.Bound:
		return fmt.Sprintf("%d: %d packets, %d lost", g.Group, g.Packets, g.Lost)
	case g.State == correlate.LogGroupFree:
		return fmt.Sprintf("%d: nobody reads it", g.Group)
	}
	return fmt.Sprintf("%d is not read: %s", g.Group, unreadText(g, zone))
}

// unreadText says why a group is not read, and until when.
func unreadText(g *correlate.LogGroupReport, zone *time.Location) string {
	why := g.Error
	if g.State == correlate.LogGroupNoRule {
		why = "no rule on this node logs to a group of NFLOG (" + why + ")"
	}
	if g.Next == nil {
		return why
	}
	at := g.Next.In(zone).Format("15:04:05")
	if g.State == correlate.LogGroupWaiting {
		return why + ", at " + at
	}
	return why + "; tried again at " + at
}

// tapText says what the agent's own table does; nothing without one.
func tapText(t *correlate.TapReport) []string {
	switch {
	case t == nil:
		return nil
	case !t.Active:
		return []string{"does not work: " + cmp.Or(t.Error, "it has not begun yet")}
	}
	text := []string{fmt.Sprintf("counts %d ways to Services", t.Ways), fmt.Sprintf("and packets by %d that are refused", t.Refused), fmt.Sprintf("logged to group %d: %d packets", t.Group.Group, t.Group.Packets), fmt.Sprintf("%d lost", t.Group.Lost)}
	return append(text, tapFaults(t)...)
}

// tapFaults says what is amiss with a table that is there.
func tapFaults(t *correlate.TapReport) []string {
	return slices.DeleteFunc([]string{t.Error, t.Group.Error}, func(why string) bool { return why == "" })
}

// eventTeller says on w where events come from that are followed.
type eventTeller struct {
	w    io.Writer
	o    sourceOptions
	zone *time.Location
	said []string // the last time
}

// tell says where they come from now: all of it the first time, then what is new.
func (t *eventTeller) tell(r *correlate.DropsReport) {
	lines := t.lines(r)
	for _, text := range lines {
		if !slices.Contains(t.said, text) {
			fmt.Fprintln(t.w, text)
		}
	}
	t.said = lines
}

func (t *eventTeller) lines(r *correlate.DropsReport) []string {
	first := "events come from " + eventSources(r)
	if eventSources(r) == "" {
		first = "warning: no events come: " + noEventsText(r, t.o)
	}
	lines := []string{first}
	for i := range r.Groups {
		g := &r.Groups[i]
		if g.Bound {
			continue
		}
		kind := "warning"
		if g.State == correlate.LogGroupLeft || g.State == correlate.LogGroupWaiting {
			kind = "note"
		}
		lines = append(lines, fmt.Sprintf("%s: NFLOG group %d is not read: %s", kind, g.Group, unreadText(g, t.zone)))
	}
	if r.Tap != nil && !r.Tap.Active {
		lines = append(lines, "warning: the tap "+strings.Join(tapText(r.Tap), ", "))
	} else if r.Tap != nil {
		for _, why := range tapFaults(r.Tap) {
			lines = append(lines, "warning: "+why)
		}
	}
	for _, note := range r.Notes {
		lines = append(lines, "note: "+note)
	}
	return lines
}
