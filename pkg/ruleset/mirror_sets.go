// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"maps"
	"slices"
)

// Maps gives the verdict maps of a table, as in Table.Maps, in which each list is
// sorted. Of tables for which it is not called they are as they were.
func (s *Stage) Maps(table string, to map[string][]string) {
	if s.maps == nil {
		s.maps = make(map[string]map[string][]string)
	}
	s.maps[table] = to
}

// Sets gives the sets and maps of a table, all that there are, each with its elements or
// Unread. Of tables for which it is not called they are as they were.
func (s *Stage) Sets(table string, all []*Set) {
	if s.sets == nil {
		s.sets = make(map[string][]*Set)
	}
	s.sets[table] = all
}

// commitSets makes the sets, and where maps lead, those that were read.
func (s *Stage) commitSets(d *deltas) {
	for name, to := range s.maps {
		if t := s.mirror.set.Table(name); t != nil && !maps.EqualFunc(t.Maps, to, slices.Equal) {
			t.Maps = to
			d.of(name).Resized = true
		}
	}
	for name, all := range s.sets {
		if t := s.mirror.set.Table(name); t != nil && t.takeSets(all) {
			d.of(name).Resized = true
		}
	}
}

// takeSets takes what sets there are, and reports whether any is another one than
// before. One that says the same stays the pointer that it was.
func (t *Table) takeSets(all []*Set) (changed bool) {
	now := make(map[string]*Set, len(all))
	for _, s := range all {
		if old := t.Sets[s.Name]; old != nil && old.Same(s) {
			s = old
		} else {
			changed = true
		}
		now[s.Name] = s
	}
	if changed = changed || len(now) != len(t.Sets); changed {
		t.Sets, t.Maps = now, leads(now)
	}
	return changed
}
