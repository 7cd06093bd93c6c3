// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// endpointTotal returns what web exposes of ep1.
func endpointTotal(r *rig) (e EndpointTotal, ok bool) {
	t, _ := r.Total(web)
	for _, e := range t.Endpoints {
		if e.Addr == ep1 {
			return e, true
		}
	}
	return EndpointTotal{}, false
}

func TestEndpointsThatComeBack(t *testing.T) {
	tests := []struct {
		name string
		away time.Duration
		goes bool // on from where it was
	}{
		{"within the grace", grace - time.Minute, true},
		{"after the grace", grace, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(10)
			for _, v := range []uint64{1, 1, 8} {
				r.apply(reading(nft, conn(1, v)))
			}
			before, _ := endpointTotal(r)
			r.apply(reading(nft)) // flushed
			_, version := r.Changed(0)
			if e, ok := endpointTotal(r); ok {
				t.Errorf("exposed while it is in no rule: %+v", e)
			}
			r.now = r.now.Add(tt.away)
			r.apply(reading(nft, conn(11, 2)))
			want := EndpointTotal{Addr: ep1, Created: before.Created, Connections: 9}
			if !tt.goes {
				want.Created, want.Connections = r.now, 2
			}
			got, _ := endpointTotal(r)
			if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if ports, _ := r.Changed(version); len(ports) != 1 {
				t.Errorf("%d ports changed, want 1", len(ports))
			}
		})
	}
}

func TestAnEndpointOfAnotherServiceStartsAnew(t *testing.T) {
	r := newRig(10)
	r.knowUID("a")
	for _, v := range []uint64{1, 1, 8} {
		r.apply(reading(nft, conn(1, v)))
	}
	r.apply(reading(nft))
	r.knowUID("b")
	r.apply(reading(nft, conn(11, 2)))
	if e, _ := endpointTotal(r); e.Connections != 2 {
		t.Errorf("%d connections, want 2", e.Connections)
	}
}

// TestEndpointsComeAndGo has 10,000 endpoints of one Service, ten at a time.
func TestEndpointsComeAndGo(t *testing.T) {
	r := newRig(10)
	handle := uint64(0)
	for i := range 1000 {
		var counters []Counter
		for e := range 10 {
			handle++
			c := conn(handle, 1)
			c.Endpoint = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), byte(e)}), 80)
			counters = append(counters, c)
		}
		r.apply(reading(nft, counters...))
	}
	if got, most := len(r.port(web).endpoints.all), 10*int(grace/time.Second); got > most+10 {
		t.Errorf("%d endpoints are kept, of at most %d within the grace", got, most)
	}
	r.apply(reading(nft))
	r.now = r.now.Add(grace)
	r.apply(reading(nft))
	if got := len(r.port(web).endpoints.all) + len(r.departed) + cap(r.departed); got != 0 {
		t.Errorf("%d endpoints are kept after the grace", got)
	}
}
