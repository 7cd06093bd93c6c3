// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestWalk does what README.md says: three commands from nothing to a
// Service's number. Only where chart and manifests come from is another place.
func TestWalk(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile(filepath.Join(repository, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	commands := walk(t, string(readme))
	apply := regexp.MustCompile("`kubectl apply -k \"([^\"]*)\"`").FindStringSubmatch(string(readme))
	if apply == nil {
		t.Fatal("README.md has no `kubectl apply -k \"URL\"`")
	}
	here, err := filepath.Abs(repository)
	if err != nil {
		t.Fatal(err)
	}
	s := newInstalled(t, "nft")
	const chart = "oci://ghcr.io/svcscope/charts/svcscope"
	if !strings.Contains(commands[0], chart) {
		t.Fatalf("%s: want it to install %s", commands[0], chart)
	}
	s.walk(strings.Replace(commands[0], chart, filepath.Join(here, "charts", "svcscope"), 1), commands[1], commands[2])
	s.do("helm uninstall svcscope -n svcscope")
	s.gone()
	s.walk("kubectl apply -k "+filepath.Join(here, "deploy"), commands[1], commands[2])
	result(t, "README's three commands, by Helm and by kustomize, to the number of connections opened")
}

// walk returns the three commands of README.md.
func walk(t *testing.T, readme string) []string {
	t.Helper()
	_, text, _ := strings.Cut(readme, "<!-- walk:begin -->")
	text, _, ok := strings.Cut(text, "<!-- walk:end -->")
	if !ok {
		t.Fatal("README.md has no walk:begin and walk:end")
	}
	var out []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "```") {
			out = append(out, line)
		}
	}
	if len(out) != 3 {
		t.Fatalf("the walk has %d commands, want three: %q", len(out), out)
	}
	return out
}

// walk runs the commands and compares the last one's answer with connections
// opened after the second.
func (s *installed) walk(install, wait, ask string) {
	s.t.Helper()
	s.do(install)
	s.do(wait)
	const n = 123
	if r := s.lab.Load("client", s.web.VIP4(), n); r.Succeeded != n {
		s.t.Fatalf("%d of %d connections succeeded: %v", r.Succeeded, n, r.Errors)
	}
	eventually(s.t, "the Service's number", func() error {
		out := s.do(ask)
		for line := range strings.Lines(out) {
			// NAMESPACE NAME PORT CLUSTER-IP CONNECTIONS …
			f := strings.Fields(line)
			if len(f) > 4 && f[1] == "web" && strings.HasPrefix(s.web.VIP4(), f[3]+":") && f[4] == strconv.Itoa(n) {
				s.t.Logf("\n%s", out)
				return nil
			}
		}
		return fmt.Errorf("not %d in\n%s", n, out)
	})
}
