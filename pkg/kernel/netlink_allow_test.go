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
	1<<8 | 5:   "IPCTNL_MSG_CT_GET_STATS",
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
		"NFNL_SUBSYS_NFTABLES": 10, "NFNL_SUBSYS_CTNETLINK": 1, "NFT_MSG_GETTABLE": 1, "NFT_MSG_GETCHAIN": 4,
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
	if found < 5 {
		t.Errorf("found %d constants of requestType", found)
	}
	// Send is called with a requestType, and does the one Sendto.
	sends, raw := 0, 0
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if id, ok := n.Fun.(*ast.Ident); ok && id.Name == "requestType" {
					t.Errorf("%s: conversion to requestType", fset.Position(n.Pos()))
				}
				if sel, ok := n.Fun.(*ast.SelectorExpr); ok {
					switch sel.Sel.Name {
					case "Send":
						sends++
					case "Sendto":
						raw++
					case "SendMessages", "Execute", "Sendmsg", "SendmsgN", "JoinGroup":
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
	if sends != 1 || raw != 1 {
		t.Errorf("netlink requests are sent in %d places by %d system calls, want 1 by 1", sends, raw)
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
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) != 3 {
				return true
			}
			if sel, ok := call.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "getsockopt" {
				if id, ok := call.Args[1].(*ast.Ident); !ok || id.Name != "soGetInfo" && id.Name != "soGetEntries" {
					t.Errorf("%s: option is not one of the constants", fset.Position(call.Pos()))
				}
			}
			return true
		})
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
