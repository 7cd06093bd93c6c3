// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/svcscope/svcscope/pkg/ruleset"
)

// wireHeader is snapshot.json, the first entry: what is not in another one, and which
// others there are.
type wireHeader struct {
	Format        string `json:"format"`
	FormatVersion int    `json:"formatVersion"`
	Svcscope      string `json:"svcscope,omitempty"`
	// Masked is Snapshot.Mask.
	Masked string    `json:"masked,omitempty"`
	Node   string    `json:"node"`
	Time   time.Time `json:"time"`
	Kernel string    `json:"kernel,omitempty"`
	IPVS   bool      `json:"ipvs,omitempty"`
	// Rules are the names of the rules' files below rules/, without extension.
	Rules  []string                   `json:"rules"`
	Unread map[ruleset.Backend]string `json:"unread,omitempty"`

	API        bool              `json:"api"` // there is an api.json
	KubeError  string            `json:"kubeError,omitempty"`
	NoNode     bool              `json:"nodeMissing,omitempty"`
	Flows      bool              `json:"flows"` // there is a flows.json
	FlowsError string            `json:"flowsError,omitempty"`
	Sysctls    map[string]string `json:"sysctls,omitempty"`

	Reports    []string          `json:"reports"`
	Unreported map[string]string `json:"unreported,omitempty"`
}

func newWireHeader(s *Snapshot) wireHeader {
	n := s.Node
	w := wireHeader{
		Format: format, FormatVersion: FormatVersion, Svcscope: s.Version, Masked: s.Mask,
		Node: n.Name, Time: n.Time, Kernel: n.Kernel, IPVS: n.IPVS, Rules: []string{}, Unread: n.Unread,
		API: n.Catalog != nil, KubeError: n.KubeError, NoNode: n.NodeMissing,
		Flows: n.Flows != nil, FlowsError: n.FlowsError, Sysctls: n.Sysctls,
		Reports: append([]string{}, sortedKeys(s.Reports)...), Unreported: s.Unreported,
	}
	for i := range n.Rules {
		w.Rules = append(w.Rules, rulesName(n.Rules[i].Set))
	}
	return w
}

// rulesName is the name of a ruleset's files: nft-ipv4.
func rulesName(r *ruleset.Ruleset) string {
	return string(r.Backend) + "-" + strings.ToLower(r.Family.String())
}

// rulesNames are those that there may be.
func rulesNames() []string {
	var all []string
	for _, f := range families() {
		for _, b := range []ruleset.Backend{ruleset.NFT, ruleset.Legacy} {
			all = append(all, rulesName(&ruleset.Ruleset{Backend: b, Family: f}))
		}
	}
	return all
}

// check says what of a header this program cannot read.
func (w *wireHeader) check() error {
	switch {
	case w.Format != format:
		return errors.New("not a snapshot of svcscope")
	case w.FormatVersion != FormatVersion:
		return fmt.Errorf("format version %d, and this svcscope reads %d: it was made by svcscope %q", w.FormatVersion, FormatVersion, w.Svcscope)
	case w.Time.IsZero():
		return errors.New("it has no time")
	}
	for i, name := range w.Rules {
		if !slices.Contains(rulesNames(), name) || slices.Contains(w.Rules[:i], name) {
			return fmt.Errorf("rules %q are not known, or twice there", name)
		}
	}
	for _, name := range w.Reports {
		if !isReport(name) {
			return fmt.Errorf("report %q is not known", name)
		}
	}
	return nil
}

// snapshot makes a Snapshot without what is in other entries.
func (w *wireHeader) snapshot() *Snapshot {
	return &Snapshot{
		Node: &Node{
			Name: w.Node, Time: w.Time, Kernel: w.Kernel, Unread: w.Unread, IPVS: w.IPVS,
			KubeError: w.KubeError, NodeMissing: w.NoNode, FlowsError: w.FlowsError, Sysctls: w.Sysctls,
		},
		Version: w.Svcscope, Mask: w.Masked, Unreported: w.Unreported,
	}
}
