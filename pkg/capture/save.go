// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"fmt"
	"io"

	"github.com/svcscope/svcscope/pkg/ruleset"
)

// writeSave writes rules in the words of iptables-save -c, for people: Read takes no
// notice of it. Chains have no counters: neither backend keeps useful ones.
func writeSave(w io.Writer, s *Snapshot, r *Rules) error {
	_, err := fmt.Fprintf(w, "# svcscope snapshot of node %s, %s %s\n", s.Node.Name, r.Set.Backend, r.Set.Family)
	for _, t := range r.Set.Tables {
		if err == nil {
			err = saveTable(w, r.Set, t)
		}
	}
	return err
}

func saveTable(w io.Writer, rs *ruleset.Ruleset, t *ruleset.Table) error {
	_, err := fmt.Fprintf(w, "*%s\n", t.Name)
	for _, c := range t.Chains {
		policy := "-"
		if c.Base != nil {
			policy = c.Base.Policy.String()
		}
		if err == nil {
			_, err = fmt.Fprintf(w, ":%s %s [0:0]\n", c.Name, policy)
		}
	}
	for _, c := range t.Chains {
		for i := range c.Rules {
			r := &c.Rules[i]
			spec := r.Spec(rs.Family)
			if spec != "" {
				spec = " " + spec
			}
			if err == nil {
				_, err = fmt.Fprintf(w, "[%d:%d] -A %s%s\n", r.Counter.Packets, r.Counter.Bytes, c.Name, spec)
			}
		}
	}
	if err == nil {
		_, err = io.WriteString(w, "COMMIT\n")
	}
	return err
}
