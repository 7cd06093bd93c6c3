// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	timo "github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/internal/kernelflows"
	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/service"
)

// BenchmarkFlows measures one reading of a table: the bare dump, of which no
// byte is looked at, the agent's, conntrack -L and the Dump of ti-mo/conntrack.
// SVCSCOPE_BENCH_ENTRIES is how many entries there are, one number or more. More
// than the host allows take SVCSCOPE_TEST_HOST_SYSCTL=1, which raises the limit
// and the hash table of all namespaces and sets them back.
func BenchmarkFlows(b *testing.B) {
	for size := range strings.FieldsSeq(cmp.Or(os.Getenv("SVCSCOPE_BENCH_ENTRIES"), "20000")) {
		n, err := strconv.Atoi(size)
		if err != nil {
			b.Fatal(err)
		}
		for _, p := range flowPopulations {
			b.Run(fmt.Sprintf("%s/entries=%d", p.name, n), func(b *testing.B) {
				if os.Getenv("SVCSCOPE_TEST_HOST_SYSCTL") == "1" {
					raiseConntrack(b, n)
				}
				kerneltest.RunB(b, func(b *testing.B) {
					if most := kernelflows.Limit(b); n > most {
						b.Skipf("the host's limit leaves room for %d entries: SVCSCOPE_TEST_HOST_SYSCTL=1 raises it", most)
					}
					s := &flowScene{costScene: costScene{B: b}, entries: kernelflows.Fill(b, n, p.numbered), owner: p.owner}
					for b.Loop() {
						s.measure()
					}
				})
			})
		}
	}
}

// flowPopulations are what a table is filled with: connections to 1,000 Services, and
// a pod's to as many destinations as there are entries, where nothing that is found
// out of one helps with another.
var flowPopulations = []struct {
	name     string
	numbered func(int) kernelflows.Flow
	owner    correlate.Owner
}{
	{"services", kernelflows.Numbered, correlate.OwnerService},
	{"egress", kernelflows.Egress, correlate.OwnerUnknown},
}

// raiseConntrack makes room for n entries in one namespace, in the first
// namespace, where alone the limits can be set.
func raiseConntrack(b *testing.B, n int) {
	const limit, buckets = "/proc/sys/net/nf_conntrack_max", "/proc/sys/net/netfilter/nf_conntrack_buckets"
	if _, err := os.Stat(limit); err != nil {
		return // this is the child, in its own namespace
	}
	for path, want := range map[string]int{limit: n/9*10 + 10, buckets: n / 4} {
		text, err := os.ReadFile(path)
		if err != nil {
			b.Fatal(err)
		}
		if have, _ := strconv.Atoi(strings.TrimSpace(string(text))); have >= want {
			continue // it is only ever raised
		}
		if err := os.WriteFile(path, []byte(strconv.Itoa(want)), 0); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			if err := os.WriteFile(path, text, 0); err != nil {
				b.Errorf("set %s back to %s: %v", path, text, err)
			}
		})
	}
}

// flowScene is a namespace with a table of entries.
type flowScene struct {
	costScene
	entries int
	owner   correlate.Owner // of all of them
}

func (s *flowScene) measure() {
	samples := 5
	if s.entries > 300_000 {
		samples = 3
	}
	s.report("bare", s.median(samples, 1, nil, s.bareFlows))
	r, err := kernel.OpenConntrack()
	if err != nil {
		s.Fatal(err)
	}
	defer r.Close()
	catalog := flowServices()
	runtime.GC()
	before := heapMiB()
	c := &correlate.FlowCounter{}
	s.read(r, c, catalog) // the index, buffers
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	allocated := m.TotalAlloc
	s.report("agent", s.median(samples, 1, nil, func() { s.read(r, c, catalog) }))
	runtime.ReadMemStats(&m)
	runtime.GC()
	s.ReportMetric(float64(m.TotalAlloc-allocated)/float64(samples)/(1<<20), "agent-allocated-MiB")
	s.ReportMetric(heapMiB()-before, "agent-heap-MiB")
	s.report("conntrack", s.median(samples, 1, nil, func() { s.children("conntrack", "-L") }))
	s.report("timo", s.median(min(samples, 3), 1, nil, s.timo))
	runtime.GC()
}

// read is one reading as the agent makes it.
func (s *flowScene) read(r *kernel.Conntrack, c *correlate.FlowCounter, catalog *service.Catalog) {
	c.Begin(correlate.FlowInputs{Catalog: catalog}, time.Now())
	d, err := r.Flows(s.Context(), kernel.FlowFilter{}, c.Add)
	if got := c.End(); err != nil || int(d.Entries) != s.entries || got.Owners[s.owner] != uint64(s.entries) {
		s.Fatalf("%+v, %v: %+v", d, err, got.Owners)
	}
}

// flowServices are those of kernelflows.Numbered.
func flowServices() *service.Catalog {
	c := &service.Catalog{Synced: true, Endpoints: make(map[service.PortName][]service.Endpoint), Node: service.Node{Name: "node-a"}}
	for i := range 1000 {
		f := kernelflows.Numbered(i)
		svc := &service.Service{
			Name: service.Name{Namespace: "ns", Name: fmt.Sprintf("svc-%04d", i)}, ClusterIPs: []netip.Addr{f.Dst.Addr()},
			Ports: []service.Port{{Protocol: service.TCP, Port: f.Dst.Port()}},
		}
		c.Services = append(c.Services, svc)
		for e := range uint16(3) {
			name := svc.PortName(&svc.Ports[0])
			c.Endpoints[name] = append(c.Endpoints[name], service.Endpoint{Addr: netip.AddrPortFrom(f.From.Addr(), 8080+e)})
		}
	}
	return c
}

// bareFlows receives a dump and looks for its end alone.
func (s *flowScene) bareFlows() {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		s.Fatal(err)
	}
	defer unix.Close(fd)
	const header = 16
	ask := binary.NativeEndian.AppendUint32(nil, header+4)
	ask = binary.NativeEndian.AppendUint16(ask, unix.NFNL_SUBSYS_CTNETLINK<<8|1) // IPCTNL_MSG_CT_GET
	ask = binary.NativeEndian.AppendUint16(ask, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	ask = append(ask, make([]byte, 12)...)
	if err := unix.Sendto(fd, ask, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		s.Fatal(err)
	}
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil || n < header {
			s.Fatalf("%d bytes, %v", n, err)
		}
		if binary.NativeEndian.Uint16(buf[4:]) == unix.NLMSG_DONE {
			return
		}
	}
}

func (s *flowScene) timo() {
	c, err := timo.Dial(nil)
	if err != nil {
		s.Fatal(err)
	}
	defer c.Close()
	if all, err := c.Dump(nil); err != nil || len(all) != s.entries {
		s.Fatalf("%d flows, %v", len(all), err)
	}
}
