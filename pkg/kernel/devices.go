// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"net"
)

// Devices returns the names of the network interfaces of the calling thread's network
// namespace by their numbers (RTM_GETLINK).
func Devices() (map[uint32]string, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("read network interfaces: %w", err)
	}
	names := make(map[uint32]string, len(all))
	for _, i := range all {
		names[uint32(i.Index)] = i.Name
	}
	return names, nil
}
