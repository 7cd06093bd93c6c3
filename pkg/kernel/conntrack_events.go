// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	timo "github.com/ti-mo/conntrack"
	netfilterlib "github.com/ti-mo/netfilter"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/conntrack"
)

// FlowChange is what has happened to an entry of connection tracking.
type FlowChange uint8

// The changes, as the kernel's multicast groups tell them.
const (
	FlowNew   FlowChange = iota // its first packet has left
	FlowMoved                   // another state, or its first answer
	FlowEnded
)

// FlowEvent is one change.
type FlowEvent struct {
	Change FlowChange
	Flow   conntrack.Flow
}

const (
	// eventsBuffer is what the socket of events may hold, as far as the host
	// allows: some thousands.
	eventsBuffer = 4 << 20
	// eventsQueue is how many are decoded and not looked at.
	eventsQueue = 1024
)

// WatchFlows calls started once it listens, and then visit for each change of an
// entry in the namespace, until ctx ends; then it returns nil. Where changes come faster than they are read some
// are lost: lost is called with the reason, and it goes on. While it listens
// the kernel keeps an extension for each new entry of all namespaces. It
// returns a *CapabilityError without CAP_NET_ADMIN, and ErrAbsent where there is
// no ctnetlink or the node has events switched off.
func WatchFlows(ctx context.Context, started func(), visit func(*FlowEvent), lost func(error)) error {
	const op = "listen to changes of conntrack entries"
	if running.loadable(ctnetlinkModule) {
		return fmt.Errorf("%s: %w: its module is not loaded", op, ErrAbsent)
	}
	if untold(eventsSysctl) {
		return fmt.Errorf("%s: %w: net.netfilter.nf_conntrack_events is 0", op, ErrAbsent)
	}
	for ctx.Err() == nil {
		err := watchFlows(ctx, started, visit)
		started = func() {}
		if errors.Is(err, errListen) {
			return meaning(op, err)
		}
		if err != nil && ctx.Err() == nil {
			lost(err)
		}
	}
	return nil
}

// eventsSysctl is whether the kernel tells of changes: 0 never, 1 always, 2 where
// somebody listens (nf_conntrack_ecache in net/netfilter).
const eventsSysctl = "/proc/sys/net/netfilter/nf_conntrack_events"

// untold reports whether the file says that no change is told.
func untold(file string) bool {
	b, err := os.ReadFile(file)
	return err == nil && strings.TrimSpace(string(b)) == "0"
}

// errListen marks that the groups could not be joined: trying again is no use.
var errListen = errors.New("cannot listen")

// watchFlows listens until ctx or the socket ends.
func watchFlows(ctx context.Context, started func(), visit func(*FlowEvent)) error {
	c, err := timo.Dial(nil)
	if err != nil {
		return fmt.Errorf("%w: %w", errListen, err)
	}
	_ = c.SetReadBuffer(eventsBuffer) // a smaller one loses earlier, and says so
	events := make(chan timo.Event, eventsQueue)
	failed, err := c.Listen(events, 1, []netfilterlib.NetlinkGroup{
		netfilterlib.GroupCTNew, netfilterlib.GroupCTUpdate, netfilterlib.GroupCTDestroy,
	})
	if err != nil {
		_ = c.Close()
		return fmt.Errorf("%w: %w", errListen, err)
	}
	defer closeEvents(c, events, failed)
	started()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			if errors.Is(err, unix.ENOBUFS) {
				return ErrOverrun
			}
			return err
		case e := <-events:
			if e.Flow != nil {
				visit(flowEvent(&e))
			}
		}
	}
}

// closeEvents closes the socket. The library's worker may wait until it can say
// something, and closing waits for the worker.
func closeEvents(c *timo.Conn, events <-chan timo.Event, failed <-chan error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.Close()
	}()
	for {
		select {
		case <-events:
		case <-failed:
		case <-done:
			return
		}
	}
}

func flowEvent(e *timo.Event) *FlowEvent {
	out := &FlowEvent{Flow: convertFlow(e.Flow)}
	switch e.Type {
	case timo.EventUpdate:
		out.Change = FlowMoved
	case timo.EventDestroy:
		out.Change = FlowEnded
	}
	return out
}

// convertFlow gives the library's value the shape of ours.
func convertFlow(f *timo.Flow) conntrack.Flow {
	tuple := func(t *timo.Tuple) conntrack.Tuple {
		return conntrack.Tuple{
			Src: netip.AddrPortFrom(t.IP.SourceAddress, t.Proto.SourcePort),
			Dst: netip.AddrPortFrom(t.IP.DestinationAddress, t.Proto.DestinationPort),
		}
	}
	out := conntrack.Flow{
		Family: netfilter.IPv4, Protocol: f.TupleOrig.Proto.Protocol, Zone: f.Zone, Status: conntrack.Status(f.Status),
		Timeout: f.Timeout, HasTimeout: f.Timeout != 0, Orig: tuple(&f.TupleOrig), Reply: tuple(&f.TupleReply),
	}
	if f.TupleOrig.IP.IsIPv6() {
		out.Family = netfilter.IPv6
	}
	switch {
	case f.ProtoInfo.TCP != nil:
		out.State, out.HasState = conntrack.State(f.ProtoInfo.TCP.State), true
	case f.ProtoInfo.SCTP != nil:
		out.State, out.HasState = conntrack.State(f.ProtoInfo.SCTP.State), true
	}
	return out
}
