// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
)

const (
	invalidObject = "ct_state_invalid_dropped_pkts" // of kube-proxy
	tcpReset      = 4
)

// forwardRules are KUBE-FORWARD as kube-proxy writes it at every sync (proxier.go).
const forwardRules = `*filter
:KUBE-FORWARD - [0:0]
-A KUBE-FORWARD -m conntrack --ctstate INVALID -m nfacct --nfacct-name ct_state_invalid_dropped_pkts -j DROP
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
`

// invalid sends resets of no connection.
func invalid(t *testing.T, f family, n int) {
	t.Helper()
	p := passing(f, 80)
	p.TCP, p.Flags = true, tcpReset
	kerneltest.SendFrames(t, "w0", "w1", p, n)
}

// TestInvalidDropsAreToldByTheObject of both families' rules, each packet once, while
// kube-proxy writes the rules anew.
func TestInvalidDropsAreToldByTheObject(t *testing.T) {
	for _, backend := range []string{"nft", "legacy"} {
		t.Run(backend, func(t *testing.T) {
			kerneltest.Run(t, func(t *testing.T) { invalidDrops(t, backend) })
		})
	}
}

func invalidDrops(t *testing.T, backend string) {
	wires(t)
	kerneltest.MakeAccount(t, invalidObject)
	both := []family{ipv4(), ipv6()}
	sync := func() {
		for i := range both {
			both[i].restore(t, backend, forwardRules)
		}
	}
	sync()
	for i := range both {
		both[i].restore(t, backend, "*filter\n-A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD\nCOMMIT\n")
	}
	const name = "svcscope_drop_packets_total"
	labels := []string{"reason=invalid", "hook=forward", "owner=kube-proxy", "service_name="}
	invalid(t, both[0], 4) // before there is an agent
	kernelCounts(t, 4)
	s := newTestSampler(testConfig())
	defer s.close()
	s.pass(t.Context())
	want := 0
	for round := range 6 {
		invalid(t, both[0], 3)
		invalid(t, both[1], 2)
		if want += 5; round%2 == 0 {
			s.pass(t.Context())
		}
		sync()
		invalid(t, both[round%2], 1)
		want++
		sync()
	}
	kernelCounts(t, uint64(4+want))
	reaches(t, s, float64(want), name, labels...)
	reaches(t, s, float64(want), name) // and nothing else

	// The object is deleted, which takes the rules to be gone, and made anew.
	for i := range both {
		both[i].restore(t, backend, "*filter\n:KUBE-FORWARD - [0:0]\nCOMMIT\n")
	}
	kerneltest.DeleteAccount(t, invalidObject)
	kerneltest.MakeAccount(t, invalidObject)
	sync()
	invalid(t, both[1], 3)
	kernelCounts(t, 3)
	reaches(t, s, float64(want+3), name)
	if got := page(t, s).sum("svcscope_collector_success", "collector=nfacct"); got != 1 {
		t.Errorf("the collector of objects: %v", got)
	}
}

// kernelCounts waits until the object has counted so many packets.
func kernelCounts(t *testing.T, want uint64) {
	t.Helper()
	r, err := thisHost().nfacct()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	awaitCount(t, want, func() uint64 {
		objects, err := r.Objects(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return objects[invalidObject].Packets
	})
}

// TestOneLookTellsWhatTheObjectHas since it was made.
func TestOneLookTellsWhatTheObjectHas(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		wires(t)
		kerneltest.MakeAccount(t, invalidObject)
		f := ipv4()
		f.restore(t, "nft", forwardRules)
		f.restore(t, "nft", "*filter\n-A FORWARD -j KUBE-FORWARD\nCOMMIT\n")
		invalid(t, f, 4)
		f.restore(t, "nft", forwardRules)
		invalid(t, f, 2)
		kernelCounts(t, 6)
		snapshot, err := readOnce(t.Context(), newTestSampler(testConfig()))
		if err != nil {
			t.Fatal(err)
		}
		if d := snapshot.Drops; len(d) != 1 || d[0].Reason != "invalid" || d[0].Packets != 6 {
			t.Errorf("got %+v", d)
		}
	})
}
