// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// filled is a value of a type in which every field is something else than zero.
func filled(t *testing.T, v reflect.Value, n *uint64) {
	t.Helper()
	*n++
	switch v.Interface().(type) {
	case netip.Addr:
		v.Set(reflect.ValueOf(netip.MustParseAddr("10.0.0.7")))
		return
	case netip.AddrPort:
		v.Set(reflect.ValueOf(netip.MustParseAddrPort("[fd00::7]:80")))
		return
	case netip.Prefix:
		v.Set(reflect.ValueOf(netip.MustParsePrefix("fd00:0:7::/48")))
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(*n)
	case reflect.String:
		v.SetString("text " + string(rune('a'+*n)) + " \xff\xe9 \U0010ff01 <>&")
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			filled(t, v.Index(i), n)
		}
	case reflect.Struct:
		for _, f := range v.Fields() {
			filled(t, f, n)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		filled(t, v.Elem(), n)
	default:
		t.Fatalf("a field of kind %s, which is not covered", v.Kind())
	}
}

// there and back.
func copied[T any](t *testing.T, v T) T {
	t.Helper()
	b, err := marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var out T
	if err := unmarshal(b, &out); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return out
}

// TestEveryCondition brings back each type of condition, full and empty.
func TestEveryCondition(t *testing.T) {
	var n uint64
	for name, typ := range matchTypes() {
		full := reflect.New(typ).Elem()
		filled(t, full, &n)
		for _, v := range []reflect.Value{full, reflect.Zero(typ)} {
			want := wireMatch{v.Interface().(ruleset.Match)}
			if d := cmp.Diff(want, copied(t, want), comparison()); d != "" {
				t.Errorf("%s (-want +got):\n%s", name, d)
			}
		}
	}
}

// TestEveryAction brings back each kind of action.
func TestEveryAction(t *testing.T) {
	for kind := ruleset.Continue; kind <= ruleset.OtherKind; kind++ {
		var a ruleset.Action
		var n uint64
		filled(t, reflect.ValueOf(&a).Elem(), &n)
		for _, a := range []ruleset.Action{a, {}} {
			a.Kind = kind
			want := wireMatch{ruleset.Also{Action: a}}
			if d := cmp.Diff(want, copied(t, want), comparison()); d != "" {
				t.Errorf("kind %d (-want +got):\n%s", kind, d)
			}
		}
	}
	if kinds := actionKinds(); len(slices.Compact(slices.Sorted(slices.Values(kinds)))) != int(ruleset.OtherKind)+1 {
		t.Errorf("a kind of action has no name of its own: %q", kinds)
	}
}

// TestPortWithoutAddress: a native DNAT to a port has no address.
func TestPortWithoutAddress(t *testing.T) {
	var a ruleset.Action
	a.SetDetails(ruleset.Details{To: netip.AddrPortFrom(netip.Addr{}, 8080)})
	want := wireMatch{ruleset.Also{Action: a}}
	if d := cmp.Diff(want, copied(t, want), comparison()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestConditionsAreAll: a type of condition that pkg/ruleset has and files cannot hold
// would fail to be written on some node.
func TestConditionsAreAll(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../ruleset/match.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var declared []string
	for _, d := range file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.TYPE {
			continue
		}
		for _, s := range g.Specs {
			if name := s.(*ast.TypeSpec).Name.Name; name != "PortRange" && name != "Also" { // no condition; has a name of its own
				declared = append(declared, name)
			}
		}
	}
	var named []string
	for name, typ := range matchTypes() {
		named = append(named, typ.Name())
		if !strings.EqualFold(name, typ.Name()) {
			t.Errorf("%s is named %s", typ.Name(), name)
		}
	}
	slices.Sort(declared)
	slices.Sort(named)
	if d := cmp.Diff(declared, named); d != "" {
		t.Errorf("types (-declared +named):\n%s", d)
	}
}

// TestFieldsAreNamed: a field without a tag would be in files by its name in Go.
func TestFieldsAreNamed(t *testing.T) {
	for name, typ := range matchTypes() {
		seen := map[string]bool{}
		for f := range typ.Fields() {
			tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if tag == "" || seen[tag] || !strings.EqualFold(tag, f.Name) {
				t.Errorf("%s: field %s is named %q", name, f.Name, tag)
			}
			seen[tag] = true
		}
	}
}

// TestNoCondition: what is no condition is an error that says so.
func TestNoCondition(t *testing.T) {
	for text, want := range map[string]string{
		`{"colour":{}}`:                  `condition "colour" is not known`,
		`{}`:                             "a condition has 0 names, want one",
		`{"mark":{},"nth":{}}`:           "a condition has 2 names, want one",
		`{"mark":{"colour":1}}`:          `condition mark: json: unknown field "colour"`,
		`{"mark":{"value":-1}}`:          "condition mark: json: cannot unmarshal",
		`{"also":{"kind":"fly"}}`:        `action "fly" is not known`,
		`{"source":{"prefix":"10.0.0"}}`: "condition source: ",
		`"mark"`:                         "json: cannot unmarshal string",
	} {
		var m wireMatch
		if err := json.Unmarshal([]byte(text), &m); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	if _, err := marshal(wireMatch{strange{}}); err == nil || !strings.Contains(err.Error(), "capture.strange has no name") {
		t.Errorf("a condition of another package: %v", err)
	}
}

type strange struct{}

func (strange) String() string { return "" }

// TestNames of rules' files.
func TestNames(t *testing.T) {
	want := []string{"nft-ipv4", "legacy-ipv4", "nft-ipv6", "legacy-ipv6", "nft-inet", "legacy-inet"}
	if d := cmp.Diff(want, rulesNames()); d != "" {
		t.Error(d)
	}
	for _, f := range families() {
		if got, err := parseFamily(f.String()); err != nil || got != f {
			t.Errorf("%v: %v, %v", f, got, err)
		}
	}
	if _, err := parseFamily(netfilter.FamilyARP.String()); err == nil {
		t.Error("arp is a family of rules")
	}
	if got := slices.Collect(maps.Keys(matches.types)); len(got) != len(matches.names) {
		t.Error("two conditions have one type")
	}
}
