// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"os"
	"regexp"
	"strconv"
	"testing"
)

// rss is the process's anonymous resident memory in kB.
func rss(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`RssAnon:\s+(\d+) kB`).FindSubmatch(b)
	if m == nil {
		t.Fatal("no RssAnon")
	}
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestPagesGiveLargeBuffersBack(t *testing.T) {
	const size = 64 << 20
	var p pages
	before := rss(t)
	b, err := p.grow(size)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	full := rss(t)
	p.release()
	after := rss(t)
	if full-before < size>>10*9/10 {
		t.Errorf("filled, the buffer takes %d kB", full-before)
	}
	if after-before > size>>10/4 {
		t.Errorf("released, the buffer takes %d kB", after-before)
	}
	if b[0] != 0 {
		t.Error("released memory holds what it held")
	}
	if again, err := p.grow(size / 2); err != nil || &again[0] != &b[0] {
		t.Errorf("a smaller buffer is another one: %v", err)
	}
	if err := p.free(); err != nil {
		t.Error(err)
	}
}
