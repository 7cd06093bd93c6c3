// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/svcscope/svcscope/pkg/internal/iptsave"
	"github.com/svcscope/svcscope/pkg/internal/realcluster"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

var update = flag.Bool("update", false, "write the expected files")

// noon is when snapshots of tests were made, in the node's zone.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.FixedZone("", 3600))

// realSnapshot is a node of the lab, with the rules of some backends.
func realSnapshot(t testing.TB, backends ...ruleset.Backend) *Snapshot {
	t.Helper()
	c, err := realcluster.Catalog()
	if err != nil {
		t.Fatal(err)
	}
	n := &Node{
		Name: "node1", Time: noon, Kernel: "6.18.0", Catalog: c, Unread: map[ruleset.Backend]string{},
		Sysctls: map[string]string{"net.ipv4.ip_forward": "1", "net.ipv4.ip_local_port_range": "32768 60999"},
		Flows: []FlowTally{
			{Protocol: 6, To: netip.MustParseAddrPort("10.96.0.10:80"), From: netip.MustParseAddrPort("10.244.1.2:8080"), Entries: 3, Unreplied: 1, Closing: 1},
			{Protocol: 17, To: netip.MustParseAddrPort("[fd00:10:96::a]:53"), From: netip.MustParseAddrPort("[fd00:10:244::7]:53"), Entries: 1 << 40},
		},
	}
	for _, r := range realcluster.All() {
		for _, b := range backends {
			if r.Backend != b {
				continue
			}
			set, err := r.Set()
			if err != nil {
				t.Fatal(err)
			}
			set.Generation = 17
			n.Rules = append(n.Rules, Rules{Set: set})
		}
	}
	return &Snapshot{Node: n, Version: "1.2.3", Reports: map[string]json.RawMessage{}}
}

// smallSnapshot has one of each thing, in few bytes.
func smallSnapshot(t testing.TB) *Snapshot {
	t.Helper()
	web := service.PortName{Name: service.Name{Namespace: "shop", Name: "web"}, Port: "http", Protocol: service.TCP}
	at := netip.MustParseAddrPort("10.77.0.2:8080")
	svc, sep := kubeproxy.ServiceChain(web), kubeproxy.EndpointChain(web, at)
	set, err := iptsave.Parse(netfilter.IPv4, ruleset.NFT, `*nat
:PREROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:`+svc+` - [0:0]
:`+sep+` - [0:0]
[3:180] -A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
[3:180] -A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m comment --comment "shop/web:http cluster IP" -m tcp --dport 80 -j `+svc+`
[2:120] -A `+svc+` -m comment --comment "shop/web:http -> 10.77.0.2:8080" -m recent --rcheck --seconds 10800 --reap --name `+sep+` --mask 255.255.255.255 --rsource -j `+sep+`
[1:60] -A `+sep+` -s 10.77.0.2/32 -m comment --comment "shop/web:http" -j KUBE-MARK-MASQ
[2:120] -A `+sep+` -p tcp -m comment --comment "shop/web:http" -m recent --set --name `+sep+` --mask 255.255.255.255 --rsource -m tcp -j DNAT --to-destination 10.77.0.2:8080
COMMIT
`)
	if err != nil {
		t.Fatal(err)
	}
	nat := set.Table("nat")
	nat.Handle, nat.Maps = 3, map[string][]string{"leads": {"KUBE-SERVICES"}}
	nat.Chains[0].Base.Priority = -100
	nat.Chains[0].Rules[0].Handle, nat.Chains[1].Handle, nat.Chains[1].Use = 9, 2, 4
	return &Snapshot{
		Version: "1.2.3",
		Node: &Node{
			Name: "node-a", Time: noon, Kernel: "6.18.0", IPVS: true, NodeMissing: true, KubeError: "nodes is forbidden",
			Rules:  []Rules{{Set: set, NFTablesMode: true}},
			Unread: map[ruleset.Backend]string{ruleset.Legacy: "needs CAP_NET_ADMIN"},
			Catalog: &service.Catalog{
				Synced: true, Version: 7,
				Node: service.Node{
					Name: "node-a", Zone: "zone-1", IPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
					PodRanges: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/24")},
				},
				Services: []*service.Service{{
					Name: web.Name, Type: "ClusterIP", ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.10")},
					ClientIPAffinity: true, AffinitySeconds: 10800, UID: "u-1",
					Ports: []service.Port{{Name: "http", Protocol: service.TCP, Port: 80}},
				}},
				Endpoints: map[service.PortName][]service.Endpoint{
					web: {{Addr: at, Ready: true, Serving: true, NodeName: "node-b", Zone: "zone-2", ForZones: []string{"zone-1"}}},
				},
			},
			Flows:   []FlowTally{{Protocol: 6, To: netip.MustParseAddrPort("10.96.0.10:80"), From: at, Entries: 3, Unreplied: 1, Closing: 1}},
			Sysctls: map[string]string{"net.ipv4.ip_forward": "1"},
		},
		Reports:    map[string]json.RawMessage{"services": json.RawMessage(`{"node":"node-a","source":"agent","items":[]}`)},
		Unreported: map[string]string{"drops": "503 Service Unavailable"},
	}
}

// comparison compares snapshots by what they say.
func comparison() cmp.Options {
	return cmp.Options{
		cmpopts.EquateEmpty(), cmpopts.IgnoreUnexported(ruleset.Table{}, ruleset.Chain{}),
		cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{}),
		cmp.Transformer("api", func(c *service.Catalog) *wireAPI {
			if c == nil {
				return nil
			}
			return new(newWireAPI(c))
		}),
		cmp.AllowUnexported(wireService{}, wirePort{}),
		cmp.FilterValues(func(a, b map[string]json.RawMessage) bool { return len(a)+len(b) > 0 },
			cmp.Transformer("texts", func(all map[string]json.RawMessage) map[string]string {
				texts := make(map[string]string)
				for name, b := range all {
					texts[name] = string(bytes.TrimSpace(b))
				}
				return texts
			})),
	}
}

// written is the file of a snapshot.
func written(t testing.TB, s *Snapshot) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, s); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// entry is one of a file's entries.
type entry struct {
	name string
	text string
}

// unpacked lists the entries of a file.
func unpacked(t testing.TB, file []byte) []entry {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	var all []entry
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, entry{h.Name, string(text)})
	}
}

// packed makes a file of entries.
func packed(t testing.TB, all ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, e := range all {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: e.name, Size: int64(len(e.text)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.text); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
