// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/mdlayher/netlink"
)

// otherSymbols is /proc/kallsyms of a kernel in which neither is built in.
const otherSymbols = "0000000000000000 t something\n0000000000000000 t nf_tables_getgen\t[nf_tables]\n"

// modular is a kernel that can load modules, and loaded none.
func modular(t *testing.T, kallsyms string) *modules {
	t.Helper()
	root := t.TempDir()
	writeFile(t, filepath.Join(root, "proc/modules"), "")
	writeFile(t, filepath.Join(root, "proc/kallsyms"), kallsyms)
	writeFile(t, filepath.Join(root, "proc/sys/net/netfilter/nf_conntrack_count"), "0\n")
	return newModules(root)
}

func (m *modules) insert(t *testing.T, module string) {
	t.Helper()
	writeFile(t, filepath.Join(m.root, "sys/module", module, "refcnt"), "1")
}

func TestLoadable(t *testing.T) {
	const symbols = "0000000000000000 t nf_tables_getgen\n"
	tests := []struct {
		name  string
		files map[string]string
		want  bool
	}{
		{"kernel without modules", nil, false},
		{"loaded", map[string]string{"proc/modules": "", "proc/kallsyms": "", "sys/module/nf_tables/refcnt": "1"}, false},
		{"built in", map[string]string{"proc/modules": "", "proc/kallsyms": symbols}, false},
		{"not loaded", map[string]string{"proc/modules": "", "proc/kallsyms": "0 t something\n"}, true},
		{"loaded when symbols were read, not now", map[string]string{"proc/modules": "", "proc/kallsyms": otherSymbols}, true},
		{"cannot be told", map[string]string{"proc/modules": ""}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			for name, text := range tt.files {
				writeFile(t, filepath.Join(root, name), text)
			}
			if got := newModules(root).loadable(nftablesModule); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestSymbolsAreReadOnce(t *testing.T) {
	m := modular(t, otherSymbols)
	if !m.loadable(nftablesModule) || !m.loadable(ctnetlinkModule) {
		t.Error("modules that are not there: want loadable")
	}
	// Without the file, a second reading would answer otherwise.
	if err := os.Remove(filepath.Join(m.root, "proc/kallsyms")); err != nil {
		t.Fatal(err)
	}
	if !m.loadable(nftablesModule) || !m.loadable(ctnetlinkModule) {
		t.Error("the symbols were read again")
	}
	m.insert(t, ctnetlinkModule)
	if m.loadable(ctnetlinkModule) || !m.loadable(nftablesModule) {
		t.Error("one was loaded in the meantime: want it noticed")
	}
}

func TestOpenNFTablesLoadsNoModule(t *testing.T) {
	s := readScene(t, "plain")
	k := &fakeKernel{answer: s.answer}
	m := modular(t, otherSymbols)
	if _, err := openNFTables(m, k.dial); !errors.Is(err, ErrAbsent) || k.dials != 0 {
		t.Errorf("got %v after %d dials, want ErrAbsent and none", err, k.dials)
	}
	m.insert(t, nftablesModule)
	n, err := openNFTables(m, k.dial)
	if err != nil || k.dials != 1 {
		t.Fatalf("loaded: %v after %d dials", err, k.dials)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

func TestStatsLoadNoModule(t *testing.T) {
	k := &fakeKernel{answer: func(netlink.Message) ([]netlink.Message, error) {
		return []netlink.Message{cpuStats(0, nil), errnoMessage(netlink.Done, 0)}, nil
	}}
	m := modular(t, otherSymbols)
	c, err := openConntrack(m, k.dial)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Stats(t.Context()); !errors.Is(err, ErrAbsent) || k.dials != 0 {
		t.Errorf("got %v after %d dials, want ErrAbsent and none", err, k.dials)
	}
	m.insert(t, ctnetlinkModule)
	if _, err := c.Stats(t.Context()); err != nil || k.dials != 1 {
		t.Errorf("loaded: %v after %d dials", err, k.dials)
	}
}
