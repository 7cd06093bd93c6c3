// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/conntrack"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// fakeRoot is a kernel without modules that has conntrack's sysctls.
func fakeRoot(t *testing.T, sysctls map[string]string) *modules {
	t.Helper()
	root := t.TempDir()
	for name, text := range sysctls {
		writeFile(t, filepath.Join(root, "proc/sys/net/netfilter", name), text)
	}
	return newModules(root)
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestConntrackSizes(t *testing.T) {
	root := fakeRoot(t, map[string]string{
		"nf_conntrack_count": "17\n", "nf_conntrack_max": "262144\n", "nf_conntrack_buckets": "x\n",
	})
	c, err := openConntrack(root, (&fakeKernel{}).dial)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := c.Count(t.Context()); n != 17 || err != nil {
		t.Errorf("count: got %d, %v", n, err)
	}
	if n, err := c.Limit(t.Context()); n != 262144 || err != nil {
		t.Errorf("limit: got %d, %v", n, err)
	}
	if n, err := c.Buckets(t.Context()); n != 0 || err == nil || !strings.Contains(err.Error(), "nf_conntrack_buckets") {
		t.Errorf("buckets: got %d, %v; want an error", n, err)
	}
	for name, read := range map[string]func(context.Context) (uint64, error){
		"nf_conntrack_count": c.Count, "nf_conntrack_max": c.Limit, "nf_conntrack_buckets": c.Buckets,
	} {
		path := filepath.Join(root.root, "proc/sys/net/netfilter", name)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if _, err := read(t.Context()); !errors.Is(err, ErrAbsent) || !strings.HasPrefix(err.Error(), "read "+name+": ") {
			t.Errorf("no %s: got %v, want ErrAbsent", name, err)
		}
		// A folder cannot be read, and is there.
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := read(t.Context()); err == nil || errors.Is(err, ErrAbsent) || !strings.HasPrefix(err.Error(), "read "+name+": ") {
			t.Errorf("unreadable %s: got %v", name, err)
		}
	}
	if _, err := openConntrack(fakeRoot(t, nil), (&fakeKernel{}).dial); !errors.Is(err, ErrAbsent) {
		t.Errorf("no conntrack: got %v, want ErrAbsent", err)
	}
}

// cpuStats is one message of statistics.
func cpuStats(cpu uint16, values map[conntrack.Stat]uint32) netlink.Message {
	b := netfilter.AppendGenMsg(nil, netfilter.GenMsg{ResID: cpu})
	for s, v := range values {
		b = nlattr.AppendUint32(b, uint16(s), v)
	}
	return netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(getStatsCPU), Flags: netlink.Multi}, Data: b}
}

func TestStatsAreWidenedAcrossWraps(t *testing.T) {
	readings := [][2]uint32{{1 << 31, 5}, {1<<32 - 1, 5}, {3, 7}, {3, 7}}
	want := []uint64{1<<31 + 5, 1<<32 + 4, 1<<32 + 10, 1<<32 + 10}
	i := 0
	k := &fakeKernel{answer: func(netlink.Message) ([]netlink.Message, error) {
		r := readings[i]
		return []netlink.Message{
			cpuStats(0, map[conntrack.Stat]uint32{conntrack.Drop: r[0], conntrack.Invalid: 1}),
			cpuStats(1, map[conntrack.Stat]uint32{conntrack.Drop: r[1], conntrack.Invalid: 2}),
			errnoMessage(netlink.Done, 0),
		}, nil
	}}
	c, err := openConntrack(fakeRoot(t, map[string]string{"nf_conntrack_count": "0\n"}), k.dial)
	if err != nil {
		t.Fatal(err)
	}
	for i = range readings {
		s, err := c.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		three := uint64(3)
		if d := cmp.Diff(ConntrackStats{Drop: &want[i], Invalid: &three}, s); d != "" {
			t.Errorf("reading %d (-want +got):\n%s", i, d)
		}
	}
}

func TestConntrackRefusals(t *testing.T) {
	root := fakeRoot(t, map[string]string{"nf_conntrack_count": "0\n"})
	for errno, want := range map[error]error{unix.EPERM: unix.EPERM, unix.EINVAL: ErrAbsent} {
		k := &fakeKernel{answer: func(netlink.Message) ([]netlink.Message, error) { return nil, errno }}
		c, err := openConntrack(root, k.dial)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Stats(t.Context())
		if !errors.Is(err, want) || !strings.HasPrefix(err.Error(), "read conntrack statistics: ") {
			t.Errorf("%v: got %v, want %v", errno, err, want)
		}
		if err := c.Close(); err != nil || k.open != 0 {
			t.Errorf("close: %v, %d sockets left", err, k.open)
		}
	}
}
