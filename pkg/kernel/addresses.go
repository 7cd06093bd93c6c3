// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Addresses are those that a node answers for.
type Addresses struct {
	// Own are its own, on whatever interface, of both families.
	Own []netip.Addr
	// Routed have a route of their own to one of its interfaces, without a gateway:
	// its pods, of network plugins that route and don't bridge.
	Routed []netip.Addr
}

// LocalAddresses reads the routes in /proc/thread-self/net/fib_trie and ipv6_route
// (fib_trie_seq_show in net/ipv4/fib_trie.c, ipv6_route_native_seq_show in
// net/ipv6/ip6_fib.c). It needs no capability. A family that the kernel does not have
// is left out.
func LocalAddresses() (Addresses, error) { return localAddresses("/proc/thread-self/net") }

func localAddresses(folder string) (Addresses, error) {
	var all Addresses
	for name, parse := range map[string]func(*Addresses, *bufio.Scanner){"fib_trie": (*Addresses).parseFibTrie, "ipv6_route": (*Addresses).parseIPv6Route} {
		f, err := os.Open(filepath.Join(folder, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return Addresses{}, fmt.Errorf("read local addresses: %w", err)
		}
		lines := bufio.NewScanner(f)
		parse(&all, lines)
		err = lines.Err()
		_ = f.Close()
		if err != nil {
			return Addresses{}, fmt.Errorf("read local addresses: %s: %w", name, err)
		}
	}
	for _, list := range []*[]netip.Addr{&all.Own, &all.Routed} {
		slices.SortFunc(*list, netip.Addr.Compare)
		*list = slices.Compact(*list)
	}
	return all, nil
}

// parseFibTrie takes the leaves that have a line "/32 host LOCAL" or "/32 link
// UNICAST" below them.
func (a *Addresses) parseFibTrie(lines *bufio.Scanner) {
	var leaf netip.Addr
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if text, ok := strings.CutPrefix(line, "|-- "); ok {
			leaf, _ = netip.ParseAddr(text)
			continue
		}
		switch {
		case !leaf.IsValid():
		case line == "/32 host LOCAL":
			a.Own = append(a.Own, leaf)
		case line == "/32 link UNICAST":
			a.Routed = append(a.Routed, leaf)
		}
	}
}

// Flags of a route, include/uapi/linux/route.h and ipv6_route.h.
const (
	routeReject  = 0x0200     // RTF_REJECT
	routeAnycast = 0x00100000 // RTF_ANYCAST
	routeLocal   = 0x80000000 // RTF_LOCAL
)

// parseIPv6Route takes the routes of 128 bits: destination, its length, source, its
// length, gateway, metric, references, uses, flags and interface.
func (a *Addresses) parseIPv6Route(lines *bufio.Scanner) {
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) != 10 || words[1] != "80" {
			continue
		}
		b, err := hex.DecodeString(words[0])
		flags, err2 := strconv.ParseUint(words[8], 16, 32)
		if err != nil || err2 != nil || len(b) != 16 {
			continue
		}
		addr := netip.AddrFrom16([16]byte(b))
		switch {
		case flags&routeLocal != 0:
			a.Own = append(a.Own, addr)
		case flags&(routeReject|routeAnycast) == 0 && strings.Trim(words[4], "0") == "" && addr.IsGlobalUnicast():
			a.Routed = append(a.Routed, addr)
		}
	}
}
