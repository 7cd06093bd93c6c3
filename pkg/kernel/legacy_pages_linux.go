// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// pages is a buffer outside Go's heap. Tables have up to 66 MB: as garbage of
// the heap, every reading would cost a collection, and the memory would stay
// with the process long after.
type pages struct {
	mem  []byte
	used int // bytes that may not be 0
}

const (
	keepBytes = 4 << 20 // so much of a buffer is kept between readings
	hugePage  = 2 << 20 // on x86-64 and arm64 with pages of 4 KB
)

// grow returns n bytes, which hold what they held before or zeros.
func (p *pages) grow(n int) ([]byte, error) {
	p.used = max(p.used, n)
	if n <= len(p.mem) {
		return p.mem[:n:n], nil
	}
	if err := p.free(); err != nil {
		return nil, err
	}
	p.used = n
	unit := 64 << 10
	if n > keepBytes {
		unit = hugePage
	}
	size := (n + n/8 + unit - 1) / unit * unit
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", size, err)
	}
	if size > keepBytes {
		// To fault in 32 MB page by page takes longer than to read them: 145
		// ms against 3 ms, measured in a virtual machine. A kernel without
		// huge pages refuses, which costs that time and nothing else.
		_ = unix.Madvise(mem, unix.MADV_HUGEPAGE)
	}
	p.mem = mem
	return mem[:n:n], nil
}

// release makes all bytes 0: the kernel leaves those as they are that are
// behind the end of a name, and what stood there would be taken for a change.
// What a large table took goes back to the system; the addresses stay:
// what refers to them after its time reads zeros and does not crash.
func (p *pages) release() {
	if p.used > keepBytes {
		// It cannot fail for a mapping like ours, and nothing depends on it.
		_ = unix.Madvise(p.mem, unix.MADV_DONTNEED)
	} else {
		clear(p.mem[:p.used])
	}
	p.used = 0
}

func (p *pages) free() error {
	if len(p.mem) == 0 {
		return nil
	}
	err := unix.Munmap(p.mem)
	p.mem, p.used = nil, 0
	return err
}
