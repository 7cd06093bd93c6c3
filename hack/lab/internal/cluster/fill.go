// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
)

// FillerNamespace holds the Services that Fill makes.
const FillerNamespace = "fill"

// fillerEndpoints is how many endpoints a filler has.
const fillerEndpoints = 3

// MaxFillers is how many the range of cluster addresses has room for beside
// others.
const MaxFillers = 60000

// Filler returns the Service number i, counted from 0, of those that only
// make the rules many: IPv4, TCP, three endpoints that nobody has.
func Filler(i int) Exposure {
	e := Exposure{
		Namespace: FillerNamespace, Name: fmt.Sprintf("f%05d", i), Type: "ClusterIP",
		Port: 80, TargetPort: 8080, Protocol: "TCP", Families: "v4",
	}
	for k := range fillerEndpoints {
		// 10.128.0.0/9 is no pod's.
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], 10<<24|128<<16|uint32(fillerEndpoints*i+k+1))
		e.Endpoints = append(e.Endpoints, netip.AddrFrom4(b).String())
	}
	return e
}

// Fill makes the fillers 0 to n-1, which must not be there, several at a
// time: about 1 ms each.
func Fill(ctx context.Context, c *Client, n int) error {
	if err := ensureNamespace(ctx, c, FillerNamespace); err != nil {
		return fmt.Errorf("fill: %w", err)
	}
	const workers = 16
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := Filler(i).create(ctx, c); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// create makes a Service that was not there, and its slices.
func (e Exposure) create(ctx context.Context, c *Client) error {
	slices, err := e.slices()
	if err != nil {
		return err
	}
	for family, s := range slices {
		if s == nil {
			continue
		}
		if err := c.Create(ctx, slicePath(e.Namespace, ""), s); err != nil {
			return fmt.Errorf("create %s %s: %w", e.Name, family, err)
		}
	}
	if err := c.Create(ctx, servicePath(e.Namespace, ""), e.service()); err != nil {
		return fmt.Errorf("create %s: %w", e.Name, err)
	}
	return nil
}
