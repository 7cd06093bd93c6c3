// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// allowed are the requests that change nothing in the kernel.
var allowed = map[uint64]string{
	10<<8 | 1:  "NFT_MSG_GETTABLE",
	10<<8 | 4:  "NFT_MSG_GETCHAIN",
	10<<8 | 7:  "NFT_MSG_GETRULE",
	10<<8 | 10: "NFT_MSG_GETSET",
	10<<8 | 13: "NFT_MSG_GETSETELEM",
	10<<8 | 16: "NFT_MSG_GETGEN",
	1<<8 | 1:   "IPCTNL_MSG_CT_GET",
	1<<8 | 4:   "IPCTNL_MSG_CT_GET_STATS_CPU",
	7<<8 | 1:   "NFNL_MSG_ACCT_GET",
}

// xsys resolves golang.org/x/sys/unix only, as constants that the package
// under test uses; the rest of its imports does not matter here.
type xsys struct{}

func (xsys) Import(path string) (*types.Package, error) {
	if path != "golang.org/x/sys/unix" {
		return nil, errors.New("not needed")
	}
	p := types.NewPackage(path, "unix")
	for name, v := range map[string]int64{
		"NFNL_SUBSYS_NFTABLES": 10, "NFNL_SUBSYS_CTNETLINK": 1, "NFNL_SUBSYS_ACCT": 7, "NFT_MSG_GETTABLE": 1, "NFT_MSG_GETCHAIN": 4,
		"NFT_MSG_GETRULE": 7, "NFT_MSG_GETSET": 10, "NFT_MSG_GETSETELEM": 13, "NFT_MSG_GETGEN": 16,
	} {
		p.Scope().Insert(types.NewConst(token.NoPos, p, name, types.Typ[types.UntypedInt], constant.MakeInt64(v)))
	}
	p.MarkComplete()
	return p, nil
}

func parsePackage(t *testing.T) (*token.FileSet, []*ast.File) {
	t.Helper()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	fset := token.NewFileSet()
	var files []*ast.File
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, e.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return fset, files
}

// TestRequestsChangeNothing checks every request that this package can
// build: the constants of requestType are on the list, no other value can
// become one, and requests are sent in one place only.
func TestRequestsChangeNothing(t *testing.T) {
	fset, files := parsePackage(t)
	conf := types.Config{Importer: xsys{}, Error: func(error) {}}
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}}
	pkg, _ := conf.Check("kernel", fset, files, info)
	found := 0
	for _, name := range pkg.Scope().Names() {
		c, ok := pkg.Scope().Lookup(name).(*types.Const)
		if !ok || !strings.HasSuffix(c.Type().String(), ".requestType") {
			continue
		}
		found++
		v, exact := constant.Uint64Val(constant.ToInt(c.Val()))
		if !exact || allowed[v] == "" {
			t.Errorf("%s = %v is not on the list of harmless requests", name, c.Val())
		}
	}
	if found != len(allowed) {
		t.Errorf("found %d constants of requestType, want %d: every one of the list is sent", found, len(allowed))
	}
	// Send is called with a requestType, and does the one Sendto. The other Send is
	// of bindLog, which has a message of its own.
	raw, conversions, joins := 0, 0, 0
	sends := map[string]int{}
	for _, f := range files {
		name := fset.Position(f.Pos()).Filename
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if id, ok := n.Fun.(*ast.Ident); ok && id.Name == "requestType" {
					conversions++ // the check in Send
				}
				if sel, ok := n.Fun.(*ast.SelectorExpr); ok {
					switch sel.Sel.Name {
					case "Send":
						sends[name]++
					case "Sendto":
						raw++
					case "JoinGroup":
						joins++
						if id, ok := n.Args[0].(*ast.Ident); !ok || id.Name != "noticesGroup" {
							t.Errorf("%s: group is not the constant", fset.Position(n.Pos()))
						}
					case "SendMessages":
						if name != "tap_write.go" {
							t.Errorf("%s: %s", fset.Position(n.Pos()), sel.Sel.Name)
						}
					case "Execute", "Sendmsg", "SendmsgN":
						t.Errorf("%s: %s", fset.Position(n.Pos()), sel.Sel.Name)
					}
				}
			case *ast.KeyValueExpr:
				if id, ok := n.Key.(*ast.Ident); ok && id.Name == "typ" {
					if v, ok := n.Value.(*ast.Ident); !ok || pkg.Scope().Lookup(v.Name) == nil {
						t.Errorf("%s: typ is not one of the constants", fset.Position(n.Pos()))
					}
				}
			}
			return true
		})
	}
	if c, ok := pkg.Scope().Lookup("noticesGroup").(*types.Const); !ok || c.Val().String() != "7" || joins != 1 {
		t.Errorf("%d groups are joined, want one, NFNLGRP_NFTABLES", joins)
	}
	if d := cmp.Diff(map[string]int{"netlink.go": 1, "packetlog_bind.go": 1}, sends); d != "" {
		t.Errorf("netlink requests are sent in other places (-want +got):\n%s", d)
	}
	if raw != 1 || conversions != 1 {
		t.Errorf("netlink requests are sent by %d system calls after %d conversions, want 1 each", raw, conversions)
	}
}

// TestSocketRefusesWhatWrites asks a socket that leads nowhere: what it does
// not refuse ends in a panic, not in the kernel.
func TestSocketRefusesWhatWrites(t *testing.T) {
	reads := netlink.Request | netlink.Dump
	tests := []struct {
		name   string
		header netlink.Header
	}{
		{"NFT_MSG_NEWTABLE", netlink.Header{Type: 10 << 8, Flags: netlink.Request}},
		{"NFT_MSG_DELTABLE", netlink.Header{Type: 10<<8 | 2, Flags: netlink.Request}},
		{"NFT_MSG_NEWRULE", netlink.Header{Type: 10<<8 | 6, Flags: netlink.Request}},
		{"NFT_MSG_GETRULE_RESET", netlink.Header{Type: 10<<8 | 25, Flags: reads}},
		{"NFT_MSG_GETSETELEM_RESET", netlink.Header{Type: 10<<8 | 33, Flags: reads}},
		{"NFT_MSG_NEWSETELEM", netlink.Header{Type: 10<<8 | 12, Flags: netlink.Request}},
		{"IPCTNL_MSG_CT_GET_CTRZERO", netlink.Header{Type: 1<<8 | 3, Flags: reads}},
		{"NFNL_MSG_ACCT_NEW", netlink.Header{Type: 7 << 8, Flags: netlink.Request}},
		{"NFNL_MSG_ACCT_GET_CTRZERO", netlink.Header{Type: 7<<8 | 2, Flags: reads}},
		{"NFNL_MSG_ACCT_DEL", netlink.Header{Type: 7<<8 | 3, Flags: netlink.Request}},
		{"NFNL_MSG_BATCH_BEGIN", netlink.Header{Type: 16, Flags: netlink.Request}},
		{"create", netlink.Header{Type: netlink.HeaderType(getRule), Flags: netlink.Request | netlink.Create}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := (&socket{}).Send(t.Context(), netlink.Message{Header: tt.header}); !errors.Is(err, errRefused) {
				t.Errorf("got %v, want a refusal", err)
			}
		})
	}
	for v, name := range allowed {
		if !requestType(v).harmless() {
			t.Errorf("%s is refused", name)
		}
	}
}

// TestSocketOptionRefusesOthers: without sockets, what is not refused ends
// with EAFNOSUPPORT.
func TestSocketOptionRefusesOthers(t *testing.T) {
	r := &Legacy{}
	for _, o := range []struct {
		level, name int
		want        error
	}{
		{unix.IPPROTO_IP, soGetInfo, unix.EAFNOSUPPORT},
		{unix.IPPROTO_IPV6, soGetEntries, unix.EAFNOSUPPORT},
		{unix.IPPROTO_IP, 63, errRefused},
		{unix.IPPROTO_IP, 66, errRefused}, // IPT_SO_GET_REVISION_MATCH loads modules
		{unix.IPPROTO_IP, 67, errRefused},
		{unix.SOL_SOCKET, soGetInfo, errRefused},
	} {
		if _, err := r.socketOption(o.level, o.name, make([]byte, 8)); !errors.Is(err, o.want) {
			t.Errorf("option %d of level %d: got %v, want %v", o.name, o.level, err, o.want)
		}
	}
}

// TestNothingElseReachesTheKernel looks for system calls that write: options
// of x_tables are read (IPT_SO_GET_INFO 64, IPT_SO_GET_ENTRIES 65), never set,
// and no file is opened for writing.
func TestNothingElseReachesTheKernel(t *testing.T) {
	fset, files := parsePackage(t)
	conf := types.Config{Importer: xsys{}, Error: func(error) {}}
	pkg, _ := conf.Check("kernel", fset, files, nil)
	for name, want := range map[string]string{"soGetInfo": "64", "soGetEntries": "65"} {
		c, ok := pkg.Scope().Lookup(name).(*types.Const)
		if !ok || c.Val().String() != want {
			t.Errorf("%s: got %v, want %s", name, pkg.Scope().Lookup(name), want)
		}
	}
	opens := 0
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) != 3 {
				return true
			}
			if types.ExprString(call.Fun) == "unix.Open" {
				opens++
				if flags := types.ExprString(call.Args[1]); flags != "unix.O_RDONLY | unix.O_CLOEXEC" {
					t.Errorf("%s: opened with %s", fset.Position(call.Pos()), flags)
				}
			}
			if sel, ok := call.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "getsockopt" {
				if id, ok := call.Args[1].(*ast.Ident); !ok || id.Name != "soGetInfo" && id.Name != "soGetEntries" {
					t.Errorf("%s: option is not one of the constants", fset.Position(call.Pos()))
				}
			}
			return true
		})
	}
	if opens != 1 {
		t.Errorf("files are opened by %d system calls of this package's own, want 1", opens)
	}
	forbidden := regexp.MustCompile(`SETSOCKOPT|Setsockopt|IPT_SO_SET|SO_SET_|os\.(WriteFile|Create|OpenFile|Remove|Mkdir)|Flock|os/exec`)
	fset.Iterate(func(f *token.File) bool {
		src, err := os.ReadFile(f.Name())
		if err != nil {
			t.Error(err)
		}
		for i, line := range strings.Split(string(src), "\n") {
			code, _, _ := strings.Cut(line, "//")
			if m := forbidden.FindString(code); m != "" {
				t.Errorf("%s:%d: %s", f.Name(), i+1, m)
			}
		}
		return true
	})
}
