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
	"strings"
)

// LocalAddresses returns the addresses that are this node's own, on whatever
// interface, of both families: the local routes of
// /proc/thread-self/net/fib_trie, and /proc/thread-self/net/if_inet6. They need
// no capability. A family that the kernel does not have is left out.
func LocalAddresses() ([]netip.Addr, error) { return localAddresses("/proc/thread-self/net") }

func localAddresses(folder string) ([]netip.Addr, error) {
	var all []netip.Addr
	for name, parse := range map[string]func(*bufio.Scanner) []netip.Addr{"fib_trie": parseFibTrie, "if_inet6": parseIfInet6} {
		f, err := os.Open(filepath.Join(folder, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read local addresses: %w", err)
		}
		lines := bufio.NewScanner(f)
		all = append(all, parse(lines)...)
		err = lines.Err()
		_ = f.Close()
		if err != nil {
			return nil, fmt.Errorf("read local addresses: %s: %w", name, err)
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all), nil
}

// parseFibTrie takes the leaves that have a line "/32 host LOCAL" below them.
func parseFibTrie(lines *bufio.Scanner) (all []netip.Addr) {
	var leaf netip.Addr
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if text, ok := strings.CutPrefix(line, "|-- "); ok {
			leaf, _ = netip.ParseAddr(text)
		} else if leaf.IsValid() && line == "/32 host LOCAL" {
			all = append(all, leaf)
		}
	}
	return all
}

// parseIfInet6 takes the first word of each line, 32 hexadecimal digits.
func parseIfInet6(lines *bufio.Scanner) (all []netip.Addr) {
	for lines.Scan() {
		word, _, _ := strings.Cut(lines.Text(), " ")
		if b, err := hex.DecodeString(word); err == nil && len(b) == 16 {
			all = append(all, netip.AddrFrom16([16]byte(b)))
		}
	}
	return all
}
