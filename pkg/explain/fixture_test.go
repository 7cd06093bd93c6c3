// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/svcscope/svcscope/pkg/capture"
	"github.com/svcscope/svcscope/pkg/internal/iptsave"
	"github.com/svcscope/svcscope/pkg/internal/realcluster"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// node is a node with what kube-proxy has written by one backend, after edits.
func node(t testing.TB, backend ruleset.Backend, edits ...func(string) string) *capture.Node {
	t.Helper()
	n := &capture.Node{
		Name: "node1", Time: time.Date(2026, 11, 24, 7, 41, 8, 0, time.UTC), Kernel: "6.18.44", Catalog: catalog(t),
		Flows: []capture.FlowTally{},
	}
	for _, r := range realcluster.All() {
		if r.Backend == backend {
			n.Rules = append(n.Rules, rules(t, r, edits...))
		}
	}
	return n
}

// rules are a capture's after edits.
func rules(t testing.TB, r realcluster.Rules, edits ...func(string) string) capture.Rules {
	t.Helper()
	text := saved(t, r)
	for _, edit := range edits {
		text = edit(text)
	}
	rs, err := iptsave.Parse(r.Family, r.Backend, text)
	if err != nil {
		t.Fatal(err)
	}
	return capture.Rules{Set: rs}
}

// saved is what iptables-save had printed.
func saved(t testing.TB, r realcluster.Rules) string {
	t.Helper()
	text, err := r.Text()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func catalog(t testing.TB) *service.Catalog {
	t.Helper()
	c, err := realcluster.Catalog()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// tracked adds entries of connection tracking, of TCP.
func tracked(n *capture.Node, to, from string, entries, closing uint64) {
	n.Flows = append(n.Flows, capture.FlowTally{
		Protocol: 6, To: netip.MustParseAddrPort(to), From: netip.MustParseAddrPort(from), Entries: entries, Closing: closing,
	})
}

// query reads "name" or "name:port" in the namespace default, or "namespace/name".
func query(text string) Query {
	ns, name, ok := strings.Cut(text, "/")
	if !ok {
		ns, name = "default", text
	}
	name, port, _ := strings.Cut(name, ":")
	return Query{Service: service.Name{Namespace: ns, Name: name}, Port: port}
}

func report(t testing.TB, n *capture.Node, of string) *Report {
	t.Helper()
	r, err := New(n, query(of))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func write(t testing.TB, r *Report, o Options) string {
	t.Helper()
	var b strings.Builder
	if err := Write(&b, r, o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// without deletes the lines that have all parts. Of a part that no line has nothing is
// said: both families' rules are edited.
func without(parts ...string) func(string) string {
	return func(text string) string {
		lines := strings.SplitAfter(text, "\n")
		return strings.Join(slices.DeleteFunc(lines, func(l string) bool {
			return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(l, p) })
		}), "")
	}
}

// withoutChain deletes a chain of nat and what leads to it.
func withoutChain(name string) func(string) string {
	return func(text string) string {
		for _, part := range []string{":" + name + " ", "-A " + name + " ", "-j " + name + "\n"} {
			text = without(part)(text)
		}
		return text
	}
}

// replaced changes every line that has all parts.
func replaced(old, now string, parts ...string) func(string) string {
	return func(text string) string {
		lines := strings.SplitAfter(text, "\n")
		for i, l := range lines {
			if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(l, p) }) {
				lines[i] = strings.Replace(l, old, now, 1)
			}
		}
		return strings.Join(lines, "")
	}
}
