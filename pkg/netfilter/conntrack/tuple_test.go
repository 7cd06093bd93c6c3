// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"fmt"
	"slices"
	"testing"

	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// TestLayouts holds the short way of reading a tuple against the long one, also
// where a byte is another, and shows that the kernel's tuples take it.
func TestLayouts(t *testing.T) {
	both := func(b []byte) (string, string) {
		var short, long Tuple
		var p, q uint8
		errShort, errLong := short.decode(b, &p), long.walk(b, &q)
		return fmt.Sprint(short, p, errShort), fmt.Sprint(long, q, errLong)
	}
	taken := map[string]int{}
	for _, name := range captured {
		for _, m := range payloads(t, name+".bin") {
			for a := nlattr.Attrs(m[4:]); a.Next(); {
				if a.Type() != ctaTupleOrig && a.Type() != ctaTupleReply {
					continue
				}
				if layout4.is(a.Bytes()) || layout6.is(a.Bytes()) {
					taken[name]++
				}
				for n := range a.Bytes() {
					for _, x := range []byte{0, 1, 4, 0x80, 0xff} {
						b := slices.Clone(a.Bytes())
						b[n] ^= x
						if short, long := both(b); short != long {
							t.Fatalf("byte %d of % x:\n%s\n%s", n, b, short, long)
						}
					}
				}
			}
		}
	}
	// All but two of ICMP and, in IPv4, two of GRE, whose keys look like ports.
	if taken["flows"] < 2*11 || taken["flows6"] != 2*2 {
		t.Errorf("tuples read the short way: %v", taken)
	}
}
