// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/svcscope/svcscope/pkg/ruleset"
)

// actionKinds are the kinds of action by their numbers, as files name them. A rule
// without a target has none.
func actionKinds() []string {
	return []string{
		ruleset.Continue: "", ruleset.Accept: "accept", ruleset.Drop: "drop", ruleset.Return: "return",
		ruleset.Queue: "queue", ruleset.Jump: "jump", ruleset.Goto: "goto", ruleset.DNAT: "dnat", ruleset.SNAT: "snat",
		ruleset.Masquerade: "masquerade", ruleset.SetMark: "setMark", ruleset.Reject: "reject", ruleset.Log: "log",
		ruleset.Map: "map", ruleset.OtherKind: "other",
	}
}

var actionNames = actionKinds()

func actionName(k ruleset.ActionKind) string { return actionNames[k] }

func parseActionKind(name string) (ruleset.ActionKind, error) {
	i := slices.Index(actionNames, name)
	if i < 0 {
		return 0, fmt.Errorf("action %q is not known", name)
	}
	return ruleset.ActionKind(i), nil
}

// wireAction is what a rule does, ruleset.Action.
type wireAction struct {
	Kind   string `json:"kind,omitempty"`
	Chain  string `json:"chain,omitempty"`
	Random bool   `json:"random,omitempty"`
	Group  uint16 `json:"group,omitempty"`
	Value  uint32 `json:"value,omitempty"`
	Mask   uint32 `json:"mask,omitempty"`

	Address netip.Addr `json:"address,omitzero"`
	Port    uint16     `json:"port,omitempty"`
	With    string     `json:"with,omitempty"`
	Prefix  string     `json:"prefix,omitempty"`
	Name    string     `json:"name,omitempty"`
	Args    string     `json:"args,omitempty"`
}

func newWireAction(a *ruleset.Action) wireAction {
	d := a.Details()
	return wireAction{
		Kind: actionName(a.Kind), Chain: escape(a.Chain), Random: a.Random, Group: a.Group, Value: a.Value, Mask: a.Mask,
		Address: d.To.Addr(), Port: d.To.Port(), With: escape(d.With), Prefix: escape(d.Prefix), Name: escape(d.Name), Args: escape(d.Args),
	}
}

func (w *wireAction) action() (ruleset.Action, error) {
	kind, err := parseActionKind(w.Kind)
	a := ruleset.Action{
		Kind: kind, Chain: unescape(w.Chain), Random: w.Random, Group: w.Group, Value: w.Value, Mask: w.Mask,
	}
	a.SetDetails(ruleset.Details{
		To: netip.AddrPortFrom(w.Address, w.Port), With: unescape(w.With), Prefix: unescape(w.Prefix),
		Name: unescape(w.Name), Args: unescape(w.Args),
	})
	return a, err
}
