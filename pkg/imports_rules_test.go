// SPDX-License-Identifier: Apache-2.0

package pkg_test

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// documented reads the table of docs/architecture.md: what each package may
// import of this module.
func documented(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	table := map[string][]string{}
	row := regexp.MustCompile("(?m)^\\| `((?:pkg|cmd)/[^`]+)` \\|[^|]*\\| ([^|]+) \\|$")
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		if _, twice := table[m[1]]; twice {
			t.Errorf("%s has two rows", m[1])
		}
		may := []string{}
		for name := range strings.SplitSeq(m[2], ", ") {
			if name != "nothing" {
				may = append(may, "pkg/"+name)
			}
		}
		slices.Sort(may)
		table[m[1]] = may
	}
	return table
}

// TestImportsAreDocumented holds the table of docs/architecture.md to the
// rules, which TestImports holds the code to.
func TestImportsAreDocumented(t *testing.T) {
	want := map[string][]string{}
	for dir, r := range rules {
		want[dir] = append([]string{}, slices.Sorted(slices.Values(r.may))...)
		for i := range want[dir] {
			want[dir][i] = strings.Replace(want[dir][i], "/...", "/*", 1)
		}
	}
	got := documented(t)
	if d := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got))); d != "" {
		t.Errorf("packages (-rules +docs/architecture.md):\n%s", d)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("imports (-rules +docs/architecture.md):\n%s", d)
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
			[]string{"imports os/exec: the product starts no process and writes no file"},
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
			"only one package makes system calls", "pkg/agent/a.go",
			spdx + `package x
import "golang.org/x/sys/unix"
var a = unix.EADDRINUSE
var b, _ = unix.Socket(unix.AF_NETLINK, 0, 0)
var c = unix.Sendto(0, nil, 0, nil)
var d, _ = unix.SendmsgN(0, nil, nil, nil, 0)
var e = unix.SetsockoptInt(0, 0, 64, 0)
var f, _, _ = unix.RawSyscall(unix.SYS_SETSOCKOPT, 0, 0, 0)`,
			[]string{
				"uses unix.Socket", "uses unix.Sendto", "uses unix.SendmsgN", "uses unix.SetsockoptInt",
				"uses unix.RawSyscall", "uses unix.SYS_SETSOCKOPT",
			},
		},
		{
			"nor under another name", "pkg/cli/a.go",
			spdx + `package x; import sys "syscall"; var a, _ = sys.ForkExec("", nil, nil); var b = sys.SIGTERM`,
			[]string{"uses syscall.ForkExec"},
		},
		{
			"nor in a package without rules of its own", "pkg/kubeproxy/a.go",
			spdx + `package x; import "golang.org/x/sys/unix"; var a = unix.Connect(0, nil)`,
			[]string{"uses unix.Connect"},
		},
		{
			"the kernel is asked, and nothing is started or set", "pkg/kernel/a.go",
			spdx + `package x
import ("golang.org/x/sys/unix"; "syscall")
var a, _ = unix.Socket(unix.AF_NETLINK, 0, 0)
var b, _, _ = unix.Syscall6(unix.SYS_GETSOCKOPT, 0, 0, 0, 0, 0, 0)
var c, _, _ = unix.Syscall6(unix.SYS_SETSOCKOPT, 0, 0, 0, 0, 0, 0)
var d = unix.SetsockoptString(0, 0, 64, "")
var e = unix.Exec("", nil, nil)
var f = syscall.Exec("", nil, nil)
var g, _, _ = syscall.StartProcess("", nil, nil)
var h, _ = unix.Openat("", unix.O_WRONLY, 0)`,
			[]string{
				"uses unix.SYS_SETSOCKOPT", "uses unix.SetsockoptString", "uses unix.Exec", "uses syscall.Exec",
				"uses syscall.StartProcess", "uses unix.Openat",
			},
		},
		{
			"no file is written", "pkg/kernel/a.go",
			spdx + `package x
import "os"
var a = os.WriteFile("", nil, 0)
var b, _ = os.Create("")
var c, _ = os.OpenFile("", os.O_RDWR, 0)
var d, _ = os.StartProcess("", nil, nil)
var e, _ = os.ReadFile("/proc/modules")`,
			[]string{"uses os.WriteFile", "uses os.Create", "uses os.OpenFile", "uses os.StartProcess"},
		},
		{
			"nor by others", "pkg/kube/a.go", spdx + `package x; import "os"; var a = os.Chmod("", 0)`,
			[]string{"uses os.Chmod"},
		},
		{
			"only one package reads the kernel's files", "pkg/agent/a.go",
			spdx + `package x; import "os"; var a, _ = os.ReadFile("/proc/modules"); var b, _ = os.Open("/sys/module/nf_tables")`,
			[]string{
				"names /proc/modules: only pkg/kernel reads the kernel's files",
				"names /sys/module/nf_tables: only pkg/kernel reads the kernel's files",
			},
		},
		{
			"a metric may tell where it comes from", "pkg/metrics/a.go",
			spdx + `package x; import "os"; var a = "/proc/modules"`,
			[]string{"imports os"},
		},
		{
			"netlink is the kernel's", "pkg/agent/a.go",
			spdx + `package x; import "github.com/mdlayher/netlink"`,
			[]string{"imports github.com/mdlayher/netlink: only pkg/kernel talks to the kernel"},
		},
		{
			"no name without its package", "pkg/kernel/a.go",
			spdx + `package x; import . "os"; var a = WriteFile("", nil, 0)`,
			[]string{"imports os: the product starts no process and writes no file"},
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
