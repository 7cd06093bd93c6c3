// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
)

// minKey is how many bytes a key has at least: with a short one, which can be guessed, the
// addresses can be found.
const minKey = 16

// Mask returns a copy of s in which the addresses are others. Of one key an address
// always gives the same other one, of the same family; addresses of one network stay in
// one network, of the same prefix length. What is no host's address stays: see
// keptWhole. The names of chains that are hashes of addresses are made anew, so that
// what is right in s is right in the copy. Names of Services, namespaces, pods and nodes
// stay, but for addresses in those of nodes.
func Mask(s *Snapshot, key []byte) (*Snapshot, error) {
	if s.Mask != "" {
		return nil, errors.New("mask snapshot: its addresses are masked already")
	}
	if len(key) < minKey {
		return nil, fmt.Errorf("mask snapshot: the key has %d bytes, want %d or more", len(key), minKey)
	}
	m, err := newMasker(key)
	if err != nil {
		return nil, fmt.Errorf("mask snapshot: %w", err)
	}
	m.learn(s)
	out, err := m.snapshot(s)
	if err != nil {
		return nil, fmt.Errorf("mask snapshot: %w", err)
	}
	out.Mask = hex.EncodeToString(derive(key, "which mask")[:4])
	return out, nil
}

// derive makes a key for one purpose.
func derive(key []byte, purpose string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(purpose))
	return h.Sum(nil)
}

// snapshot masks what the entries of a file hold.
func (m *masker) snapshot(s *Snapshot) (*Snapshot, error) {
	h := newWireHeader(s)
	h.Node = m.text(h.Node)
	h.KubeError, h.FlowsError = m.text(h.KubeError), m.text(h.FlowsError)
	h.Unread, h.Unreported = masked(m, h.Unread), masked(m, h.Unreported)
	out := h.snapshot()
	for i := range s.Node.Rules {
		w := masked(m, newWireRules(&s.Node.Rules[i]))
		r, err := w.rules()
		if err != nil {
			return nil, err
		}
		out.Node.Rules = append(out.Node.Rules, r)
	}
	if s.Node.Catalog != nil {
		w := masked(m, newWireAPI(s.Node.Catalog))
		w.sort()
		c, err := w.catalog()
		if err != nil {
			return nil, err
		}
		out.Node.Catalog = c
	}
	if s.Node.Flows != nil {
		w := masked(m, newWireFlows(s.Node.Flows))
		out.Node.Flows = w.tallies()
		slices.SortFunc(out.Node.Flows, FlowTally.Compare)
	}
	out.Reports = make(map[string]json.RawMessage, len(s.Reports))
	for name, b := range s.Reports {
		masked, err := m.document(b)
		if err != nil {
			return nil, fmt.Errorf("report %s: %w", name, err)
		}
		out.Reports[name] = masked
	}
	return out, nil
}

// sort puts endpoints in order, by the addresses that they have now.
func (w *wireAPI) sort() {
	for i := range w.Services {
		for j := range w.Services[i].Ports {
			slices.SortFunc(w.Services[i].Ports[j].Endpoints, func(a, b wireEndpoint) int { return a.Addr.Compare(b.Addr) })
		}
	}
}

// document masks all strings of a JSON document.
func (m *masker) document(b []byte) (json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	return marshal(masked(m, v))
}

// masked returns a copy of plain data with its addresses, and those in its texts,
// masked. Bytes, which are of what is not decoded and may hold an address, are left
// out.
func masked[T any](m *masker, v T) T {
	var out T
	m.into(reflect.ValueOf(&out).Elem(), reflect.ValueOf(&v).Elem())
	return out
}
