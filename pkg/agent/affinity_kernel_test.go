// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"strings"
	"testing"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
)

// sticky is what kube-proxy writes for one endpoint of web: with the policy Local beside, or
// with affinity. The endpoint's chain then has as many rules and as many lead to it.
func (f *family) sticky(affinity bool) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	svc, svl := kubeproxy.ServiceChain(webPort), kubeproxy.LocalChain(webPort)
	e := f.endpoints[0]
	sep := kubeproxy.EndpointChain(webPort, e)
	line("*nat\n:%s - [0:0]\n:%s - [0:0]\n:%s - [0:0]", svc, svl, sep)
	set := ""
	if affinity {
		line("-A %s -m recent --name %s --rcheck --seconds 600 --reap -j %s", svc, sep, sep)
		set = "-m recent --name " + sep + " --set"
	} else {
		line("-A %s -j %s", svl, sep)
	}
	line("-A %s -j %s", svc, sep)
	line("-A %s -s %s -j KUBE-MARK-MASQ", sep, e.Addr())
	line("-A %s %s -m tcp -p tcp -j DNAT --to-destination %s", sep, set, e)
	if affinity {
		line("-X %s", svl)
	}
	line("COMMIT")
	return b.String()
}

// TestAffinityOfAKnownEndpoint: nothing but the jumps to it tells that the rules of a chain
// that was read are others.
func TestAffinityOfAKnownEndpoint(t *testing.T) {
	f := ipv4()
	kerneltest.Run(t, func(t *testing.T) {
		f.load(t, "nft")
		f.restore(t, "nft", f.sticky(false))
		s := newTestSampler(testConfig())
		t.Cleanup(func() { _ = s.close() })
		view := func() *kubeproxy.View { return s.nft.known[netfilter.IPv4].rules.View }
		sep := kubeproxy.EndpointChain(webPort, f.endpoints[0])
		s.pass(t.Context())
		if r, ok := view().EndpointRules(sep); !ok || r.Remembers {
			t.Fatalf("before: known %v, %+v", ok, r)
		}
		f.restore(t, "nft", f.sticky(true))
		s.pass(t.Context())
		if r, ok := view().EndpointRules(sep); ok && !r.Remembers {
			t.Errorf("the rules of before are taken for those of now: %+v", r)
		}
		f.restore(t, "nft", f.rules("")) // as at the next sync
		s.pass(t.Context())
		if r, ok := view().EndpointRules(sep); !ok || !r.Remembers || r.To != f.endpoints[0] {
			t.Errorf("after the next sync: known %v, %+v", ok, r)
		}
	})
}
