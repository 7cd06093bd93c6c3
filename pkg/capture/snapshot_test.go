// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/ruleset"
)

// TestRoundTrip: what is read is what was written, to the byte when it is written again.
func TestRoundTrip(t *testing.T) {
	empty := &Snapshot{Node: &Node{Name: "node-a", Time: noon}}
	odd := smallSnapshot(t)
	chain := odd.Node.Rules[0].Set.Table("nat").Chains[1]
	chain.Rules[0].Comment, chain.Name = "caf\xe9 \xff\x00 \U0010ff41 <->", "K\xfcBE"
	unread := smallSnapshot(t)
	for _, c := range unread.Node.Rules[0].Set.Tables[0].Chains {
		c.Rules, c.Unread = nil, true
	}
	unread.Node.Flows, unread.Node.FlowsError = nil, "needs CAP_NET_ADMIN"
	for name, s := range map[string]*Snapshot{
		"the lab's, nf_tables": realSnapshot(t, ruleset.NFT), "the lab's, x_tables": realSnapshot(t, ruleset.Legacy),
		"both": realSnapshot(t, ruleset.NFT, ruleset.Legacy), "small": smallSnapshot(t), "empty": empty,
		"odd bytes": odd, "rules that were not read": unread,
	} {
		file := written(t, s)
		got, err := Read(bytes.NewReader(file))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d := cmp.Diff(s, got, comparison()); d != "" {
			t.Errorf("%s (-written +read):\n%s", name, d)
		}
		if got.Node.Time.Format("15:04 -0700") != noon.Format("15:04 -0700") {
			t.Errorf("%s: the zone is another one: %v", name, got.Node.Time)
		}
		if again := written(t, got); !bytes.Equal(again, file) {
			t.Errorf("%s: written again it is another file", name)
		}
	}
}

// TestFormat holds the format to docs/snapshot.md's: whoever changes this file's
// expected text changes FormatVersion.
func TestFormat(t *testing.T) {
	var b strings.Builder
	for _, e := range unpacked(t, written(t, smallSnapshot(t))) {
		b.WriteString("-- " + e.name + " --\n" + e.text)
	}
	got := b.String()
	path := filepath.Join("testdata", "format.txtar")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("entries (-want +got):\n%s", d)
	}
	if !strings.Contains(string(want), `"formatVersion": 1,`) {
		t.Error("the header has no version")
	}
}
