// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/svcscope/svcscope/hack/lab/labtest"
)

// snapshot is what a lab could leave behind on the host.
type snapshot struct {
	processes, namespaces, mounts []string
}

// take looks at the host. Of processes those count that carry the mark in
// their environment or command line.
func take(t *testing.T, mark string) snapshot {
	t.Helper()
	var s snapshot
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		env, _ := os.ReadFile(filepath.Join(p, "environ"))
		cmd, _ := os.ReadFile(filepath.Join(p, "cmdline"))
		if strings.Contains(string(env)+string(cmd), mark) {
			ns, _ := os.Readlink(filepath.Join(p, "ns", "net"))
			s.processes, s.namespaces = append(s.processes, string(cmd)), append(s.namespaces, ns)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	s.mounts = strings.Split(string(mounts), "\n")
	slices.Sort(s.mounts)
	return s
}

var counter = regexp.MustCompile(`(?m)^\[(\d+):\d+\] -A KUBE-SEP-\S+ .*"default/(\w+)(?::\w+)?".* -j DNAT`)

// dnat returns the packets of a Service's DNAT rules on the node.
func dnat(t *testing.T, lab *labtest.Lab, save, service string) int {
	t.Helper()
	sum := 0
	for _, m := range counter.FindAllStringSubmatch(lab.Exec("node1", save, "-c", "-t", "nat"), -1) {
		if m[2] != service {
			continue
		}
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}

// TestConnectionsAreRealAndCounted: N connections to a ClusterIP and M to a
// node port all succeed, and the kernel's own counters say N+M.
func TestConnectionsAreRealAndCounted(t *testing.T) {
	for _, backend := range []string{"nft", "legacy"} {
		t.Run(backend, func(t *testing.T) {
			before := take(t, "svcscope-lab-nothing")
			mark := ""
			t.Run("up", func(t *testing.T) {
				lab := labtest.Start(t, labtest.Options{Backend: backend})
				mark = lab.Info.State
				// init, supervisor, pods, etcd, kube-apiserver, kube-proxy.
				if now := take(t, mark); len(now.processes) < 8 {
					t.Errorf("processes of the lab: %q: the check below proves nothing", now.processes)
				}
				connections(t, lab)
			})
			if mark == "" {
				t.SkipNow()
			}
			after := take(t, mark)
			if len(after.processes) > 0 {
				t.Errorf("processes left: %q in %q", after.processes, after.namespaces)
			}
			if !slices.Equal(before.mounts, after.mounts) {
				t.Errorf("mounts on the host changed: %q, before %q", after.mounts, before.mounts)
			}
			if _, err := os.Stat(mark); err == nil {
				t.Errorf("state folder %s is left", mark)
			}
			if names, _ := filepath.Glob("/run/netns/node1"); len(names) > 0 {
				t.Errorf("names of namespaces left: %q", names)
			}
		})
	}
}

func connections(t *testing.T, lab *labtest.Lab) {
	web := lab.Expose("web", "--port", "80", "--port-name", "http", "--pods", "pod1,pod2,pod3", "--type", "NodePort")
	const n, m = 500, 300
	for _, f := range []struct {
		save, vip string
		v6        bool
	}{{"iptables-save", web.VIP4(), false}, {"ip6tables-save", web.VIP6(), true}} {
		total := 0
		for to, want := range map[string]int{f.vip: n, lab.NodePort(web.NodePort, f.v6): m} {
			r := lab.Load("client", to, want)
			if r.Succeeded != want || len(r.Answered) != 3 {
				t.Errorf("%d connections to %s: %+v", want, to, r)
			}
			total += want
		}
		if got := dnat(t, lab, f.save, "web"); got != total {
			t.Errorf("%s counts %d connections, want %d", f.save, got, total)
		}
	}
	changes(t, lab, web)
}

// changes follows a Service as its endpoints come and go.
func changes(t *testing.T, lab *labtest.Lab, web labtest.Service) {
	lab.Expose("web", "--port", "80", "--port-name", "http", "--pods", "pod2", "--type", "NodePort")
	if r := lab.Load("pod1", web.VIP4(), 20); r.Answered["pod2"] != 20 {
		t.Errorf("20 connections to the only endpoint: %+v", r)
	}
	// Back through the bridge to where it came from.
	if r := lab.Load("pod2", web.VIP6(), 20); r.Answered["pod2"] != 20 || len(r.Seen) != 1 {
		t.Errorf("20 connections of a pod to itself: %+v", r)
	}
	lab.Expose("web", "--port", "80", "--port-name", "http", "--pods", "none", "--type", "NodePort")
	if r := lab.Load("client", web.VIP4(), 20); r.Refused != 20 {
		t.Errorf("20 connections to no endpoint: %+v", r)
	}
	lab.Unexpose("web")
	if out := lab.Exec("node1", "iptables-save"); strings.Contains(out, "default/web") {
		t.Errorf("rules of a removed Service:\n%s", out)
	}
	dns := lab.Expose("dns", "--namespace", "kube-system", "--protocol", "udp", "--port", "53", "--pods", "pod1,pod3")
	for _, to := range []string{dns.VIP4(), dns.VIP6()} {
		if r := lab.Load("node1", to, 50, "--proto", "udp"); r.Succeeded != 50 {
			t.Errorf("50 datagrams to %s: %+v", to, r)
		}
	}
}

func TestNFTablesModeServes(t *testing.T) {
	lab := labtest.Start(t, labtest.Options{ProxyMode: "nftables", Scene: "demo"})
	for _, to := range []string{"10.96.0.80:80", "[fd00:10:96::80]:80", lab.NodePort(30080, false), lab.NodePort(30080, true)} {
		if r := lab.Load("client", to, 100); r.Succeeded != 100 {
			t.Errorf("100 connections to %s: %+v", to, r)
		}
	}
}

// TestRulesFromFileServe needs no binaries of the control plane.
func TestRulesFromFileServe(t *testing.T) {
	lab := labtest.Start(t, labtest.Options{Rules: "scenes/demo.v4.rules"})
	for _, to := range []string{"10.96.0.80:80", "[fd00:10:96::80]:80", lab.NodePort(30080, false), lab.NodePort(30080, true)} {
		if r := lab.Load("client", to, 100); r.Succeeded != 100 {
			t.Errorf("100 connections to %s: %+v", to, r)
		}
	}
	caps := lab.StartWith([]string{"--caps=net_admin"}, "node1", "grep", "-E", "^(Cap|NoNewPrivs)", "/proc/self/status")
	<-caps.Done()
	for _, want := range []string{"CapInh:\t0000000000000000", "CapEff:\t0000000000001000", "CapBnd:\t0000000000001000", "NoNewPrivs:\t1"} {
		if !strings.Contains(caps.Output(), want) {
			t.Errorf("with net_admin alone: no %q in\n%s", want, caps.Output())
		}
	}
	sleeper := lab.StartProcess("pod1", "sh", "-c", "echo there; exec sleep 1000")
	sleeper.WaitOutput(t, "there")
	if err := sleeper.Stop(); err == nil || !strings.Contains(err.Error(), "143") {
		t.Errorf("sleep after SIGTERM: %v, want exit status 143", err)
	}
}
