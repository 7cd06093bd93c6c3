// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"maps"
	"slices"
	"strings"
)

// vars are environment variables in the order in which they were set.
type vars struct {
	order []string
	value map[string]string
}

func (v *vars) set(name, value string) {
	if v.value == nil {
		v.value = map[string]string{}
	}
	if _, ok := v.value[name]; !ok {
		v.order = append(v.order, name)
	}
	v.value[name] = value
}

// setAll sets variables that have no order of their own.
func (v *vars) setAll(m map[string]string) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		v.set(k, m[k])
	}
}

// list returns NAME=value pairs.
func (v *vars) list() []string {
	out := make([]string, 0, len(v.order))
	for _, n := range v.order {
		out = append(out, n+"="+v.value[n])
	}
	return out
}

// expand replaces $(NAME) by the variable's value, as the API says of
// command, args and env: one that is not set stays as it is written, and $$
// stands for $.
func expand(s string, value map[string]string) string {
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 || i+1 == len(s) {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:i])
		s = s[i+1:]
		switch s[0] {
		case '$':
			b.WriteByte('$')
			s = s[1:]
		case '(':
			name, rest, ok := strings.Cut(s[1:], ")")
			if !ok {
				b.WriteString("$(")
				s = s[1:]
				continue
			}
			if v, known := value[name]; known {
				b.WriteString(v)
			} else {
				b.WriteString("$(" + name + ")")
			}
			s = rest
		default:
			b.WriteByte('$')
		}
	}
}
