// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/xtables"
)

// fakeTable answers the two socket options as the kernel does, with captured
// bytes.
type fakeTable struct {
	info, entries []byte
	// before is called at each call, counted from 0, and may change the
	// answers or return an errno.
	before func(call, name int) error
	calls  int
	names  []int // the options asked for
}

func (f *fakeTable) getsockopt(_, name int, buf []byte) (int, error) {
	if f.before != nil {
		if err := f.before(f.calls, name); err != nil {
			return 0, err
		}
	}
	f.calls++
	f.names = append(f.names, name)
	switch name {
	case 64:
		if len(buf) != len(f.info) {
			return 0, unix.EINVAL
		}
		return copy(buf, f.info), nil
	case 65:
		size := binary.NativeEndian.Uint32(f.info[80:])
		switch {
		case len(buf) < 40 || int(binary.NativeEndian.Uint32(buf[32:]))+40 != len(buf):
			return 0, unix.EINVAL
		case binary.NativeEndian.Uint32(buf[32:]) != size:
			return 0, unix.EAGAIN
		}
		return copy(buf, f.entries), nil
	}
	return 0, unix.ENOPROTOOPT
}

// fakeLegacy returns a reader of one captured table, filter of IPv4.
func fakeLegacy(t *testing.T) (*Legacy, *fakeTable) {
	t.Helper()
	const dir = "../netfilter/xtables/testdata/kube-proxy/ipv4/"
	read := func(name string) []byte {
		b, err := os.ReadFile(dir + name)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	f := &fakeTable{info: read("filter.info"), entries: read("filter.bin")}
	proc := t.TempDir()
	if err := os.WriteFile(filepath.Join(proc, "ip_tables_names"), []byte("nat\nfilter\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := &Legacy{procNet: proc, getsockopt: f.getsockopt}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r, f
}

func ignore(*xtables.Table) error { return nil }

func TestLegacyRead(t *testing.T) {
	r, f := fakeLegacy(t)
	rules := 0
	err := r.Read(t.Context(), netfilter.IPv4, "filter", func(table *xtables.Table) error {
		if table.Name != "filter" || table.Family != netfilter.IPv4 {
			t.Errorf("got table %s of %v", table.Name, table.Family)
		}
		return table.Walk(func(c *xtables.Chain) error {
			rules += c.Len
			return nil
		})
	})
	if err != nil || rules == 0 {
		t.Errorf("got %d rules, %v", rules, err)
	}
	if len(f.names) != 3 {
		t.Errorf("options asked for: %v, want info, entries, info", f.names)
	}
	want := errors.New("mine")
	err = r.Read(t.Context(), netfilter.IPv4, "filter", func(*xtables.Table) error { return want })
	if !errors.Is(err, want) {
		t.Errorf("got %v, want the callback's error", err)
	}
}

func TestLegacyRetriesWhenTheSizeChanged(t *testing.T) {
	r, f := fakeLegacy(t)
	const times = 3
	refused := 0
	f.before = func(_, name int) error {
		if name == 65 && refused < times {
			refused++
			return unix.EAGAIN
		}
		return nil
	}
	if err := r.Read(t.Context(), netfilter.IPv4, "filter", ignore); err != nil {
		t.Fatal(err)
	}
	if refused != times || f.calls != times+3 {
		t.Errorf("refused %d times, %d calls answered", refused, f.calls)
	}
}

func TestLegacyRetriesWhenOffsetsMoved(t *testing.T) {
	r, f := fakeLegacy(t)
	good := append([]byte(nil), f.info...)
	f.before = func(call, _ int) error {
		copy(f.info, good)
		if call == 0 { // the first GET_INFO still saw the old table
			f.info[36+4] ^= 0x08
		}
		return nil
	}
	if err := r.Read(t.Context(), netfilter.IPv4, "filter", ignore); err != nil {
		t.Fatal(err)
	}
	if f.calls != 6 {
		t.Errorf("%d calls, want two readings of three", f.calls)
	}
}

func TestLegacyReadErrors(t *testing.T) {
	errno := func(name int, e error) func(int, int) error {
		return func(_, n int) error {
			if n == name {
				return e
			}
			return nil
		}
	}
	tests := []struct {
		name    string
		family  netfilter.Family
		table   string
		before  func(call, name int) error
		damage  func(f *fakeTable)
		want    error
		text    string
		noCalls bool
	}{
		{name: "a table that keeps changing", before: errno(65, unix.EAGAIN), want: ErrInterrupted},
		{name: "no capability", before: errno(64, unix.EPERM), want: unix.EPERM, text: "read legacy table filter (IPv4): needs CAP_NET_ADMIN"},
		{name: "no capability for entries", before: errno(65, unix.EPERM), want: unix.EPERM, text: "needs CAP_NET_ADMIN"},
		{name: "a table that went", before: errno(64, unix.ENOENT), want: ErrAbsent},
		{name: "no such option", before: errno(64, unix.ENOPROTOOPT), want: ErrAbsent},
		{name: "out of memory", before: errno(65, unix.ENOMEM), want: unix.ENOMEM, text: "read legacy table filter (IPv4): get entries: "},
		{name: "a table that is not listed", table: "mangle", want: ErrAbsent, noCalls: true},
		{name: "no list for the family", family: netfilter.IPv6, want: ErrAbsent, noCalls: true},
		{name: "a family without tables", family: netfilter.FamilyARP, want: ErrAbsent, noCalls: true},
		{
			name: "garbled entries", damage: func(f *fakeTable) { f.entries[40+90] = 1 },
			text: "read legacy table filter (IPv4): ipt_entry at offset 0: next_offset 513",
		},
		{name: "truncated entries", damage: func(f *fakeTable) { f.entries = f.entries[:1000] }, text: "ipt_get_entries.entrytable at offset 40"},
		{name: "an absurd size", damage: func(f *fakeTable) { f.info[83] = 0xff }, text: "bytes of entries"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, f := fakeLegacy(t)
			f.before = tt.before
			if tt.damage != nil {
				tt.damage(f)
			}
			family, table := tt.family, tt.table
			if family == 0 {
				family = netfilter.IPv4
			}
			if table == "" {
				table = "filter"
			}
			err := r.Read(t.Context(), family, table, func(table *xtables.Table) error {
				return table.Walk(func(*xtables.Chain) error {
					t.Error("there is a chain")
					return nil
				})
			})
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v, want %v and the text %q", err, tt.want, tt.text)
			}
			var c *CapabilityError
			if errors.As(err, &c) != errors.Is(err, unix.EPERM) {
				t.Errorf("got %#v", err)
			}
			if tt.noCalls && f.calls != 0 {
				t.Errorf("%d calls: the kernel was asked for a table that does not exist", f.calls)
			}
		})
	}
}

func TestLegacyReadEndsWithItsContext(t *testing.T) {
	r, f := fakeLegacy(t)
	ctx, cancel := context.WithCancel(t.Context())
	f.before = func(call, name int) error {
		if name == 64 { // never the same twice
			f.info[36]++
		}
		if call == 2 {
			cancel()
		}
		return nil
	}
	if err := r.Read(ctx, netfilter.IPv4, "filter", ignore); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func TestLegacyTablesWithoutPermission(t *testing.T) {
	if os.Geteuid() == 0 {
		// Root reads every file; the privilege test has the other half.
		r, _ := fakeLegacy(t)
		got, err := r.Tables(t.Context(), netfilter.IPv4)
		if err != nil || len(got) != 2 || got[0] != "nat" {
			t.Errorf("got %v, %v", got, err)
		}
		return
	}
	r, _ := fakeLegacy(t)
	if err := os.Chmod(filepath.Join(r.procNet, "ip_tables_names"), 0); err != nil {
		t.Fatal(err)
	}
	var c *CapabilityError
	if _, err := r.Tables(t.Context(), netfilter.IPv4); !errors.As(err, &c) {
		t.Errorf("got %v, want a CapabilityError", err)
	}
}
