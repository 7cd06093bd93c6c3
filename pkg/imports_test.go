// SPDX-License-Identifier: Apache-2.0

// Package pkg_test holds the module's packages to the table of imports in
// docs/architecture.md: data flows one way, decoders are pure, only one
// package reads the kernel, and nothing starts a process.
package pkg_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const module = "github.com/svcscope/svcscope/"

// rule is what one package may import. Elements are paths; one that ends in
// /... is the path itself and all below it.
type rule struct {
	may   []string // of this module
	not   []string // of anything else
	calls []string // package.Function that must not be used
}

// Groups of denied imports.
var (
	kubernetes = []string{"k8s.io/...", "sigs.k8s.io/..."}
	prometheus = []string{"github.com/prometheus/..."}
	commands   = []string{"github.com/spf13/cobra/...", "github.com/spf13/pflag"}
	// io is everything a pure package has no use for.
	io = []string{
		"os", "os/...", "net", "net/http/...", "syscall", "log", "log/slog",
		"github.com/mdlayher/...", "github.com/ti-mo/...",
	}
	clock   = []string{"time.Now", "time.Since", "time.Until", "time.Sleep", "time.After", "time.NewTimer", "time.NewTicker"}
	sockets = []string{"unix.Socket", "unix.Open", "unix.Read", "unix.Recvfrom", "unix.Sendto", "unix.Syscall"}
)

// rules has every package below pkg/ but pkg/internal.
var rules = map[string]rule{
	"pkg/netfilter":           decoder(),
	"pkg/netfilter/nlattr":    decoder("pkg/netfilter"),
	"pkg/netfilter/xtables":   decoder("pkg/netfilter"),
	"pkg/netfilter/nftables":  decoder("pkg/netfilter", "pkg/netfilter/nlattr", "pkg/netfilter/xtables"),
	"pkg/netfilter/conntrack": decoder("pkg/netfilter", "pkg/netfilter/nlattr"),
	"pkg/netfilter/nflog":     decoder("pkg/netfilter", "pkg/netfilter/nlattr"),
	"pkg/kernel":              {may: []string{"pkg/netfilter/..."}, not: join(kubernetes, prometheus)},
	"pkg/service":             pure(),
	"pkg/ruleset":             pure("pkg/netfilter/..."),
	"pkg/kubeproxy":           pure("pkg/netfilter", "pkg/service", "pkg/ruleset"),
	"pkg/policy":              pure("pkg/netfilter", "pkg/ruleset", "pkg/kubeproxy"),
	"pkg/ledger":              pure("pkg/netfilter", "pkg/service"),
	"pkg/kube":                {may: []string{"pkg/service"}, not: prometheus},
	"pkg/correlate": pure("pkg/netfilter/...", "pkg/service", "pkg/ruleset", "pkg/kubeproxy",
		"pkg/policy", "pkg/ledger"),
	"pkg/metrics": {
		may: []string{"pkg/netfilter", "pkg/service", "pkg/ruleset", "pkg/ledger", "pkg/correlate"},
		not: kubernetes,
	},
	"pkg/agent": {may: []string{
		"pkg/netfilter/...", "pkg/kernel", "pkg/service", "pkg/ruleset", "pkg/kubeproxy", "pkg/policy",
		"pkg/ledger", "pkg/kube", "pkg/correlate", "pkg/metrics",
	}},
	"pkg/cli": {
		may: []string{
			"pkg/agent", "pkg/kernel", "pkg/kube", "pkg/ruleset", "pkg/service", "pkg/kubeproxy", "pkg/correlate",
		},
		not: []string{"github.com/prometheus/client_golang/..."},
	},
	"cmd/svcscope": {may: []string{"pkg/cli"}, not: join(kubernetes, prometheus, commands)},
}

// pure is a package of values: no I/O, no log, no clock, nothing of
// Kubernetes or Prometheus.
func pure(may ...string) rule {
	return rule{may: may, not: join(io, kubernetes, prometheus), calls: join(clock, sockets)}
}

// decoder is a pure package without shared state.
func decoder(may ...string) rule {
	r := pure(may...)
	r.not = append(r.not, "sync/...")
	return r
}

func join(lists ...[]string) []string { return slices.Concat(lists...) }

func matches(imported string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		if dir, ok := strings.CutSuffix(p, "/..."); ok {
			return imported == dir || strings.HasPrefix(imported, dir+"/")
		}
		return imported == p
	})
}

// check returns what is wrong with one file, name being its path from the
// module's root, with slashes.
func check(name, source string) ([]string, error) {
	file, err := parser.ParseFile(token.NewFileSet(), name, source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", name, err)
	}
	var wrong []string
	complain := func(format string, args ...any) { wrong = append(wrong, name+": "+fmt.Sprintf(format, args...)) }
	if !ast.IsGenerated(file) && !strings.HasPrefix(source, "// SPDX-License-Identifier: Apache-2.0\n") {
		complain("does not start with the SPDX line")
	}
	dir, base := path.Split(name)
	dir = strings.TrimSuffix(dir, "/")
	product := !strings.HasSuffix(base, "_test.go") && !strings.HasPrefix(dir, "hack/") && dir != "hack"
	if !product || strings.HasPrefix(dir+"/", "pkg/internal/") {
		return wrong, nil
	}
	if strings.HasSuffix(base, "_linux.go") && dir != "pkg/kernel" {
		complain("_linux.go belongs in pkg/kernel only")
	}
	r, ok := rules[dir]
	if !ok {
		complain("package %s has no rule: add it to pkg/imports_test.go and docs/architecture.md", dir)
	}
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", name, err)
		}
		inside, own := strings.CutPrefix(imported, module)
		switch {
		case own && !matches(inside, r.may), !own && matches(imported, r.not):
			complain("imports %s", imported)
		case imported == "os/exec":
			complain("imports os/exec: the product starts no process")
		case matches(imported, commands) && dir != "pkg/cli":
			complain("imports %s: flags belong in pkg/cli", imported)
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && slices.Contains(r.calls, x.Name+"."+s.Sel.Name) {
				complain("uses %s.%s", x.Name, s.Sel.Name)
			}
		}
		if f, ok := n.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
			complain("has an init function")
		}
		return true
	})
	return wrong, nil
}

// TestImports checks every Go file of the module. hack/lab is a module of its
// own, for which only the licence line counts.
func TestImports(t *testing.T) {
	root := ".."
	seen := map[string]bool{}
	for _, top := range []string{"cmd", "pkg", "hack"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(p string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && d.Name() == "testdata":
				return filepath.SkipDir
			case d.IsDir() || filepath.Ext(p) != ".go":
				return nil
			}
			source, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			name, err := filepath.Rel(root, p)
			if err != nil {
				return err
			}
			name = filepath.ToSlash(name)
			seen[path.Dir(name)] = true
			wrong, err := check(name, string(source))
			for _, w := range wrong {
				t.Error(w)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if !seen["cmd/svcscope"] || !seen["pkg/correlate"] || len(seen) < 10 {
		t.Errorf("only %d packages were looked at", len(seen))
	}
}

// TestImportRules shows that the rules can fail.
func TestImportRules(t *testing.T) {
	const spdx = "// SPDX-License-Identifier: Apache-2.0\n\n"
	tests := []struct {
		name   string
		file   string
		source string
		want   []string
	}{
		{
			"a decoder may use its parent", "pkg/netfilter/nftables/a.go",
			spdx + `package x; import ("encoding/binary"; "net/netip"; "golang.org/x/sys/unix"; "github.com/svcscope/svcscope/pkg/netfilter/nlattr")`, nil,
		},
		{
			"a decoder opens nothing", "pkg/netfilter/xtables/a.go",
			spdx + `package x; import ("os"; "sync/atomic"; "net/http")`,
			[]string{"imports os", "imports sync/atomic", "imports net/http"},
		},
		{
			"a decoder reads no kernel", "pkg/netfilter/conntrack/a.go",
			spdx + `package x; import "github.com/svcscope/svcscope/pkg/kernel"`,
			[]string{"imports github.com/svcscope/svcscope/pkg/kernel"},
		},
		{
			"the joins take the time as an argument", "pkg/correlate/a.go",
			spdx + `package x; import "time"; var a = time.Now()`,
			[]string{"uses time.Now"},
		},
		{
			"a Service is not the API's", "pkg/service/a.go",
			spdx + `package x; import v1 "k8s.io/api/core/v1"`,
			[]string{"imports k8s.io/api/core/v1"},
		},
		{
			"the command line does not make metrics", "pkg/cli/a.go",
			spdx + `package x; import ("github.com/svcscope/svcscope/pkg/metrics"; "github.com/prometheus/client_golang/prometheus")`,
			[]string{"imports github.com/svcscope/svcscope/pkg/metrics", "imports github.com/prometheus/client_golang/prometheus"},
		},
		{
			"the command line says its version", "pkg/cli/a.go",
			spdx + `package x; import "github.com/prometheus/common/version"`, nil,
		},
		{
			"no process is started", "pkg/agent/a.go",
			spdx + `package x; import "os/exec"`,
			[]string{"imports os/exec: the product starts no process"},
		},
		{"tests may start processes", "pkg/agent/a_test.go", spdx + `package x; import "os/exec"`, nil},
		{"the tests' helpers may, too", "pkg/internal/kerneltest/a_linux.go", spdx + `package x; import "os/exec"`, nil},
		{"tools may, too", "hack/capture/a.go", spdx + `package x; import "os/exec"`, nil},
		{
			"helpers of tests stay out of the product", "pkg/kernel/a.go",
			spdx + `package x; import "github.com/svcscope/svcscope/pkg/internal/kerneltest"`,
			[]string{"imports github.com/svcscope/svcscope/pkg/internal/kerneltest"},
		},
		{
			"flags belong to the command line", "pkg/agent/a.go",
			spdx + `package x; import "github.com/spf13/pflag"`,
			[]string{"imports github.com/spf13/pflag: flags belong in pkg/cli"},
		},
		{
			"main is wiring", "cmd/svcscope/a.go",
			spdx + `package x; import "github.com/svcscope/svcscope/pkg/agent"`,
			[]string{"imports github.com/svcscope/svcscope/pkg/agent"},
		},
		{"Linux alone is in one package", "pkg/agent/a_linux.go", spdx + "package x", []string{"_linux.go belongs in pkg/kernel only"}},
		{"no init", "pkg/kernel/a_linux.go", spdx + "package x; func init() {}", []string{"has an init function"}},
		{"a licence line in every file", "pkg/kernel/a_test.go", "package x", []string{"does not start with the SPDX line"}},
		{"a generated file has its own first line", "pkg/kernel/a.go", "// Code generated by x. DO NOT EDIT.\n\npackage x", nil},
		{
			"a new package needs a rule", "pkg/util/a.go", spdx + "package x",
			[]string{"package pkg/util has no rule: add it to pkg/imports_test.go and docs/architecture.md"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := check(tt.file, tt.source)
			if err != nil {
				t.Fatal(err)
			}
			for i := range got {
				got[i] = strings.TrimPrefix(got[i], tt.file+": ")
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
}
