// SPDX-License-Identifier: Apache-2.0

package xtables

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"github.com/svcscope/svcscope/pkg/netfilter"
)

// take returns n bytes of b from off: the one place where kernel bytes are
// cut. what is the C name of the structure.
func take(b []byte, off, n int, what string) ([]byte, error) {
	if off < 0 || n < 0 || off > len(b) || len(b)-off < n {
		return nil, &netfilter.ShortError{Struct: what, Offset: off, Need: n, Have: max(0, len(b)-off)}
	}
	return b[off : off+n : off+n], nil
}

// u16 and u32 read the machine's byte order; be16 network order. The callers
// have taken b by the structure's size.
func u16(b []byte, off int) uint16       { return binary.NativeEndian.Uint16(b[off:]) }
func u32(b []byte, off int) uint32       { return binary.NativeEndian.Uint32(b[off:]) }
func u64(b []byte, off int) uint64       { return binary.NativeEndian.Uint64(b[off:]) }
func putU32(b []byte, off int, v uint32) { binary.NativeEndian.PutUint32(b[off:], v) }
func be16(b []byte, off int) uint16      { return binary.BigEndian.Uint16(b[off:]) }

// cstr returns the bytes before the first NUL; ok is false without one.
func cstr(b []byte) (s []byte, ok bool) {
	s, _, ok = bytes.Cut(b, []byte{0})
	return s, ok
}

// str is cstr for fields that the kernel does not require to be terminated.
func str(b []byte) string {
	s, _ := cstr(b)
	return string(s)
}

// inetAddr reads union nf_inet_addr, 16 bytes of which IPv4 uses the first 4.
func inetAddr(family netfilter.Family, b []byte, off int) netip.Addr {
	if family == netfilter.IPv4 {
		return netip.AddrFrom4([4]byte(b[off : off+4]))
	}
	return netip.AddrFrom16([16]byte(b[off : off+16]))
}
