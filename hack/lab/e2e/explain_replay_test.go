// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// commands are those that read a node; the text of each is made of what -o json prints.
func commands() [][]string {
	all := [][]string{
		{"services", "-o", "json"}, {"conntrack", "-o", "json"}, {"drops", "-o", "json"}, {"drift", "-o", "json"},
		{"explain", "web", "--history", "--commands"},
	}
	if long() {
		all = append(all, [][]string{
			{"services"}, {"conntrack"}, {"drops"}, {"explain", "web", "-o", "wide"}, {"explain", "web", "--history", "-o", "json"}, {"explain", "default/web:80"},
		}...)
	}
	return all
}

// ofDrift are those that tell since when rules differ.
func ofDrift() [][]string {
	return [][]string{{"drift", "-o", "json"}, {"explain", "web", "-o", "json"}}
}

// replays takes a snapshot, and sees that commands print of it, elsewhere, what they print on
// the node. Each look and each question to the agent opens connections of its own, which
// built-in chains count, and the time passes: explain is compared without these.
func (s *explained) replays(commands [][]string) (file string) {
	t := s.t
	t.Helper()
	file = filepath.Join(t.TempDir(), "node.tgz")
	left := commands
	poll(t, 2*patience, "a snapshot of the sampling that commands are asked for", func() (why error) {
		if err := os.WriteFile(file, []byte(s.live("snapshot")), 0o600); err != nil {
			t.Fatal(err)
		}
		left = slices.DeleteFunc(slices.Clone(left), func(command []string) bool {
			live, replayed := s.live(command...), s.away(0, append(slices.Clone(command), "--from="+file)...)
			if len(live) < 10 {
				t.Errorf("%q prints %q", command, live)
			}
			if command[0] == "explain" {
				live, replayed = moment.ReplaceAllString(live, "*"), moment.ReplaceAllString(replayed, "*")
			}
			if live != replayed {
				why = fmt.Errorf("%q prints\n%s\nand of a snapshot\n%s", command, live, replayed)
			}
			return live == replayed
		})
		return why
	})
	result(t, "%d commands print of a snapshot, elsewhere, what they print on the node", len(commands))
	return file
}

// moment is what of an explanation is of its moment: when it was, and the counters that its
// own connections move.
var moment = regexp.MustCompile(`(?m)^Read: .*$|^  "time": .*$|"watched": .*$|seen it\s+until [0-9\s:-]+UTC|^ *\d+  OUTPUT, rule|` +
	`"chain": "OUTPUT",\s+"number"[^}]*"packets": \d+|^ *\d+\* .* → KUBE-NODEPORTS.*$|"role": "node_ports",[^}]*"packets": \d+`)

// saved sees that a snapshot's rules for people are those that iptables-save prints.
func (s *explained) saved(file string) {
	t := s.t
	t.Helper()
	entries := unpacked(t, file)
	for _, f := range families {
		name := "rules/" + s.backend + "-" + strings.ToLower(f.name) + ".save"
		var got, want []string
		for line := range strings.Lines(entries[name]) {
			if m := savedRule.FindStringSubmatch(strings.TrimSuffix(line, "\n")); m != nil {
				got = append(got, m[3]+" "+m[4])
			}
		}
		for _, line := range s.save(f.name) {
			m := savedRule.FindStringSubmatch(line)
			want = append(want, m[3]+" "+m[4])
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) || len(got) < 20 {
			t.Errorf("%s has\n%s\niptables-save prints\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// unpacked are the entries of a snapshot.
func unpacked(t *testing.T, file string) map[string]string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		all[h.Name] = string(b)
	}
}

// same sees that nothing differs between two snapshots.
func (s *explained) same(a, b string) {
	s.t.Helper()
	if out := s.away(0, "diff", a, b); !strings.HasSuffix(out, "\nnothing differs\n") {
		s.t.Errorf("diff of a node and itself:\n%s", out)
	}
}

// deleteEndpoints deletes, in each family, the rule that leads to the first endpoint, waits
// until the agent takes that for drift, and returns the endpoints.
func (s *explained) deleteEndpoints() (gone map[string]string) {
	t := s.t
	t.Helper()
	_, paths := s.document("--agent=none")
	gone = map[string]string{}
	start := time.Now().Truncate(time.Millisecond)
	for _, p := range paths {
		tool := "iptables"
		if p.IPFamily == "IPv6" {
			tool = "ip6tables"
		}
		for _, c := range p.Chains {
			i := slices.IndexFunc(c.Rules, func(r explainedRule) bool { return r.Role == "share" })
			if c.Kind != "cluster" || i < 0 {
				continue
			}
			gone[p.IPFamily] = c.Rules[i].Endpoint
			s.lab.Exec("node1", tool, "-w", "-t", "nat", "-D", c.Name, strconv.Itoa(c.Rules[i].Number))
		}
	}
	if len(gone) != len(families) {
		t.Fatalf("no rules to delete in %+v", paths)
	}
	s.awaitDrift("the agent tells of the endpoints", func(r *driftReport) error {
		if len(r.Items) != len(families) {
			return fmt.Errorf("it tells of %+v and %+v", r.Items, r.Pending)
		}
		return nil
	})
	_, paths = s.document()
	for _, p := range paths {
		if len(p.Differences) != 1 || p.Differences[0].Kind != "missing_endpoint" || p.Differences[0].Detail != gone[p.IPFamily] {
			t.Fatalf("%s: explain tells of %+v, want %s", p.IPFamily, p.Differences, gone[p.IPFamily])
		}
		d := p.Differences[0]
		if d.Drift == nil || !*d.Drift || d.Since == nil || d.Since.Before(start) || d.Since.After(time.Now()) {
			t.Errorf("%s: since when is told as %+v, it was deleted after %v", p.IPFamily, d, start)
		}
	}
	return gone
}

// differs sees that of the snapshots before and after nothing but this is told.
func (s *explained) differs(before, after string, gone map[string]string) {
	t := s.t
	t.Helper()
	out := s.away(1, "diff", before, after)
	var want strings.Builder
	for _, f := range families {
		fmt.Fprintf(&want, "\ndefault/web TCP %s\n  endpoint %s\n    - in KUBE-SVC\n", f.name, gone[f.name])
		fmt.Fprintf(&want, "  drift this port\n    + missing_endpoint %s\n", gone[f.name])
	}
	if _, rest, _ := strings.Cut(out, "\n\n"); "\n"+rest != want.String() {
		t.Errorf("diff prints\n%s\nwant\n%s", out, want.String())
	}
	if out := s.away(1, "diff", before, after, "default/web:80", "-o", "json"); !strings.Contains(out, `"same": false`) {
		t.Errorf("diff of the Service prints\n%s", out)
	}
}
