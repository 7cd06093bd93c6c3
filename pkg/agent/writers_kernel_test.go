// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/policy"
)

// Devices of the pods of testdata/writers, and of one of which their writers know
// nothing.
const (
	webDevice    = "cali0000000web0"
	dbDevice     = "cali00000000db0"
	strayDevice  = "cali9"
	backendsOwn  = "native" // tables of nft's own
	fromOutside  = "w0"
	toTheOutside = "x0"
)

// writer has written rules of network policies; they are in pkg/policy/testdata/writers.
type writer struct {
	dir      string
	backends []string
	// whole: it restores all of filter, each time; else what has changed.
	whole bool
	// sent is what it refuses of the packets of sendRefused, by labels of
	// svcscope_drop_packets_total, and named of svcscope_policy_drop_packets_total.
	sent, named map[string]float64
	rules       []string // that refuse, as toldOf has them
}

func writers() []writer {
	iptables, all := []string{"nft", "legacy"}, []string{"nft", "legacy", backendsOwn}
	kubeRouter := writer{
		whole: true,
		sent: map[string]float64{
			"reason=policy_default hook=input+forward+output owner=kube-router": toWeb + fromDB,
			"reason=invalid hook=input+forward+output owner=kube-router":        ofNoConnection,
		},
		named: map[string]float64{
			"owner=kube-router direction= policy_name= pod_namespace=shop pod_name=web-0": toWeb,
			"owner=kube-router direction= policy_name= pod_namespace=shop pod_name=db-0":  fromDB,
		},
		rules: []string{
			"input+forward+output kube-router invalid",
			"input+forward+output kube-router policy_default pod=shop/db-0",
			"input+forward+output kube-router policy_default pod=shop/web-0",
		},
	}
	calico := writer{
		sent: map[string]float64{
			"reason=policy_default hook=forward owner=calico":    toWeb,
			"reason=invalid hook=forward owner=calico":           ofNoConnection,
			"reason=policy_rule hook=input+forward owner=calico": fromDB,
			"reason=rule hook=input+forward owner=calico":        ofStrangers,
		},
		named: map[string]float64{"owner=calico direction=egress policy_namespace= policy_name=strict pod_name=": fromDB},
		rules: []string{
			"forward calico invalid ingress device=" + dbDevice,
			"forward calico invalid ingress device=" + webDevice,
			"forward calico no_profile ingress device=" + dbDevice,
			"forward calico no_profile ingress device=" + webDevice,
			"forward calico policy_default ingress device=" + webDevice,
			"forward calico rule",
			"input calico rule",
			"input+forward calico encapsulated egress device=" + dbDevice,
			"input+forward calico encapsulated egress device=" + webDevice,
			"input+forward calico invalid egress device=" + dbDevice,
			"input+forward calico invalid egress device=" + webDevice,
			"input+forward calico no_profile egress device=" + dbDevice,
			"input+forward calico no_profile egress device=" + webDevice,
			"input+forward calico policy_default egress device=" + dbDevice,
			"input+forward calico policy_rule egress policy=/strict",
			"input+forward calico rule",
		},
	}
	of := func(w writer, dir string, backends []string) writer {
		w.dir, w.backends = dir, backends
		return w
	}
	return []writer{
		of(kubeRouter, "kube-router-2.10.0", iptables), of(kubeRouter, "kube-router-2.11.1", all),
		of(calico, "calico-3.31.7", all), of(calico, "calico-3.32.1", all),
	}
}

// write writes the rules: 1 is all of them, 2 what the writer does next.
func (w *writer) write(t *testing.T, f *family, backend string, step int) {
	t.Helper()
	suffix := "." + strings.ToLower(f.name)
	switch {
	case backend == backendsOwn && w.whole: // of both families
		suffix = ""
		fallthrough
	case backend == backendsOwn:
		for text := range strings.SplitSeq(w.read(t, fmt.Sprintf("nft-%d%s", step, suffix)), "# transaction") {
			_, text, _ = strings.Cut(text, "\n")
			kerneltest.Exec(t, text, "nft", "-f", "-")
		}
	case w.whole:
		kerneltest.Exec(t, w.read(t, fmt.Sprintf("iptables-restore-%d%s", step, suffix)), f.iptables+"-"+backend+"-restore", "-w", "5", "-T", "filter")
	default:
		kerneltest.Exec(t, w.read(t, fmt.Sprintf("iptables-restore-%d%s", step, suffix)), f.iptables+"-"+backend+"-restore", "-w", "5", "--noflush")
	}
}

func (w *writer) read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../policy/testdata/writers", w.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// What sendRefused sends.
const (
	toWeb          = 3 // of a protocol that no policy lets pass
	fromDB         = 5 // to where a policy denies it, or where none lets it
	ofNoConnection = 2 // to web
	ofStrangers    = 1 // from a device of no pod that is known
)

// podAddr is an address of the pods' networks in either family.
func podAddr(f *family, ipv4, ipv6 string, port uint16) netip.AddrPort {
	addr := netip.MustParseAddr(ipv4)
	if f.bits == 128 {
		addr = netip.MustParseAddr(ipv6)
	}
	return netip.AddrPortFrom(addr, port)
}

// podDevices makes the devices, and the routes by which packets leave. There is none
// back to where they come from, so that nobody is told that they were refused.
func podDevices(t *testing.T, f *family) {
	t.Helper()
	kerneltest.Forward(t)
	for in, out := range map[string]string{webDevice: "web1", dbDevice: "db1", strayDevice: "stray1", fromOutside: "w1", toTheOutside: "x1"} {
		kerneltest.Wire(t, in, out)
	}
	web, outside := podAddr(f, "10.244.1.10", "fd00:244:1::10", 0).Addr(), podAddr(f, "10.99.0.0", "fd99::", 0).Addr()
	kerneltest.Exec(t, "", "ip", "route", "add", netip.PrefixFrom(web, f.bits).String(), "dev", webDevice)
	kerneltest.Exec(t, "", "ip", "route", "add", netip.PrefixFrom(outside, f.bits-8).String(), "dev", toTheOutside)
}

func sendRefused(t *testing.T, f *family) {
	t.Helper()
	client, web := podAddr(f, "10.244.2.20", "fd00:244:2::20", 40_000), podAddr(f, "10.244.1.10", "fd00:244:1::10", 81)
	db, denied := podAddr(f, "10.244.1.11", "fd00:244:1::11", 40_000), podAddr(f, "10.99.0.7", "fd99::7", 81)
	kerneltest.SendFrames(t, fromOutside, "w1", kerneltest.Packet{Src: client, Dst: web}, toWeb)
	kerneltest.SendFrames(t, dbDevice, "db1", kerneltest.Packet{Src: db, Dst: denied}, fromDB)
	kerneltest.SendFrames(t, fromOutside, "w1", kerneltest.Packet{Src: client, Dst: web, TCP: true, Flags: tcpReset}, ofNoConnection)
	kerneltest.SendFrames(t, strayDevice, "stray1", kerneltest.Packet{Src: client, Dst: denied}, ofStrangers)
}

// TestDropsOfPolicyWriters counts what the rules of kube-router and Calico refuse, as
// their own code has written them, while they are written again.
func TestDropsOfPolicyWriters(t *testing.T) {
	for _, w := range writers() {
		for _, backend := range w.backends {
			for _, f := range []family{ipv4(), ipv6()} {
				t.Run(w.dir+" "+backend+" "+f.name, func(t *testing.T) {
					kerneltest.Run(t, func(t *testing.T) { w.judge(t, &f, backend) })
				})
			}
		}
	}
}

func (w *writer) judge(t *testing.T, f *family, backend string) {
	podDevices(t, f)
	if w.whole && backend != backendsOwn {
		kerneltest.Exec(t, w.read(t, "ipset.save"), "ipset", "restore")
	}
	w.write(t, f, backend, 1)
	cfg := testConfig()
	cfg.Policies = true
	s := newTestSampler(cfg)
	defer s.close()
	s.pass(t.Context())
	if d := gocmp.Diff(w.rules, toldOf(s, f, backend)); d != "" {
		t.Errorf("rules that refuse (-want +got):\n%s", d)
	}
	steps := []int{2}
	if w.whole && backend != backendsOwn {
		steps = []int{2, 1, 2}
	}
	for round := range len(steps) + 1 {
		if round > 0 {
			w.write(t, f, backend, steps[round-1])
			s.pass(t.Context())
		}
		sendRefused(t, f)
		n, sum := float64(round+1), 0.0
		for labels, sent := range w.sent {
			reaches(t, s, n*sent, "svcscope_drop_packets_total", append(strings.Fields(labels), "service_name=")...)
			sum += n * sent
		}
		reaches(t, s, sum, "svcscope_drop_packets_total")
		m := page(t, s)
		sum = 0
		for labels, sent := range w.named {
			if got := m.sum("svcscope_policy_drop_packets_total", strings.Fields(labels)...); got != n*sent {
				t.Errorf("round %d: %s: %v, want %v", round, labels, got, n*sent)
			}
			sum += n * sent
		}
		if got := m.sum("svcscope_policy_drop_packets_total"); got != sum {
			t.Errorf("round %d: %v packets of policies and pods, want %v", round, got, sum)
		}
	}
	if d := gocmp.Diff(w.rules, toldOf(s, f, backend)); d != "" {
		t.Errorf("rules that refuse, in the end (-want +got):\n%s", d)
	}
}

// toldOf is what the rules of a family tell that refuse packets, each once.
func toldOf(s *sampler, f *family, backend string) []string {
	src := s.nftables
	if backend == "legacy" {
		src = s.xtables
	}
	var all []string
	for _, known := range src.families() {
		if known.set.Family.String() != f.name {
			continue
		}
		for r := range known.refused.rules.All() {
			line := fmt.Sprintf("%s %s %s", cmp.Or(r.Hooks.String(), "unknown"), r.Owner, r.Reason)
			if r.Direction != "" {
				line += " " + string(r.Direction)
			}
			if r.Policy != (policy.Object{}) {
				line += " policy=" + r.Policy.Namespace + "/" + r.Policy.Name
			}
			if r.Pod != (policy.Object{}) {
				line += " pod=" + r.Pod.Namespace + "/" + r.Pod.Name
			}
			if r.Interface != "" {
				line += " device=" + r.Interface
			}
			all = append(all, line)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// TestNoticesOfPolicyWriters: where the agent listens, nothing of what rules refuse is
// lost although nobody reads them before they are written anew.
func TestNoticesOfPolicyWriters(t *testing.T) {
	for _, w := range writers() {
		for _, backend := range w.backends {
			if backend == "legacy" {
				continue
			}
			t.Run(w.dir+" "+backend, func(t *testing.T) {
				kerneltest.Run(t, func(t *testing.T) { w.judgeNotices(t, backend) })
			})
		}
	}
}

func (w *writer) judgeNotices(t *testing.T, backend string) {
	f := ipv4()
	f.load(t, "nft")
	podDevices(t, &f)
	if w.whole && backend != backendsOwn {
		kerneltest.Exec(t, w.read(t, "ipset.save"), "ipset", "restore")
	}
	w.write(t, &f, backend, 1)
	s := listening(t)
	sendRefused(t, &f)
	w.write(t, &f, backend, 2)
	sendRefused(t, &f)
	if w.whole && backend != backendsOwn {
		w.write(t, &f, backend, 1)
	}
	sum := 0.0
	for labels, sent := range w.sent {
		reaches(t, s, 2*sent, "svcscope_drop_packets_total", append(strings.Fields(labels), "service_name=")...)
		sum += 2 * sent
	}
	reaches(t, s, sum, "svcscope_drop_packets_total")
	if !s.nft.notices.exact() {
		t.Error("it does not listen any more")
	}
}
