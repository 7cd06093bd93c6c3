// SPDX-License-Identifier: Apache-2.0

package nftables

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

var scenes = []string{"kube-proxy", "kube-proxy-nftables", "kube-proxy-1.37.2", "plain", "native"}

// payloads returns the payloads of the messages in a captured file.
func payloads(tb testing.TB, scene, file string) [][]byte {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", scene, file))
	if err != nil {
		tb.Fatal(err)
	}
	var out [][]byte
	it := nlattr.Messages(b)
	for it.Next() {
		out = append(out, it.Message().Payload)
	}
	if it.Err() != nil {
		tb.Fatal(it.Err())
	}
	return out
}

// decodeAll decodes all messages of a file.
func decodeAll[T any](tb testing.TB, scene, file string, decode func([]byte) (T, error)) []T {
	tb.Helper()
	var out []T
	for i, b := range payloads(tb, scene, file) {
		v, err := decode(b)
		if err != nil {
			tb.Fatalf("%s/%s message %d: %v", scene, file, i, err)
		}
		out = append(out, v)
	}
	return out
}

// listing is what `nft -j list ruleset` prints, by kind of object.
type listing struct {
	tables, chains, rules, sets []map[string]any
}

func readListing(tb testing.TB, scene string) listing {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", scene, "nft.json"))
	if err != nil {
		tb.Fatal(err)
	}
	var doc struct {
		Nftables []map[string]map[string]any `json:"nftables"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		tb.Fatal(err)
	}
	var l listing
	for _, o := range doc.Nftables {
		for kind, v := range o {
			switch kind {
			case "table":
				l.tables = append(l.tables, v)
			case "chain":
				l.chains = append(l.chains, v)
			case "rule":
				l.rules = append(l.rules, v)
			case "set", "map":
				l.sets = append(l.sets, v)
			}
		}
	}
	return l
}
