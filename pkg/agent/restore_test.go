// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
)

// TestRestoredTables saves and restores all of a node's rules, as an
// administrator or another tool does. In IPv4 alone: ip6tables-nft-restore of
// iptables 1.8.9 forgets the counters.
func TestRestoredTables(t *testing.T) {
	for _, backend := range []string{"nft", "legacy"} {
		for _, counters := range []bool{true, false} {
			name := backend + " with counters"
			if !counters {
				name = backend + " without counters"
			}
			t.Run(name, func(t *testing.T) {
				kerneltest.Run(t, func(t *testing.T) {
					f := ipv4()
					f.load(t, backend)
					f.serve(t)
					connect(t, f.cluster(), 40)
					connect(t, f.external(), 20)
					s := newTestSampler(testConfig())
					start(t, s)
					connect(t, f.cluster(), 11)
					connect(t, f.external(), 7)
					passes(t, s, 2)
					restoreAll(t, backend, counters)
					connect(t, f.cluster(), 5)
					connect(t, f.external(), 4)
					passes(t, s, 4)
					check(t, get(t), f, 16, 11)
				})
			})
		}
	}
}

// TestRestoredWithFewCounted saves rules that have counted less than half of what they
// count until they are restored: that these packets are not new shows in the built-in
// chains, which got rules, too.
func TestRestoredWithFewCounted(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		f := ipv4()
		f.load(t, "nft")
		f.restore(t, "nft", f.chaosRules("")) // each packet that is refused is one that was sent
		f.serve(t)
		cfg := testConfig()
		cfg.Kube = KubeAuto // the agent listens once the API has told how many rules there will be
		s := apiSampler(t, cfg, chaosAPI(&f))
		for range 3 {
			s.pass(t.Context())
		}
		if !s.nft.notices.exact() {
			t.Fatal("not listening")
		}
		connect(t, f.cluster(), 1)
		refuse(t, f, 1)
		saved := kerneltest.Exec(t, "", "iptables-nft-save", "-c")
		connect(t, f.cluster(), 3)
		refuse(t, f, 3)
		kerneltest.Exec(t, saved, "iptables-nft-restore", "-w", "5", "-c")
		connect(t, f.cluster(), 1)
		refuse(t, f, 1)
		for range 3 {
			s.pass(t.Context())
		}
		if got, _ := counted(s.latest.Load()); got != (tally{cluster: 5, refused: 5}) {
			t.Errorf("got %+v, want 5 each by the cluster's address and refused", got)
		}
		drops := uint64(0)
		for _, d := range s.latest.Load().Drops {
			drops += d.Packets
		}
		if drops != 5 {
			t.Errorf("%d packets dropped, want 5", drops)
		}
	})
}

// refuse sends n packets to a Service without endpoints.
func refuse(t *testing.T, f family, n int) {
	t.Helper()
	c, err := net.ListenUDP("udp", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range n {
		if _, err := c.WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(f.ghost, vipPort)); !errors.Is(err, os.ErrPermission) {
			t.Fatalf("got %v, want it refused", err)
		}
	}
}

func restoreAll(t *testing.T, backend string, counters bool) {
	t.Helper()
	saved := kerneltest.Exec(t, "", "iptables-"+backend+"-save", "-c")
	if !strings.Contains(saved, "KUBE-SVC") {
		t.Fatalf("nothing to restore:\n%s", saved)
	}
	args := []string{"-w", "5"}
	if counters {
		args = append(args, "-c")
	}
	kerneltest.Exec(t, saved, "iptables-"+backend+"-restore", args...)
}
