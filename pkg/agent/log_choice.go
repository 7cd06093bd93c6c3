// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Words of --nflog.group.
const (
	groupsAuto = "auto" // those that rules log to and that nobody holds
	groupsNone = "none"
)

// groupChoice is which groups of NFLOG are read.
type groupChoice struct {
	auto   bool
	groups []uint16
}

func (c groupChoice) none() bool { return !c.auto && len(c.groups) == 0 }

// parseGroups reads the value of --nflog.group: a word, or numbers with commas.
func parseGroups(s string) (groupChoice, error) {
	switch s {
	case groupsAuto:
		return groupChoice{auto: true}, nil
	case groupsNone, "":
		return groupChoice{}, nil
	}
	var c groupChoice
	for word := range strings.SplitSeq(s, ",") {
		n, err := strconv.ParseUint(strings.TrimSpace(word), 10, 16)
		if err != nil {
			return groupChoice{}, fmt.Errorf("--nflog.group %q: want auto, none, or numbers from 0 to 65535 with commas", s)
		}
		c.groups = append(c.groups, uint16(n))
	}
	slices.Sort(c.groups)
	c.groups = slices.Compact(c.groups)
	return c, nil
}
