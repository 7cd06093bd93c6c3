// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
)

// bare returns the reading that nobody can do without: in x_tables one call of
// GET_ENTRIES for nat into memory that the kernel has yet to give, in nf_tables
// the rules of KUBE-SERVICES, of which no byte is looked at.
func (s *costScene) bare() func() {
	if s.backend == "nft" {
		return s.bareDump
	}
	return func() { s.bareEntries(nil) }
}

// warm is the bare reading of x_tables into memory that is kept from one call to
// the next; nil in nf_tables.
func (s *costScene) warm() func() {
	if s.backend == "nft" {
		return nil
	}
	var kept []byte
	return func() { s.bareEntries(&kept) }
}

func (s *costScene) bareDump() {
	n := 0
	s.attempt(func(ctx context.Context, a *kernel.Attempt) error {
		return a.Rules(ctx, &nftables.Chain{Family: s.Family, Table: "nat", Name: "KUBE-SERVICES"}, func([]byte) error { n++; return nil })
	})
	if n != s.Services+1 {
		s.Fatalf("%d rules", n)
	}
}

// bareChange is the requests that a reading of rules that changed cannot do
// without: the list of chains, and the rules of KUBE-SERVICES and of every
// KUBE-SVC, of which no byte is looked at.
func (s *costScene) bareChange() {
	n := 0
	s.attempt(func(ctx context.Context, a *kernel.Attempt) error {
		tables, err := a.Heads(ctx, tableFamilies(), nil)
		if err != nil {
			return err
		}
		for i := range tables {
			for j := range tables[i].Chains {
				c := &tables[i].Chains[j].Chain
				kind, _ := kubeproxy.ParseChain(c.Name)
				if c.Table != "nat" || kind != kubeproxy.KindServices && kind != kubeproxy.KindService {
					continue
				}
				if err := a.Rules(ctx, c, func([]byte) error { n++; return nil }); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if n < 2*s.Services {
		s.Fatalf("%d rules", n)
	}
}

// attempt reads with a reader of its own.
func (s *costScene) attempt(read func(context.Context, *kernel.Attempt) error) {
	r, err := kernel.OpenNFTables()
	if err != nil {
		s.Fatal(err)
	}
	defer r.Close()
	if err := r.Try(s.Context(), read); err != nil {
		s.Fatal(err)
	}
}

// bareEntries is IPT_SO_GET_INFO and IPT_SO_GET_ENTRIES as in
// include/uapi/linux/netfilter_ipv4/ip_tables.h; IPv6 has the same. It takes
// fresh memory, unless there is a place to keep it.
func (s *costScene) bareEntries(keep *[]byte) {
	const (
		getInfo    = 64
		getEntries = 65
		infoSize   = 84
		sizeAt     = 80 // struct ipt_getinfo.size
		header     = 40 // struct ipt_get_entries, with its padding
	)
	domain, level := unix.AF_INET, unix.IPPROTO_IP
	if s.Family == netfilter.IPv6 {
		domain, level = unix.AF_INET6, unix.IPPROTO_IPV6
	}
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		s.Fatal(err)
	}
	defer unix.Close(fd)
	ask := func(option int, b []byte) {
		copy(b, "nat\x00")
		n := uint32(len(b))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
			uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&n)), 0)
		if errno != 0 {
			s.Fatal(errno)
		}
	}
	info := make([]byte, infoSize)
	ask(getInfo, info)
	size := binary.NativeEndian.Uint32(info[sizeAt:])
	var b []byte
	if keep != nil {
		b = *keep
	}
	if b == nil {
		b, err = unix.Mmap(-1, 0, header+int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			s.Fatal(err)
		}
	}
	if keep != nil {
		*keep = b
	} else {
		defer func() { _ = unix.Munmap(b) }()
	}
	binary.NativeEndian.PutUint32(b[32:], size)
	ask(getEntries, b)
}
