// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"slices"
	"time"
)

// LogGroup is a group of NFLOG that the agent reads or would, or that rules log to.
type LogGroup struct {
	Group uint16
	State LogGroupState
	// Err is why it is not read; empty where it is.
	Err string
	// Passed: it is not among those to read now, as only such are that nobody else wants.
	Passed bool
	// Holder is the netlink port of the process that reads it; 0 where none else does.
	Holder uint32
	// Next is when it is to be bound, or that is tried again; zero where no time is known.
	Next time.Time
	// Rules is how many log to it, as far as they were read.
	Rules int
	// HasFlows: packets tell their entries of connection tracking, and by these the
	// Service that they were sent to.
	HasFlows bool
	// Packets were received, and Lost were not, of those that rules have logged while
	// it was bound. Undecoded of Packets are of no known shape.
	Packets, Lost, Undecoded uint64
	Created                  time.Time
}

// LogGroupState is what becomes of a group's packets.
type LogGroupState string

// The states, which are the label state of svcscope_nflog_group_state.
const (
	LogGroupRead    LogGroupState = "read"
	LogGroupHeld    LogGroupState = "held"    // another process reads it
	LogGroupWaiting LogGroupState = "waiting" // nobody does, which must be so for some time
	LogGroupLeft    LogGroupState = "left"    // others may want it at any time
	LogGroupNoRule  LogGroupState = "no_rule" // asked for, and no rule logs to any group
	LogGroupFailed  LogGroupState = "failed"  // anything else
	LogGroupFree    LogGroupState = "free"    // nobody does, and one look does not
)

// LogGroupStates returns those that an agent's groups have.
func LogGroupStates() []string {
	var all []string
	for _, s := range []LogGroupState{LogGroupRead, LogGroupHeld, LogGroupWaiting, LogGroupLeft, LogGroupNoRule, LogGroupFailed} {
		all = append(all, string(s))
	}
	return all
}

// Read reports whether the group's packets come here.
func (g *LogGroup) Read() bool { return g.State == LogGroupRead }

// NoEvents is why no events of packets can come.
type NoEvents string

// The reasons.
const (
	NoEventsRule     NoEvents = "no_rule"      // no rule here logs to a group of NFLOG
	NoEventsDeclined NoEvents = "declined"     // no group is to be read, and there is no tap
	NoEventsNotRead  NoEvents = "not_read"     // no group is read: the states of the groups tell why
	NoEventsTap      NoEvents = "tap"          // no group is to be read, and the tap does not work
	NoEventsUnread   NoEvents = "rules_unread" // the rules could not be read, and with them which log
	NoEventsOneLook  NoEvents = "one_look"     // no agent was asked: one look at the kernel waits for no packet
)

// noEvents is why there are none; empty where some may come.
func noEvents(s *Snapshot) NoEvents {
	tapped := s.Tap != nil && s.Tap.Active && s.Tap.Log.Read()
	switch {
	case tapped || slices.ContainsFunc(s.LogGroups, func(g LogGroup) bool { return g.Read() }):
		return ""
	case s.NoGroups == NoEventsOneLook:
		return NoEventsOneLook
	case len(s.LogGroups) > 0:
		return NoEventsNotRead
	case s.NoGroups == NoEventsDeclined && s.Tap != nil:
		return NoEventsTap
	}
	return s.NoGroups
}
