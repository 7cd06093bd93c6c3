// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/capture"
	"github.com/svcscope/svcscope/pkg/internal/iptsave"
	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/conntrack"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// TestReadNode reads real rules and entries, and compares the rules with what
// iptables-save prints of them, counters and endpoints' chains too.
func TestReadNode(t *testing.T) {
	eachScene(t, func(t *testing.T, backend string, f family) {
		f.serve(t)
		connect(t, f.cluster(), 7)
		connect(t, f.external(), 4)
		tables := func() string {
			v4, _ := os.ReadFile("/proc/net/ip_tables_names")
			v6, _ := os.ReadFile("/proc/net/ip6_tables_names")
			return string(v4) + string(v6)
		}
		was := tables()
		n, err := ReadNode(t.Context(), testConfig())
		if err != nil {
			t.Fatal(err)
		}
		if is := tables(); is != was {
			t.Errorf("reading has made tables: %q, and then %q", was, is)
		}
		if n.Name != "node-a" || n.Kernel == "" || n.Time.IsZero() || len(n.Unread) > 0 || n.Catalog != nil || n.KubeError != "" || n.FlowsError != "" {
			t.Errorf("the node is %+v", n)
		}
		var set *ruleset.Ruleset
		var order []string
		for _, r := range n.Rules {
			order = append(order, string(r.Set.Backend)+" "+r.Set.Family.String())
			if string(r.Set.Backend) == backend && r.Set.Family.String() == f.name {
				set = r.Set
			}
		}
		if d := cmp.Diff([]string{"nft IPv4", "legacy IPv4", "nft IPv6", "legacy IPv6"}, order); d != "" {
			t.Errorf("rules (-want +got):\n%s", d)
		}
		want := iptsave.Normalize(kerneltest.Exec(t, "", f.iptables+"-"+backend+"-save", "-c"))
		// iptables-nft-save prints built-in chains that are not there.
		builtIn := regexp.MustCompile(`(?m)^:[A-Z]+ ACCEPT .*\n`)
		if d := cmp.Diff(builtIn.ReplaceAllString(want, ""), builtIn.ReplaceAllString(iptsave.Format(set), "")); d != "" {
			t.Errorf("rules (-iptables-save +got):\n%s", d)
		}
		f.checkFlows(t, n.Flows)
		if forward, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward"); err != nil || n.Sysctls["net.ipv4.ip_forward"] != strings.TrimSpace(string(forward)) {
			t.Errorf("sysctls %v, want ip_forward %s %v", n.Sysctls, forward, err)
		}
	})
}

// checkFlows looks for the connections of TestReadNode, all of which are reset.
func (f *family) checkFlows(t *testing.T, flows []capture.FlowTally) {
	t.Helper()
	sums := map[netip.AddrPort]uint64{}
	for _, flow := range flows {
		if flow.Protocol != 6 || flow.From != f.endpoints[0] && flow.From != f.endpoints[1] {
			t.Errorf("entries of nobody: %+v", flow)
		}
		if flow.Closing != flow.Entries || flow.Unreplied != 0 {
			t.Errorf("%+v: want all closing", flow)
		}
		sums[flow.To] += flow.Entries
	}
	if sums[f.cluster()] != 7 || sums[f.external()] != 4 || len(sums) != 2 {
		t.Errorf("entries by destination: %v, want 7 to %v and 4 to %v", sums, f.cluster(), f.external())
	}
}

// nodeSampler reads nf_tables from nft and entries from c, and has no legacy.
func nodeSampler(nft *fakeNFTables, c *fakeConntrack, w watcher) *sampler {
	s := fakeSampler(&fakeBackend{answers: []answer{{set: emptyRules(), err: errNoHost}}}, w, nil)
	s.host.sysctls = func() map[string]string { return map[string]string{"net.ipv4.ip_forward": "1"} }
	s.flows.reader.open = func() (conntrackReader, error) { return c, nil }
	s.nft = newNFTablesBackend(func() (nftablesReader, error) { return nft, nil }, nil)
	s.sources[0].backend = s.nft
	return s
}

// TestReadNodeKeepsEndpoints: the agent forgets the rules of endpoints' chains, whose
// names say what they do.
func TestReadNodeKeepsEndpoints(t *testing.T) {
	s := nodeSampler(&fakeNFTables{states: []nftState{{connections: 5, generation: 7}}}, &fakeConntrack{}, nil)
	n, err := readNode(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	sep := n.Rules[0].Set.Table("nat").Chain(kubeproxy.EndpointChain(webPort, ipv4().endpoints[0]))
	if sep == nil || sep.Unread || len(sep.Rules) != 1 || sep.Rules[0].Action.Details().To != ipv4().endpoints[0] {
		t.Errorf("the endpoint's chain is %+v", sep)
	}
	if n.Unread[ruleset.Legacy] != errNoHost.Error() || len(n.Unread) != 1 {
		t.Errorf("unread %v, want legacy", n.Unread)
	}
	if n.Rules[0].NFTablesMode || n.Rules[0].Set.Generation != 7 || n.Flows == nil || len(n.Flows) != 0 {
		t.Errorf("rules %+v, flows %v", n.Rules[0], n.Flows)
	}
}

// TestReadNodeWithoutRules: a node of which nothing could be read is none.
func TestReadNodeWithoutRules(t *testing.T) {
	denied := &kernel.CapabilityError{Op: "list tables (IPv4)", Cap: "CAP_NET_ADMIN"}
	s := nodeSampler(&fakeNFTables{states: []nftState{{err: denied}}}, &fakeConntrack{}, nil)
	_, err := readNode(t.Context(), s)
	if c, ok := errors.AsType[*kernel.CapabilityError](err); !ok || c.Cap != "CAP_NET_ADMIN" || !errors.Is(err, errNoHost) {
		t.Errorf("got %v, want what both backends lack", err)
	}
}

// TestReadNodeFlows sums entries, and tells where they cannot be read.
func TestReadNodeFlows(t *testing.T) {
	flow := func(dst, src string, protocol uint8, state conntrack.State, status conntrack.Status) conntrack.Flow {
		return conntrack.Flow{
			Family: netfilter.IPv4, Protocol: protocol, State: state, HasState: protocol == 6, Status: status | conntrack.DstNAT,
			Orig:  conntrack.Tuple{Dst: netip.MustParseAddrPort(dst)},
			Reply: conntrack.Tuple{Src: netip.MustParseAddrPort(src)},
		}
	}
	c := &fakeConntrack{flows: []conntrack.Flow{
		flow("10.96.0.10:80", "10.77.0.3:8080", 6, conntrack.TCPEstablished, conntrack.SeenReply),
		flow("10.96.0.10:80", "10.77.0.2:8080", 6, conntrack.TCPTimeWait, conntrack.SeenReply),
		flow("10.96.0.10:80", "10.77.0.2:8080", 6, conntrack.TCPSynSent, 0),
		flow("10.96.0.10:80", "10.77.0.2:8080", 17, 0, 0),
		flow("10.77.0.1:30080", "10.77.0.2:8080", 6, conntrack.TCPEstablished, conntrack.SeenReply),
	}}
	nft := &fakeNFTables{states: []nftState{{generation: 7}}}
	n, err := readNode(t.Context(), nodeSampler(nft, c, nil))
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort
	want := []capture.FlowTally{
		{Protocol: 6, To: at("10.77.0.1:30080"), From: at("10.77.0.2:8080"), Entries: 1},
		{Protocol: 6, To: at("10.96.0.10:80"), From: at("10.77.0.2:8080"), Entries: 2, Unreplied: 1, Closing: 1},
		{Protocol: 6, To: at("10.96.0.10:80"), From: at("10.77.0.3:8080"), Entries: 1},
		{Protocol: 17, To: at("10.96.0.10:80"), From: at("10.77.0.2:8080"), Entries: 1, Unreplied: 1},
	}
	if d := cmp.Diff(want, n.Flows, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
		t.Errorf("flows (-want +got):\n%s", d)
	}
	c.flowsErr = kernel.ErrInterrupted
	nft.states = []nftState{{generation: 7}}
	if n, err = readNode(t.Context(), nodeSampler(nft, c, nil)); err != nil || n.Flows != nil || n.FlowsError != kernel.ErrInterrupted.Error() {
		t.Errorf("flows %v, %q, %v, want none and why", n.Flows, n.FlowsError, err)
	}
}

// TestReadNodeAPI has an API that answers, one that does not, and one that has no Node.
func TestReadNodeAPI(t *testing.T) {
	f := ipv4()
	for _, tt := range []struct {
		name    string
		catalog bool
		state   apiState
		want    string
	}{
		{"answers", true, apiState{Current: true}, ""},
		{"has no Node", true, apiState{NodeMissing: true, Err: "nodes is forbidden"}, "nodes is forbidden"},
		{"is away", false, apiState{Err: "connection refused"}, "connection refused"},
	} {
		w := newFakeWatcher()
		if w.state = tt.state; tt.catalog {
			w.catalog = f.catalog()
		}
		s := nodeSampler(&fakeNFTables{states: []nftState{{generation: 7}}}, &fakeConntrack{}, w)
		if err := s.kube.check(); err != nil {
			t.Fatal(err)
		}
		n := &capture.Node{}
		s.nodeAPI(n)
		if (n.Catalog != nil) != tt.catalog || n.KubeError != tt.want || n.NodeMissing != tt.state.NodeMissing {
			t.Errorf("%s: %v, %q, %v", tt.name, n.Catalog, n.KubeError, n.NodeMissing)
		}
	}
}
