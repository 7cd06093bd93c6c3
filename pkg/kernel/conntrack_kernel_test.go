// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
)

func TestConntrackAsTheToolPrintsIt(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		c, err := OpenConntrack()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for i := range 5 {
			kerneltest.Exec(t, "", "conntrack", "-I", "-p", "tcp", "-s", "192.0.2.1", "-d", "192.0.2.2",
				"--sport", strconv.Itoa(1000+i), "--dport", "80", "--state", "ESTABLISHED", "-t", "600")
		}
		got, err := c.Count(t.Context())
		want := strings.TrimSpace(kerneltest.Exec(t, "", "conntrack", "-C"))
		if err != nil || strconv.FormatUint(got, 10) != want || got != 5 {
			t.Errorf("count: got %d, %v; want %s", got, err, want)
		}
		s, err := c.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		sums := map[string]uint64{}
		for _, m := range regexp.MustCompile(`(\w+)=(\d+)`).FindAllStringSubmatch(kerneltest.Exec(t, "", "conntrack", "-S"), -1) {
			n, _ := strconv.ParseUint(m[2], 10, 64)
			sums[m[1]] += n
		}
		delete(sums, "cpu")
		have := map[string]uint64{}
		for name, p := range map[string]*uint64{
			"found": s.Found, "invalid": s.Invalid, "insert": s.Insert, "insert_failed": s.InsertFailed,
			"drop": s.Drop, "early_drop": s.EarlyDrop, "error": s.Error, "search_restart": s.SearchRestart,
			"clash_resolve": s.ClashResolve, "chaintoolong": s.ChainTooLong,
		} {
			if p != nil {
				have[name] = *p
			}
		}
		if d := cmp.Diff(sums, have); d != "" || sums["insert"] != 5 {
			t.Errorf("statistics (-want +got):\n%s", d)
		}
	})
}
