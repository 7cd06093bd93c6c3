// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/conntrack"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// flowMessages are captured entries as a dump has them.
func flowMessages(t *testing.T, flags netlink.HeaderFlags) []netlink.Message {
	t.Helper()
	b, err := os.ReadFile("../netfilter/conntrack/testdata/flows.bin")
	if err != nil {
		t.Fatal(err)
	}
	var out []netlink.Message
	for it := nlattr.Messages(b); it.Next(); {
		out = append(out, netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(getFlows), Flags: netlink.Multi | flags},
			Data:   it.Message().Payload,
		})
	}
	return out
}

func openFakeConntrack(t *testing.T, k *fakeKernel) *Conntrack {
	t.Helper()
	c, err := openConntrack(fakeRoot(t, map[string]string{"nf_conntrack_count": "0\n"}), k.dial)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestFlows(t *testing.T) {
	damaged := netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(getFlows)}, Data: []byte{2, 0, 0, 0}}
	done := errnoMessage(netlink.Done, 0)
	all := flowMessages(t, 0)
	for _, tt := range []struct {
		name   string
		filter FlowFilter
		answer []netlink.Message
		want   FlowDump
	}{
		{"all", FlowFilter{}, append(slices.Clip(all), done), FlowDump{Entries: 13}},
		{"one damaged", FlowFilter{}, append([]netlink.Message{all[0], damaged, damaged, all[1]}, done), FlowDump{Entries: 2, Undecoded: 2}},
		{"a kernel that does not filter", FlowFilter{DstNAT: true}, append(slices.Clip(all), done), FlowDump{Entries: 5}},
		{"one that does", FlowFilter{DstNAT: true}, append(flowMessages(t, netlink.HeaderFlags(nlattr.FlagDumpFiltered)), done), FlowDump{Entries: 5, Filtered: true}},
		{"an empty table", FlowFilter{}, []netlink.Message{done}, FlowDump{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := &fakeKernel{answer: func(req netlink.Message) ([]netlink.Message, error) {
				h, attrs, err := netfilter.DecodeGenMsg(req.Data)
				if err != nil || h.Family != netfilter.FamilyUnspec || req.Header.Flags != netlink.Request|netlink.Dump {
					t.Errorf("request %+v, %+v: %v", req.Header, h, err)
				}
				if got := len(attrs) > 0; got != tt.filter.DstNAT {
					t.Errorf("the request's attributes are % x", attrs)
				}
				return tt.answer, nil
			}}
			n := uint64(0)
			got, err := openFakeConntrack(t, k).Flows(t.Context(), tt.filter, func(f *conntrack.Flow) {
				n++
				if tt.filter.DstNAT && !f.Status.Has(conntrack.DstNAT) {
					t.Errorf("%v is not what was asked for", f)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			if (got.Undecoded > 0) != (got.UndecodedErr != nil) {
				t.Errorf("%d undecoded: %v", got.Undecoded, got.UndecodedErr)
			}
			got.UndecodedErr = nil
			if d := cmp.Diff(tt.want, got); d != "" || n != got.Entries {
				t.Errorf("%d visits; (-want +got):\n%s", n, d)
			}
		})
	}
}

// TestFlowsThatBreakOff shows that the reader says so, counts it, and reads
// again over another socket.
func TestFlowsThatBreakOff(t *testing.T) {
	all := flowMessages(t, 0)
	interrupted := flowMessages(t, netlink.DumpInterrupted)
	for _, tt := range []struct {
		name   string
		answer []netlink.Message
		err    error
		want   error
		count  uint64
	}{
		{"overrun", all[:2], unix.ENOBUFS, ErrOverrun, 1},
		{"interrupted", append(interrupted, errnoMessage(netlink.Done, 0)), nil, ErrInterrupted, 1},
		{"no capability", nil, unix.EPERM, &CapabilityError{}, 0},
		{"no ctnetlink", nil, unix.EINVAL, ErrAbsent, 0},
		{"an error at its end", append(all[:2:2], errnoMessage(netlink.Done, unix.ENOMEM)), nil, unix.ENOMEM, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			good := false
			k := &fakeKernel{answer: func(netlink.Message) ([]netlink.Message, error) {
				if good {
					return append(slices.Clip(all), errnoMessage(netlink.Done, 0)), nil
				}
				return tt.answer, tt.err
			}}
			c := openFakeConntrack(t, k)
			_, err := c.Flows(t.Context(), FlowFilter{}, func(*conntrack.Flow) {})
			if capability := (*CapabilityError)(nil); errors.As(tt.want, &capability) {
				if !errors.As(err, &capability) {
					t.Errorf("got %v, want a CapabilityError", err)
				}
			} else if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if !strings.HasPrefix(err.Error(), "read conntrack entries: ") {
				t.Errorf("%v does not say what was done", err)
			}
			good = true
			d, err := c.Flows(t.Context(), FlowFilter{}, func(*conntrack.Flow) {})
			if err != nil || d.Entries != 13 {
				t.Errorf("afterwards: %+v, %v", d, err)
			}
			if s := c.FlowStats(); s.Interrupted != tt.count || s.Messages < 14 || s.Bytes == 0 {
				t.Errorf("stats: %+v", s)
			}
		})
	}
}
