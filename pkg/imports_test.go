// SPDX-License-Identifier: Apache-2.0

// Package pkg_test holds the module's packages to the table of imports in
// docs/architecture.md: data flows one way, decoders are pure, only one
// package reads the kernel, nothing starts a process or writes a file.
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
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/svcscope/svcscope/"

// rule is what one package may import. Elements are paths; one that ends in
// /... is the path itself and all below it.
type rule struct {
	may    []string // of this module
	not    []string // of anything else
	calls  []string // package.Function that must not be used
	system []string // what it may use of unix and syscall beside constants
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
	clock = []string{"time.Now", "time.Since", "time.Until", "time.Sleep", "time.After", "time.NewTimer", "time.NewTicker"}
	// kernelOnly are the libraries that talk to the kernel.
	kernelOnly = []string{"github.com/mdlayher/...", "github.com/ti-mo/...", "github.com/vishvananda/...", "github.com/google/nftables/...", "github.com/florianl/..."}
	// never are imports by which a package could start a process or write.
	never = []string{"os/exec", "plugin", "C", "io/ioutil"}
	// system is all that kernel uses of unix and syscall; what starts a
	// process, writes or changes an option is not among it.
	system = []string{
		"unix.Socket", "unix.Close", "unix.Sendto", "unix.Recvmsg", "unix.Bind", "unix.Iovec", "unix.Msghdr", "unix.RawSockaddrNetlink", "unix.SizeofSockaddrNetlink", "unix.Syscall6", "unix.Mmap", "unix.Munmap",
		"unix.Madvise", "unix.Uname", "unix.ByteSliceToString", "unix.Sockaddr", "unix.SockaddrNetlink", "unix.Utsname",
		"syscall.RawConn",
		// The watch of a file that is never opened.
		"unix.InotifyInit1", "unix.InotifyAddWatch", "os.NewFile", "unix.Poll", "unix.PollFd", "syscall.Stat_t",
		"unix.Open", "unix.Pread", // to read: pkg/kernel's own test looks at its flags
	}
)

// writing are the functions of os that start a process or could write: no
// package of the product uses one, so that files can only be read; kernel alone takes
// the descriptor of its inotify for one.
var writing = regexp.MustCompile(`^os\.(StartProcess|FindProcess|WriteFile|Create|CreateTemp|OpenFile|OpenRoot|OpenInRoot|NewFile|` +
	`Mkdir|MkdirAll|MkdirTemp|Remove|RemoveAll|Rename|Truncate|Link|Symlink|Ch[a-z]+|Lchown|CopyFS|Pipe|Setenv)$`)

// constant is a name of unix or syscall that no system call is behind.
var constant = regexp.MustCompile(`^(unix|syscall)\.([A-Z0-9_]+|Errno|Signal)$`)

// kernelPath is a string that names a file of the kernel.
var kernelPath = regexp.MustCompile(`^/?(proc|sys)/`)

// rules has every package below pkg/ but pkg/internal.
var rules = map[string]rule{
	"pkg/netfilter":           decoder(),
	"pkg/netfilter/nlattr":    decoder("pkg/netfilter"),
	"pkg/netfilter/xtables":   decoder("pkg/netfilter"),
	"pkg/netfilter/nftables":  decoder("pkg/netfilter", "pkg/netfilter/nlattr", "pkg/netfilter/xtables"),
	"pkg/netfilter/conntrack": decoder("pkg/netfilter", "pkg/netfilter/nlattr"),
	"pkg/netfilter/nfacct":    decoder("pkg/netfilter", "pkg/netfilter/nlattr"),
	"pkg/netfilter/nflog":     decoder("pkg/netfilter", "pkg/netfilter/conntrack", "pkg/netfilter/nlattr"),
	"pkg/kernel":              {may: []string{"pkg/netfilter/..."}, not: join(kubernetes, prometheus), system: system},
	"pkg/service":             pure(),
	"pkg/ruleset":             pure("pkg/netfilter/..."),
	"pkg/kubeproxy":           pure("pkg/netfilter", "pkg/service", "pkg/ruleset"),
	"pkg/drift":               pure("pkg/netfilter", "pkg/service", "pkg/ruleset", "pkg/kubeproxy"),
	"pkg/policy":              pure("pkg/netfilter", "pkg/ruleset", "pkg/kubeproxy"),
	"pkg/capture":             pure("pkg/netfilter", "pkg/service", "pkg/ruleset", "pkg/kubeproxy"),
	"pkg/nodediff": pure("pkg/netfilter", "pkg/service", "pkg/ruleset", "pkg/kubeproxy", "pkg/drift", "pkg/policy",
		"pkg/capture"),
	"pkg/explain": pure("pkg/netfilter", "pkg/service", "pkg/ruleset", "pkg/kubeproxy", "pkg/drift", "pkg/capture"),
	"pkg/ledger":  pure("pkg/netfilter", "pkg/service"),
	"pkg/kube":    {may: []string{"pkg/service"}, not: prometheus},
	"pkg/correlate": pure("pkg/netfilter/...", "pkg/service", "pkg/ruleset", "pkg/kubeproxy",
		"pkg/drift", "pkg/policy", "pkg/ledger"),
	"pkg/metrics": {
		may: []string{"pkg/netfilter", "pkg/service", "pkg/ruleset", "pkg/drift", "pkg/ledger", "pkg/correlate"},
		not: join(kubernetes, []string{"os", "os/...", "syscall"}),
	},
	"pkg/agent": {may: []string{
		"pkg/netfilter/...", "pkg/kernel", "pkg/service", "pkg/ruleset", "pkg/kubeproxy", "pkg/drift", "pkg/policy",
		"pkg/ledger", "pkg/kube", "pkg/correlate", "pkg/capture", "pkg/metrics",
	}},
	"pkg/cli": {
		may: []string{
			"pkg/agent", "pkg/kernel", "pkg/kube", "pkg/ruleset", "pkg/service", "pkg/kubeproxy", "pkg/correlate", "pkg/capture", "pkg/nodediff",
			"pkg/explain",
		},
		not: []string{"github.com/prometheus/client_golang/..."},
	},
	"cmd/svcscope": {may: []string{"pkg/cli"}, not: join(kubernetes, prometheus, commands)},
}

// pure is a package of values: no I/O, no log, no clock, nothing of
// Kubernetes or Prometheus.
func pure(may ...string) rule {
	return rule{may: may, not: join(io, kubernetes, prometheus), calls: clock}
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
		case matches(imported, never), spec.Name != nil && spec.Name.Name == ".":
			complain("imports %s: the product starts no process and writes no file", imported)
		case matches(imported, kernelOnly) && dir != "pkg/kernel":
			complain("imports %s: only pkg/kernel talks to the kernel", imported)
		case matches(imported, commands) && dir != "pkg/cli":
			complain("imports %s: flags belong in pkg/cli", imported)
		}
	}
	for _, u := range uses(file, r) {
		complain("%s", u)
	}
	return wrong, nil
}

// uses returns what a file must not have, imports aside.
func uses(file *ast.File, r rule) (wrong []string) {
	names := map[string]string{} // what the file calls a package: its own name
	for _, spec := range file.Imports {
		own := path.Base(strings.Trim(spec.Path.Value, `"`))
		names[own] = own
		if spec.Name != nil {
			names[spec.Name.Name] = own
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			x, ok := n.X.(*ast.Ident)
			if !ok || names[x.Name] == "" {
				return true
			}
			if name := names[x.Name] + "." + n.Sel.Name; slices.Contains(r.calls, name) || writing.MatchString(name) && !slices.Contains(r.system, name) || calls(name, r) {
				wrong = append(wrong, "uses "+name)
			}
		case *ast.BasicLit:
			s, err := strconv.Unquote(n.Value)
			// Where os is denied too, a path is a text.
			if err == nil && n.Kind == token.STRING && kernelPath.MatchString(s) && r.system == nil && !matches("os", r.not) {
				wrong = append(wrong, "names "+s+": only pkg/kernel reads the kernel's files")
			}
		case *ast.FuncDecl:
			if n.Recv == nil && n.Name.Name == "init" {
				wrong = append(wrong, "has an init function")
			}
		}
		return true
	})
	return wrong
}

// calls reports whether a name is of a system call that r does not allow. Of
// those made by number, there is one.
func calls(name string, r rule) bool {
	lib, _, _ := strings.Cut(name, ".")
	if lib != "unix" && lib != "syscall" || slices.Contains(r.system, name) {
		return false
	}
	if strings.HasPrefix(name, lib+".SYS_") {
		return name != "unix.SYS_GETSOCKOPT" && name != "unix.SYS_RECVMMSG" || r.system == nil
	}
	return !constant.MatchString(name)
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
