// SPDX-License-Identifier: Apache-2.0

package nodediff

import "slices"

// lines compares texts that are there several times each, in any order: what A has
// more of is a Difference without B, and the other way round.
func lines(what What, object string, a, b []string) []Difference {
	var out []Difference
	left := make(map[string]int, len(b))
	for _, l := range b {
		left[l]++
	}
	for _, l := range a {
		if left[l] > 0 {
			left[l]--
			continue
		}
		out = append(out, Difference{What: what, Object: object, A: l})
	}
	// What is left of B, in its order: the last ones of those that are several times there.
	var rest []string
	for _, l := range slices.Backward(b) {
		if left[l] > 0 {
			left[l]--
			rest = append(rest, l)
		}
	}
	for _, l := range slices.Backward(rest) {
		out = append(out, Difference{What: what, Object: object, B: l})
	}
	return out
}

// ordered compares texts whose order counts. Where it alone differs the first line that
// does is told.
func ordered(object string, a, b []string) []Difference {
	out := lines(Rule, object, a, b)
	if len(out) > 0 || slices.Equal(a, b) {
		return out
	}
	for i := range a {
		if a[i] != b[i] {
			return []Difference{{What: Order, Object: object, A: a[i], B: b[i]}}
		}
	}
	return nil
}

// value compares one value.
func value(what What, object, a, b string) []Difference {
	if a == b {
		return nil
	}
	return []Difference{{What: what, Object: object, A: a, B: b}}
}
