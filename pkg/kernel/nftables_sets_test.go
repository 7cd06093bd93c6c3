// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// TestDamagedElementSpoilsTheReading: a map of kube-proxy's that lacks elements must not
// be taken for the whole one.
func TestDamagedElementSpoilsTheReading(t *testing.T) {
	for _, typ := range []requestType{getSet, getSetElem} {
		s := readScene(t, "kube-proxy-nftables")
		n := openFake(t, &fakeKernel{answer: damageOne(s, typ, "kube-proxy", 4)})
		err := n.Try(t.Context(), func(ctx context.Context, a *Attempt) error {
			_, err := readSets(ctx, a, netfilter.IPv4, "kube-proxy")
			return err
		})
		var damaged *DamagedError
		if !errors.As(err, &damaged) || damaged.Skipped["set"]+damaged.Skipped["element"] != 1 || !strings.Contains(err.Error(), "kube-proxy (IPv4)") {
			t.Errorf("request %#x: %v", typ, err)
		}
	}
}

// TestInterruptedElementsAreReadAnew has the kernel say that a dump is not of one state.
func TestInterruptedElementsAreReadAnew(t *testing.T) {
	s := readScene(t, "kube-proxy-nftables")
	torn := false
	n := openFake(t, &fakeKernel{answer: func(req netlink.Message) ([]netlink.Message, error) {
		msgs, err := s.answer(req)
		if requestType(req.Header.Type) == getSetElem && !torn {
			torn = true
			msgs = slices.Clone(msgs)
			msgs[len(msgs)-1].Header.Flags |= nlattr.FlagDumpIntr
		}
		return msgs, err
	}})
	elements := 0
	err := n.Try(t.Context(), func(ctx context.Context, a *Attempt) error {
		elements = 0
		return a.Elements(ctx, &nftables.Set{Family: netfilter.IPv4, Table: "kube-proxy", Name: "service-ips"}, func(es *nftables.Elements) bool {
			elements += len(es.Elements)
			return true
		})
	})
	if err != nil || elements != 2 || n.Stats().Interrupted != 1 {
		t.Errorf("%d elements, %v, interrupted %d times", elements, err, n.Stats().Interrupted)
	}
}
