// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"

	"github.com/svcscope/svcscope/pkg/ruleset"
)

// matchTypes are the conditions of rules by the names that they have in files; their
// fields have the names of their tags. That of an Also is its action (wireMatch).
func matchTypes() map[string]reflect.Type {
	return map[string]reflect.Type{
		"addrType":        reflect.TypeFor[ruleset.AddrType](),
		"comment":         reflect.TypeFor[ruleset.Comment](),
		"conntrackState":  reflect.TypeFor[ruleset.ConntrackState](),
		"destination":     reflect.TypeFor[ruleset.Destination](),
		"destinationPort": reflect.TypeFor[ruleset.DestinationPort](),
		"fragment":        reflect.TypeFor[ruleset.Fragment](),
		"inInterface":     reflect.TypeFor[ruleset.InInterface](),
		"inSet":           reflect.TypeFor[ruleset.InSet](),
		"limit":           reflect.TypeFor[ruleset.Limit](),
		"mark":            reflect.TypeFor[ruleset.Mark](),
		"module":          reflect.TypeFor[ruleset.Module](),
		"multiport":       reflect.TypeFor[ruleset.Multiport](),
		"networkProtocol": reflect.TypeFor[ruleset.NetworkProtocol](),
		"nfacct":          reflect.TypeFor[ruleset.NFAcct](),
		"nth":             reflect.TypeFor[ruleset.Nth](),
		"outInterface":    reflect.TypeFor[ruleset.OutInterface](),
		"protocol":        reflect.TypeFor[ruleset.Protocol](),
		"random":          reflect.TypeFor[ruleset.Random](),
		"recent":          reflect.TypeFor[ruleset.Recent](),
		"setUpdate":       reflect.TypeFor[ruleset.SetUpdate](),
		"source":          reflect.TypeFor[ruleset.Source](),
		"sourcePort":      reflect.TypeFor[ruleset.SourcePort](),
		"tcpFlags":        reflect.TypeFor[ruleset.TCPFlags](),
		"tcpOption":       reflect.TypeFor[ruleset.TCPOption](),
		"unknown":         reflect.TypeFor[ruleset.Unknown](),
	}
}

// alsoMatch is the name of an Also.
const alsoMatch = "also"

// matchCodec has matchTypes in both directions.
type matchCodec struct {
	types map[string]reflect.Type
	names map[reflect.Type]string
}

var matches = func() matchCodec {
	c := matchCodec{matchTypes(), make(map[reflect.Type]string)}
	for name, t := range c.types {
		c.names[t] = name
	}
	return c
}()

// wireMatch is one condition: an object with the condition's name as its one key.
type wireMatch struct{ ruleset.Match }

// MarshalJSON implements json.Marshaler.
func (m wireMatch) MarshalJSON() ([]byte, error) {
	if also, ok := m.Match.(ruleset.Also); ok {
		return marshal(map[string]wireAction{alsoMatch: newWireAction(&also.Action)})
	}
	name, ok := matches.names[reflect.TypeOf(m.Match)]
	if !ok {
		return nil, fmt.Errorf("a condition of type %T has no name in snapshots", m.Match)
	}
	v := reflect.New(reflect.TypeOf(m.Match)).Elem()
	v.Set(reflect.ValueOf(m.Match))
	mapStrings(v, escape)
	return marshal(map[string]any{name: v.Interface()})
}

// UnmarshalJSON implements json.Unmarshaler.
func (m *wireMatch) UnmarshalJSON(b []byte) error {
	var one map[string]json.RawMessage
	if err := json.Unmarshal(b, &one); err != nil {
		return err
	}
	if len(one) != 1 {
		return fmt.Errorf("a condition has %d names, want one", len(one))
	}
	name := slices.Collect(maps.Keys(one))[0]
	if name == alsoMatch {
		var a wireAction
		if err := unmarshal(one[name], &a); err != nil {
			return fmt.Errorf("condition %s: %w", name, err)
		}
		action, err := a.action()
		m.Match = ruleset.Also{Action: action}
		return err
	}
	t, ok := matches.types[name]
	if !ok {
		return fmt.Errorf("condition %q is not known", name)
	}
	v := reflect.New(t)
	if err := unmarshal(one[name], v.Interface()); err != nil {
		return fmt.Errorf("condition %s: %w", name, err)
	}
	mapStrings(v.Elem(), unescape)
	m.Match, ok = v.Elem().Interface().(ruleset.Match)
	if !ok {
		return fmt.Errorf("condition %s is none of a rule", name)
	}
	return nil
}

// marshal is json.Marshal, but that "->" stays "->".
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b.Bytes(), err
}

// unmarshal is json.Unmarshal, but that fields which are not known are an error.
func unmarshal(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the value")
	}
	return nil
}
