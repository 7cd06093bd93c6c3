// SPDX-License-Identifier: Apache-2.0

package kubeproxy_test

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/internal/kernelrules"
	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

var update = flag.Bool("update", false, "write the golden files of the nftables mode anew")

const updateEnv = "SVCSCOPE_UPDATE_GOLDEN"

// loadable is what `nft list ruleset` printed, as nft takes it: of a map of addresses and
// ports nft 1.0.6 does not print that it is one.
var loadable = strings.NewReplacer("dnat ip to numgen", "dnat ip addr . port to numgen", "dnat ip6 to numgen", "dnat ip6 addr . port to numgen")

// loadNative loads rules of the nftables mode from a file.
func loadNative(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	kerneltest.Exec(t, loadable.Replace(string(text)), "nft", "-f", "-")
}

// TestNativeViews of what kube-proxy writes: that of 1.37.2 as it was captured, and of this
// and earlier releases what their own tests expect.
func TestNativeViews(t *testing.T) {
	const captured = "kube-proxy-1.37.2/nftables.nft"
	tests := []struct {
		file, golden string
		family       netfilter.Family
	}{
		{captured, "nftables/captured.ipv4.view", netfilter.IPv4},
		{captured, "nftables/captured.ipv6.view", netfilter.IPv6},
		{"nftables/kubernetes-1.30.14.ipv4.nft", "nftables/kubernetes-1.30.14.ipv4.view", netfilter.IPv4},
		{"nftables/kubernetes-1.33.5.ipv4.nft", "nftables/kubernetes-1.33.5.ipv4.view", netfilter.IPv4},
		{"nftables/kubernetes-1.37.2.ipv4.nft", "nftables/kubernetes-1.37.2.ipv4.view", netfilter.IPv4},
		{"nftables/kubernetes-1.37.2.ipv6.nft", "nftables/kubernetes-1.37.2.ipv6.view", netfilter.IPv6},
	}
	for _, tt := range tests {
		t.Run(tt.golden, func(t *testing.T) {
			if *update { // the other process is not told of flags
				t.Setenv(updateEnv, "1")
			}
			kerneltest.Run(t, func(t *testing.T) {
				loadNative(t, tt.file)
				v := kubeproxy.NewNativeView(kernelrules.Mirrored(t, tt.family))
				if !v.Recognised() || !v.Prerouting || !v.Output || v.Backend != kubeproxy.Native || v.Family != tt.family {
					t.Errorf("recognised %v, prerouting %v, output %v, %s %v", v.Recognised(), v.Prerouting, v.Output, v.Backend, v.Family)
				}
				if len(v.Native.Undecoded) != 0 {
					t.Errorf("not understood: %v", v.Native.Undecoded)
				}
				goldenNative(t, tt.golden, describeNative(v))
			})
		})
	}
}

func goldenNative(t *testing.T, file string, got []string) {
	t.Helper()
	file = "testdata/" + file
	if os.Getenv(updateEnv) != "" {
		if err := os.WriteFile(file, []byte(strings.Join(got, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(strings.Split(strings.TrimSpace(string(text)), "\n"), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", file, d)
	}
}

// describeNative is all that a view says, in words.
func describeNative(v *kubeproxy.View) []string {
	n := v.Native
	out := []string{
		fmt.Sprintf("cluster IPs %v", n.ClusterIPs), fmt.Sprintf("node port IPs %v, any %v", n.NodePortIPs, n.AnyNodePortIP),
		fmt.Sprintf("marks %v, masquerades %v, dispatch rules %d", n.Marks, n.Masquerades, v.DispatchRules),
	}
	var lines []string
	for _, d := range v.Dispatch {
		lines = append(lines, fmt.Sprintf("dispatch %s to %s of %s by %s", frontendOf(d.Frontend), kindNames[d.Target], portOf(d.Hash, v), d.Chain.Name))
	}
	for _, r := range v.Refusals {
		lines = append(lines, fmt.Sprintf("refusal %s %s of %s %s in %s, %s %d", frontendOf(r.Frontend), r.Reason, r.Name, r.Name.Protocol, r.Chain.Name, r.Hooks, r.Priority))
	}
	for hash, p := range v.Ports {
		lines = append(lines, describeNativePort(v, hash, p)...)
	}
	slices.Sort(lines)
	return append(out, lines...)
}

var kindNames = map[kubeproxy.Kind]string{
	kubeproxy.KindService: "service", kubeproxy.KindLocal: "local", kubeproxy.KindExternal: "external", kubeproxy.KindFirewall: "firewall",
}

func portOf(hash string, v *kubeproxy.View) string {
	p := v.Ports[hash]
	if p == nil || p.Hash != hash || !p.Named || kubeproxy.Hash(p.Name) != hash {
		return "?"
	}
	return p.Name.String() + " " + string(p.Name.Protocol)
}

func frontendOf(f kubeproxy.Frontend) string {
	kinds := map[kubeproxy.FrontendKind]string{
		kubeproxy.ClusterIP: "cluster", kubeproxy.ExternalIP: "external", kubeproxy.LoadBalancerIP: "loadbalancer", kubeproxy.NodePort: "nodeport",
	}
	if f.Kind == kubeproxy.NodePort {
		return fmt.Sprintf("%s %d/%s", kinds[f.Kind], f.Port, f.Protocol)
	}
	return fmt.Sprintf("%s %s:%d/%s", kinds[f.Kind], f.Addr, f.Port, f.Protocol)
}

func describeNativePort(v *kubeproxy.View, hash string, p *kubeproxy.PortChains) []string {
	name := "port " + portOf(hash, v)
	var chains []string
	for kind, c := range map[kubeproxy.Kind]*ruleset.Chain{
		kubeproxy.KindService: p.Service, kubeproxy.KindLocal: p.Local, kubeproxy.KindExternal: p.External, kubeproxy.KindFirewall: p.Firewall,
	} {
		if c != nil {
			chains = append(chains, kindNames[kind])
			if c.Name != kubeproxy.NativeChain(kind, p.Name) {
				chains = append(chains, "and its name is none: "+c.Name)
			}
		}
	}
	slices.Sort(chains)
	var endpoints []string
	for _, e := range p.Endpoints {
		text := e.Addr.String()
		if e.Chain != "" {
			text += fmt.Sprintf(" by a chain of %d rules", len(e.SEP.Rules))
		}
		endpoints = append(endpoints, text)
	}
	costs := v.RulesByPort()
	out := []string{fmt.Sprintf("%s: chains %s; endpoints %s; %+v", name, strings.Join(chains, " "), strings.Join(endpoints, ", "), costs[hash])}
	for kind, b := range map[string]kubeproxy.Balance{"cluster": p.Native.Cluster, "local": p.Native.Local} {
		if b.Shares+uint32(len(b.Returning)) > 0 {
			out = append(out, fmt.Sprintf("%s: %s: one of %d %v, returning %v for %v, marks %v", name, kind, b.Shares, b.To, b.Returning, b.Affinity, b.Marks))
		}
	}
	if p.Native.Sources != nil {
		out = append(out, fmt.Sprintf("%s: from %v", name, p.Native.Sources))
	}
	return out
}

// TestNativeViewFollows what changes, and keeps what does not.
func TestNativeViewFollows(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		loadNative(t, "nftables/kubernetes-1.37.2.ipv4.nft")
		v := kubeproxy.NewNativeView(kernelrules.Mirrored(t, netfilter.IPv4))
		version, before := v.Version, maps.Clone(v.Ports)
		changed := v.Ports[kubeproxy.Hash(portName("ns4", "svc4"))]
		if changed == nil || len(changed.Endpoints) != 2 {
			t.Fatalf("svc4 is %+v", changed)
		}
		// One endpoint goes: as many rules are in the chain as before.
		kerneltest.Exec(t, strings.ReplaceAll(`flush chain ip kube-proxy CHAIN
add rule ip kube-proxy CHAIN meta l4proto tcp dnat to 10.180.0.5:80
`, "CHAIN", kubeproxy.NativeChain(kubeproxy.KindService, portName("ns4", "svc4"))), "nft", "-f", "-")
		v.UpdateNative(kernelrules.Mirrored(t, netfilter.IPv4))
		now := v.Ports[changed.Hash]
		if v.Version <= version || len(now.Endpoints) != 1 || now.Endpoints[0].Addr.String() != "10.180.0.5:80" || now.Native.Cluster.Shares != 1 {
			t.Errorf("svc4 is %+v, %+v", now, now.Native)
		}
		if len(v.Ports) != len(before) {
			t.Errorf("%d ports, were %d", len(v.Ports), len(before))
		}
		kerneltest.Exec(t, "", "nft", "delete", "table", "ip", "kube-proxy")
		v.UpdateNative(kernelrules.Mirrored(t, netfilter.IPv4))
		if v.Present || v.Recognised() || len(v.Ports)+len(v.Dispatch)+len(v.Refusals) != 0 {
			t.Errorf("after the table: %+v", v)
		}
	})
}
