// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"strconv"
	"sync"
	"time"

	"github.com/svcscope/svcscope/pkg/kernel"
)

// devices names network interfaces by their numbers.
type devices struct {
	mu    sync.Mutex
	names map[uint32]string
	read  time.Time
}

// name returns "" for 0, and the number where there is no such interface (any more).
func (d *devices) name(n uint32) string {
	if n == 0 {
		return ""
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if name, ok := d.names[n]; ok {
		return name
	}
	if now := time.Now(); now.Sub(d.read) >= time.Second { // pods come and go
		d.read = now
		d.renew()
	}
	if name, ok := d.names[n]; ok {
		return name
	}
	return strconv.FormatUint(uint64(n), 10)
}

func (d *devices) renew() {
	if names, err := kernel.Devices(); err == nil { // else numbers will do
		d.names = names
	}
}
