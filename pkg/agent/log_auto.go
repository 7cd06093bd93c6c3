// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/kernel"
)

// rulesByGroup counts the rules that log, by their group.
func rulesByGroup(loggers []correlate.FamilyLogger) map[uint16]int {
	rules := make(map[uint16]int)
	for i := range loggers {
		rules[loggers[i].Group]++
	}
	return rules
}

// unheld are the groups that rules log to and that nobody has held for a time. Of others
// that rules log to is kept why they are passed over.
func (g *logGroups) unheld(rules map[uint16]int, calico bool, now time.Time) []uint16 {
	held, err := g.holders()
	var want []uint16
	free, passed := make(map[uint16]time.Time), make(map[uint16]correlate.LogGroup)
	for group, n := range rules {
		s := correlate.LogGroup{Group: group, Passed: true, Rules: n}
		bound := g.isBound(group)
		if !bound {
			s.Holder = held[group]
		}
		switch why := leftAlone(group, calico); {
		case why != "":
			s.State, s.Err = correlate.LogGroupLeft, why
		case err != nil && !bound:
			s.State, s.Err = correlate.LogGroupFailed, err.Error()
		case s.Holder != 0:
			s.State, s.Err = correlate.LogGroupHeld, heldText(group, s.Holder)+"; it is to be read once it "+g.freeText()
		default:
			since, ok := g.free[group]
			if !ok {
				since = now
			}
			if free[group] = since; bound || now.Sub(since) >= g.freeFor {
				want = append(want, group)
				continue
			}
			s.State, s.Next = correlate.LogGroupWaiting, since.Add(g.freeFor)
			s.Err = fmt.Sprintf("nobody reads NFLOG group %d; it is to be read once it %s", group, g.freeText())
		}
		passed[group] = s
	}
	g.free = free
	g.pass(passed)
	slices.Sort(want)
	return want
}

// leftAlone is why a group is never read unless it is asked for; empty where it may be.
func leftAlone(group uint16, calico bool) string {
	const calicoFirst, calicoLast = 1, 3
	switch {
	case group == 0:
		return "NFLOG group 0 is left alone: it is the default, which others may want at any time; --nflog.group=0 reads it"
	case calico && group >= calicoFirst && group <= calicoLast:
		return fmt.Sprintf("NFLOG group %d is left alone: Calico, whose chains are here, may bind it at any time", group)
	}
	return ""
}

// freeText is when a group is free enough.
func (g *logGroups) freeText() string {
	if g.freeFor == 0 {
		return "is free"
	}
	return fmt.Sprintf("has been free for %.0f minutes", g.freeFor.Minutes())
}

// heldText says who reads a group.
func heldText(group uint16, port uint32) string {
	return (&kernel.LogGroupHeldError{LogGroup: kernel.LogGroup{Group: group, PortID: port}}).Error()
}

// holders are the netlink ports that read groups, those of this process among them.
func (g *logGroups) holders() (map[uint16]uint32, error) {
	all, err := g.held()
	if err != nil && !errors.Is(err, kernel.ErrAbsent) {
		return nil, err
	}
	ports := make(map[uint16]uint32)
	for _, h := range all {
		ports[h.Group] = h.PortID
	}
	return ports, nil
}

// pass keeps which groups are passed over; the log has what is new.
func (g *logGroups) pass(passed map[uint16]correlate.LogGroup) {
	for _, group := range slices.Sorted(maps.Keys(passed)) {
		if s := passed[group]; !sameState(s, g.passed[group]) {
			g.log.Info("NFLOG group to which rules log is not read", "group", group, "state", string(s.State), "err", s.Err)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.passed = passed
}

// once are the groups that rules log to, for one look, which reads none.
func (g *logGroups) once(loggers []correlate.FamilyLogger) []correlate.LogGroup {
	if g.held == nil {
		return nil
	}
	held, err := g.holders()
	var all []correlate.LogGroup
	for group, n := range rulesByGroup(loggers) {
		s := correlate.LogGroup{Group: group, Passed: true, Rules: n, Holder: held[group]}
		switch {
		case err != nil:
			s.State, s.Err = correlate.LogGroupFailed, err.Error()
		case s.Holder != 0:
			s.State, s.Err = correlate.LogGroupHeld, heldText(group, s.Holder)
		default:
			s.State, s.Err = correlate.LogGroupFree, fmt.Sprintf("nobody reads NFLOG group %d", group)
		}
		all = append(all, s)
	}
	slices.SortFunc(all, byGroup)
	return all
}
