// SPDX-License-Identifier: Apache-2.0

package xtables

import (
	"fmt"

	"github.com/svcscope/svcscope/pkg/netfilter"
)

// Sizes of the structures that the socket options carry, on 64-bit kernels.
const (
	InfoLen       = 84 // struct ipt_getinfo, struct ip6t_getinfo
	EntriesHeader = 40 // struct ipt_get_entries before its entry table
)

// Info is struct ipt_getinfo or ip6t_getinfo, ip_tables.h and ip6_tables.h:
// what IPT_SO_GET_INFO answers. Values can be compared.
type Info struct {
	Name       string
	ValidHooks uint32 // bit n is netfilter.Hook n
	// HookEntry and Underflow are offsets of the first and the last entry of
	// each built-in chain; without meaning where ValidHooks has no bit.
	HookEntry  [netfilter.NumHooks]uint32
	Underflow  [netfilter.NumHooks]uint32
	NumEntries uint32 // chain heads and ends included
	Size       uint32 // bytes of all entries
}

// DecodeInfo decodes an answer to IPT_SO_GET_INFO. It returns a
// *netfilter.ShortError for too few bytes, and an error for a name that does
// not end.
func DecodeInfo(b []byte) (Info, error) {
	b, err := take(b, 0, InfoLen, "ipt_getinfo")
	if err != nil {
		return Info{}, err
	}
	name, ok := cstr(b[:32])
	if !ok {
		return Info{}, fmt.Errorf("ipt_getinfo at offset 0: name has no end")
	}
	info := Info{
		Name: string(name), ValidHooks: u32(b, 32), NumEntries: u32(b, 76), Size: u32(b, 80),
	}
	for h := range netfilter.NumHooks {
		info.HookEntry[h] = u32(b, 36+4*h)
		info.Underflow[h] = u32(b, 56+4*h)
	}
	return info, nil
}

// DecodeEntries checks the head of an answer to IPT_SO_GET_ENTRIES and returns
// the entries behind it, the blob that Decode takes.
func DecodeEntries(b []byte) ([]byte, error) {
	head, err := take(b, 0, EntriesHeader, "ipt_get_entries")
	if err != nil {
		return nil, err
	}
	return take(b, EntriesHeader, int(u32(head, 32)), "ipt_get_entries.entrytable")
}

// AppendEntriesRequest appends the head of struct ipt_get_entries that asks
// for the entries of a table: its name and the size that IPT_SO_GET_INFO gave.
// The kernel wants a buffer of exactly EntriesHeader + size bytes.
func AppendEntriesRequest(b []byte, name string, size uint32) []byte {
	var head [EntriesHeader]byte
	copy(head[:31], name)
	putU32(head[:], 32, size)
	return append(b, head[:]...)
}

// AppendInfoRequest appends a struct ipt_getinfo that asks for a table.
func AppendInfoRequest(b []byte, name string) []byte {
	var info [InfoLen]byte
	copy(info[:31], name)
	return append(b, info[:]...)
}
