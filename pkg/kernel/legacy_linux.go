// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/xtables"
)

// The socket options of x_tables that read, include/uapi/linux/
// netfilter_ipv4/ip_tables.h; IPv6 has the same numbers at its own level. Of
// the same numbers, setsockopt would write: it is never called.
const (
	soGetInfo    = 64 // IPT_SO_GET_INFO
	soGetEntries = 65 // IPT_SO_GET_ENTRIES
)

const (
	legacyTries = 8       // readings of a table that keeps changing
	maxEntries  = 1 << 30 // bytes; a table of 10,000 Services has 66 MB
)

// LegacyConfig says where a Legacy reads; the zero value is right outside of
// tests.
type LegacyConfig struct {
	// ProcNet is the folder that has ip_tables_names; empty for that of the
	// calling thread's network namespace, /proc/thread-self/net.
	ProcNet string
}

// Legacy reads the tables of x_tables (iptables-legacy) in the network
// namespace in which it was opened. It is for one goroutine at a time.
type Legacy struct {
	procNet string
	// getsockopt fills buf from the option and returns how many bytes the
	// kernel says it wrote. level is IPPROTO_IP or IPPROTO_IPV6.
	getsockopt func(level, name int, buf []byte) (int, error)
	buf        pages
	stats      ReadStats
	fds        map[int]int // level: socket
	names      map[netfilter.Family]*keptFile
}

// OpenLegacy opens a datagram socket per family: unlike raw ones, which
// iptables uses, they need no CAP_NET_RAW. Without IPv6 in the kernel, reading
// it gives ErrAbsent.
func OpenLegacy(cfg LegacyConfig) (*Legacy, error) {
	r := &Legacy{procNet: cfg.ProcNet, fds: make(map[int]int, 2)}
	if r.procNet == "" {
		r.procNet = "/proc/thread-self/net"
	}
	r.getsockopt = r.socketOption
	for level, domain := range map[int]int{unix.IPPROTO_IP: unix.AF_INET, unix.IPPROTO_IPV6: unix.AF_INET6} {
		fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if errors.Is(err, unix.EAFNOSUPPORT) {
			continue
		}
		if err != nil {
			_ = r.Close()
			return nil, fmt.Errorf("open socket for x_tables: %w", err)
		}
		r.fds[level] = fd
	}
	return r, nil
}

// Close closes the sockets and gives back the buffer.
func (r *Legacy) Close() error {
	errs := []error{r.buf.free()}
	for _, f := range r.names {
		f.close()
	}
	for level, fd := range r.fds {
		errs = append(errs, unix.Close(fd))
		delete(r.fds, level)
	}
	return errors.Join(errs...)
}

// Tables returns the names of the tables that exist in the namespace, in the
// kernel's order. Asking for another table by name would create it, with its
// hooks, so this file is the only source. ErrAbsent says that the kernel has
// no x_tables for the family.
func (r *Legacy) Tables(ctx context.Context, family netfilter.Family) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	file := map[netfilter.Family]string{
		netfilter.IPv4: "ip_tables_names", netfilter.IPv6: "ip6_tables_names",
	}[family]
	if file == "" {
		return nil, fmt.Errorf("list tables (%v): %w", family, ErrAbsent)
	}
	path := filepath.Join(r.procNet, file)
	names := r.names[family]
	if names == nil {
		names = &keptFile{path: path}
		if r.names == nil {
			r.names = make(map[netfilter.Family]*keptFile)
		}
		r.names[family] = names
	}
	b, err := names.read()
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("list tables (%v): %s: %w", family, path, ErrAbsent)
	case errors.Is(err, os.ErrPermission):
		// Mode 0440, of the user namespace's root.
		return nil, &CapabilityError{Op: "read " + path, Cap: "UID 0 or CAP_DAC_READ_SEARCH", Err: err}
	case err != nil:
		return nil, fmt.Errorf("list tables (%v): %w", family, err)
	}
	return strings.Fields(string(b)), nil
}

// Read reads one table and calls use with it. The table and all that refers to
// it lie in the reader's buffer and must not be used after use returns; the
// memory of a large one is then given back to the system. Of the bytes only
// their number was looked at; what a walk finds wrong with them is use's error,
// which Read returns with the table's name.
//
// Errors: ErrAbsent for a table that does not exist (it is not created),
// ErrInterrupted for one that changed during each of eight readings,
// *CapabilityError without CAP_NET_ADMIN.
func (r *Legacy) Read(ctx context.Context, family netfilter.Family, table string, use func(*xtables.Table) error) error {
	t, err := r.read(ctx, family, table)
	defer r.buf.release()
	if err == nil {
		err = use(t)
	}
	if err != nil {
		return legacyError(family, table, err)
	}
	return nil
}

// Stats returns the sums since the reader was opened.
func (r *Legacy) Stats() ReadStats { return r.stats }

func (r *Legacy) read(ctx context.Context, family netfilter.Family, table string) (*xtables.Table, error) {
	names, err := r.Tables(ctx, family)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(names, table) {
		return nil, ErrAbsent
	}
	level := unix.IPPROTO_IP
	if family == netfilter.IPv6 {
		level = unix.IPPROTO_IPV6
	}
	for range legacyTries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		t, err := r.try(level, family, table)
		if !errors.Is(err, errChanged) {
			return t, err
		}
		r.stats.Interrupted++
		r.buf.release()
	}
	return nil, ErrInterrupted
}

// errChanged says that the table was replaced while it was read.
var errChanged = errors.New("table replaced")

// try reads the table once. The kernel refuses with EAGAIN if the size is no
// longer the one of GET_INFO. A replacement of the same size it does not
// notice, but the offsets of chains may have moved: GET_INFO again tells.
func (r *Legacy) try(level int, family netfilter.Family, table string) (*xtables.Table, error) {
	info, err := r.info(level, table)
	if err != nil {
		return nil, err
	}
	if info.Size > maxEntries {
		return nil, fmt.Errorf("ipt_getinfo says %d bytes of entries", info.Size)
	}
	buf, err := r.buf.grow(xtables.EntriesHeader + int(info.Size))
	if err != nil {
		return nil, err
	}
	xtables.AppendEntriesRequest(buf[:0], table, info.Size)
	n, err := r.getsockopt(level, soGetEntries, buf)
	r.stats.Messages++
	if errors.Is(err, unix.EAGAIN) {
		return nil, errChanged
	}
	if err != nil {
		return nil, fmt.Errorf("get entries: %w", err)
	}
	again, err := r.info(level, table)
	if err != nil {
		return nil, err
	}
	if again != info {
		return nil, errChanged
	}
	r.stats.Bytes += uint64(n)
	entries, err := xtables.DecodeEntries(buf[:min(n, len(buf))])
	if err != nil {
		return nil, err
	}
	return xtables.NewTable(family, info, entries)
}

func (r *Legacy) info(level int, table string) (xtables.Info, error) {
	var store [xtables.InfoLen]byte
	buf := xtables.AppendInfoRequest(store[:0], table)
	n, err := r.getsockopt(level, soGetInfo, buf)
	r.stats.Messages++
	if err != nil {
		return xtables.Info{}, fmt.Errorf("get info: %w", err)
	}
	return xtables.DecodeInfo(buf[:min(n, len(buf))])
}

// legacyError gives errnos a meaning and adds what was read.
func legacyError(family netfilter.Family, table string, err error) error {
	op := fmt.Sprintf("read legacy table %s (%v)", table, family)
	var c *CapabilityError
	switch {
	case errors.As(err, &c):
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return &CapabilityError{Op: op, Cap: "CAP_NET_ADMIN", Err: err}
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOPROTOOPT), errors.Is(err, unix.EAFNOSUPPORT):
		return fmt.Errorf("%s: %w: %w", op, ErrAbsent, err)
	}
	return fmt.Errorf("%s: %w", op, err)
}

// socketOption reads one of the two options, and no other.
func (r *Legacy) socketOption(level, name int, buf []byte) (int, error) {
	if level != unix.IPPROTO_IP && level != unix.IPPROTO_IPV6 || name != soGetInfo && name != soGetEntries {
		return 0, fmt.Errorf("get socket option %d of level %d: %w", name, level, errRefused)
	}
	fd, ok := r.fds[level]
	if !ok {
		return 0, unix.EAFNOSUPPORT
	}
	n := uint32(len(buf))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
