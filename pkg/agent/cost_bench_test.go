// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/internal/kernelrules"
	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/service"
)

// BenchmarkCost measures one ruleset at a time: what the tool that prints it
// costs, what the bare reading costs, and what a whole sampling of the agent
// costs, with nothing that has happened since the last one and with more and
// more. hack/ratios makes the tables of docs/performance.md and the gates of
// `make bench` from these figures. SVCSCOPE_BENCH_SERVICES is how many Services
// there are, one number or more; SVCSCOPE_BENCH_RULES selects "nft/IPv4" and
// the like.
func BenchmarkCost(b *testing.B) {
	sizes := strings.Fields(cmp.Or(os.Getenv("SVCSCOPE_BENCH_SERVICES"), "100"))
	rules := strings.FieldsSeq(cmp.Or(os.Getenv("SVCSCOPE_BENCH_RULES"), "nft/IPv4 nft/IPv6 legacy/IPv4 legacy/IPv6"))
	for which := range rules {
		for _, size := range sizes {
			n, err := strconv.Atoi(size)
			if err != nil {
				b.Fatal(err)
			}
			backend, family, _ := strings.Cut(which, "/")
			m := kernelrules.Many{Family: netfilter.IPv4, Services: n}
			if family == "IPv6" {
				m.Family = netfilter.IPv6
			}
			b.Run(fmt.Sprintf("%s/services=%d", which, n), func(b *testing.B) {
				kerneltest.RunB(b, func(b *testing.B) {
					s := newCostScene(b, backend, m)
					for b.Loop() {
						s.measure()
					}
				})
			})
		}
	}
}

// costScene is a node with the rules of many Services.
type costScene struct {
	*testing.B
	kernelrules.Many
	backend string
	prefix  string // iptables or ip6tables
	sampler *sampler
	api     *fakeWatcher
	less    bool // Service 0 has an endpoint less than at first
	// syncs are what kube-proxy writes when Service 0 has so many endpoints:
	// made once, so that they leave no garbage.
	syncs map[int]string
}

func newCostScene(b *testing.B, backend string, m kernelrules.Many) *costScene {
	limitGarbage() // as Run does
	s := &costScene{B: b, Many: m, backend: backend, prefix: "iptables"}
	own, next := netip.MustParsePrefix("192.0.2.1/24"), netip.MustParseAddr("192.0.2.2")
	ip := func(args ...string) { kerneltest.Exec(b, "", "ip", args...) }
	ip("link", "add", "d0", "type", "veth", "peer", "name", "d1")
	ip("link", "set", "d0", "up")
	ip("link", "set", "d1", "up")
	if m.Family == netfilter.IPv6 {
		s.prefix, own, next = "ip6tables", netip.MustParsePrefix("fc00::1/64"), netip.MustParseAddr("fc00::2")
		ip("addr", "add", own.String(), "dev", "d0", "nodad")
	} else {
		ip("addr", "add", own.String(), "dev", "d0")
	}
	// Packets to a Service go nowhere, but past the rules.
	ip("neigh", "add", next.String(), "lladdr", "02:00:00:00:00:01", "dev", "d0", "nud", "permanent")
	ip("route", "add", m.Network().String(), "via", next.String(), "dev", "d0", "onlink")
	kerneltest.Exec(s, string(m.All()), s.prefix+"-"+backend+"-restore")
	return s
}

// measure reports all figures of the scene.
func (s *costScene) measure() {
	save := s.prefix + "-" + s.backend + "-save"
	s.report("save", s.median(5, 1, nil, func() { s.children(save, "-c") }))
	s.report("bare", s.median(5, 1, nil, s.bare()))
	if s.backend == "nft" {
		s.report("barechange", s.median(5, 1, nil, s.bareChange))
	}
	if warm := s.warm(); warm != nil {
		warm()
		s.report("warm", s.median(5, 1, nil, warm))
	}
	s.api = newFakeWatcher()
	s.api.catalog, s.api.state = s.listed(), apiState{Synced: true, Current: true}
	var kept float64
	s.report("first", s.median(3, 1, func() { kept = s.begin() }, s.pass))
	runtime.GC()
	s.ReportMetric(heapMiB()-kept, "heap-MiB")
	s.pass() // what moved while it was first read
	s.report("idle", s.median(5, max(1, 2000/s.Services), nil, s.pass))
	for _, percent := range []int{1, 10, 100} {
		if s.Services*percent > 1000000 {
			continue // the kernel passes 10^8 rules for that
		}
		s.report(fmt.Sprintf("active%d", percent), s.median(5, 1, func() { s.connect(percent) }, s.pass))
		s.pass()
		s.pass() // the one before looked again at what had moved
	}
	s.report("changed", s.median(9, 1, s.change, s.pass))
	if got := s.sampler.latest.Load(); len(got.Services) != s.Services || got.Services[0].KernelCount < 2 {
		s.Fatalf("%d rows, the first %+v", len(got.Services), got.Services[0])
	}
}

// begin makes another agent and returns the heap in use before.
func (s *costScene) begin() float64 {
	if s.sampler != nil {
		s.close()
	}
	s.sampler = nil
	runtime.GC()
	kept := heapMiB()
	cfg := DefaultConfig()
	cfg.NodeName, cfg.MaxServices, cfg.MaxRules = "node-a", s.Services, 0
	s.sampler = newSampler(cfg, thisHost(), newKube(cfg, func() (watcher, error) { return s.api, nil }))
	if err := s.sampler.kube.check(); err != nil {
		s.Fatal(err)
	}
	return kept
}

func (s *costScene) close() {
	if err := s.sampler.close(); err != nil {
		s.Fatal(err)
	}
}

func (s *costScene) pass() {
	for _, f := range s.sampler.legacy.known { // as after an interval: nothing was read just before
		for _, l := range f.looks {
			l.read = time.Time{}
		}
	}
	s.sampler.pass(s.Context())
}

// change is what happens when Service 0 gets an endpoint, or loses one.
func (s *costScene) change() {
	s.less = !s.less
	n := kernelrules.EndpointsEach
	if s.less {
		n--
	}
	if s.syncs == nil {
		s.syncs = make(map[int]string)
	}
	if s.syncs[n] == "" {
		s.syncs[n] = string(s.Sync(0, n))
	}
	kerneltest.Exec(s, s.syncs[n], s.prefix+"-"+s.backend+"-restore", "-w", "5", "--noflush", "--counters")
	s.api.mu.Lock()
	defer s.api.mu.Unlock()
	s.api.catalog = s.api.catalog.Next(&service.Change{Node: s.api.catalog.Node, Endpoints: s.endpoints(0, n)})
}

// listed is the API's picture once it has been listed.
func (s *costScene) listed() *service.Catalog {
	all := s.Catalog(-1, 0)
	ch := service.Change{Node: all.Node, Services: make(map[service.Name]*service.Service), Endpoints: make(map[service.Name][]service.PortEndpoints)}
	for _, svc := range all.Services {
		ch.Services[svc.Name] = svc
	}
	for i := range s.Services {
		maps.Copy(ch.Endpoints, s.endpoints(i, kernelrules.EndpointsEach))
	}
	return (&service.Catalog{}).Next(&ch)
}

// endpoints are the first n endpoints of Service i, as the API has them.
func (s *costScene) endpoints(i, n int) map[service.Name][]service.PortEndpoints {
	port := service.PortEndpoints{Port: s.Port(i).Port, Protocol: s.Port(i).Protocol}
	for e := range n {
		port.Endpoints = append(port.Endpoints, service.Endpoint{Addr: s.Endpoint(i, e), Ready: true, Serving: true})
	}
	return map[service.Name][]service.PortEndpoints{s.Port(i).Name: {port}}
}

// connect opens one connection to so many of a hundred Services.
func (s *costScene) connect(percent int) {
	domain := unix.AF_INET
	if s.Family == netfilter.IPv6 {
		domain = unix.AF_INET6
	}
	for i := 0; i < s.Services; i += 100 / percent {
		fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			s.Fatal(err)
		}
		to := s.Address(i)
		var addr unix.Sockaddr = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
		if domain == unix.AF_INET {
			addr = &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
		}
		if err := unix.Connect(fd, addr); err != nil && !errors.Is(err, unix.EINPROGRESS) {
			s.Fatal(err)
		}
		if err := unix.Close(fd); err != nil {
			s.Fatal(err)
		}
	}
}

// figures is what one piece of work took.
type figures struct{ cpu, sys, wall time.Duration }

// median is that of each figure over several samples; one is the mean of so
// many repetitions, of each of which prepare comes first and does not count.
func (s *costScene) median(samples, repeat int, prepare, work func()) figures {
	var cpu, sys, wall []time.Duration
	for range samples {
		var sum figures
		for range repeat {
			if prepare != nil {
				prepare()
			}
			before, begin := s.used(), time.Now()
			work()
			sum.wall += time.Since(begin)
			after := s.used()
			sum.cpu += after.cpu - before.cpu
			sum.sys += after.sys - before.sys
		}
		n := time.Duration(repeat)
		cpu, sys, wall = append(cpu, sum.cpu/n), append(sys, sum.sys/n), append(wall, sum.wall/n)
	}
	middle := func(ds []time.Duration) time.Duration { slices.Sort(ds); return ds[len(ds)/2] }
	return figures{middle(cpu), middle(sys), middle(wall)}
}

// used is the CPU time of this process and of those that it has waited for.
func (s *costScene) used() figures {
	var f figures
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var r unix.Rusage
		if err := unix.Getrusage(who, &r); err != nil {
			s.Fatal(err)
		}
		f.sys += time.Duration(r.Stime.Nano())
		f.cpu += time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	return f
}

func (s *costScene) report(name string, f figures) {
	for unit, d := range map[string]time.Duration{"cpu": f.cpu, "sys": f.sys, "wall": f.wall} {
		s.ReportMetric(float64(d)/float64(time.Millisecond), name+"-"+unit+"-ms")
	}
}

// children runs a tool and throws away what it prints.
func (s *costScene) children(name string, args ...string) {
	if err := exec.Command(kerneltest.NeedTool(s, name), args...).Run(); err != nil {
		s.Fatal(err)
	}
}

func heapMiB() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / (1 << 20)
}
