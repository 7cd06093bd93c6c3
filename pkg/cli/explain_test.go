// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/svcscope/svcscope/pkg/agent"
	"github.com/svcscope/svcscope/pkg/capture"
	"github.com/svcscope/svcscope/pkg/explain"
	"github.com/svcscope/svcscope/pkg/internal/iptsave"
	"github.com/svcscope/svcscope/pkg/internal/realcluster"
	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// capturedNode is a node with what the real kube-proxy wrote.
func capturedNode(t testing.TB) *capture.Node {
	t.Helper()
	catalog, err := realcluster.Catalog()
	if err != nil {
		t.Fatal(err)
	}
	n := &capture.Node{
		Name: "node1", Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Kernel: "6.18.44", Catalog: catalog,
		Flows: []capture.FlowTally{{
			Protocol: 6, To: netip.MustParseAddrPort("10.96.1.12:80"), From: netip.MustParseAddrPort("10.244.1.11:8080"), Entries: 3,
		}},
	}
	for _, r := range realcluster.All() {
		if r.Backend != ruleset.NFT {
			continue
		}
		rs, err := r.Set()
		if err != nil {
			t.Fatal(err)
		}
		n.Rules = append(n.Rules, capture.Rules{Set: rs})
	}
	return n
}

// capturedAnswer is what reading that node gives.
func capturedAnswer(n *capture.Node, kind string, c agent.Config) (*capture.Node, error) {
	out := *n
	out.Name = c.NodeName
	if c.Kube == agent.KubeNever {
		out.Catalog = nil
	}
	switch kind {
	case "-denied":
		return nil, &kernel.CapabilityError{Op: "list chains of table nat (IPv4)", Cap: "CAP_NET_ADMIN", Err: syscall.EPERM}
	case "-half":
		out.Unread = map[ruleset.Backend]string{ruleset.Legacy: "read table nat: ipt_entry at offset 336: need 112 bytes, have 40"}
	case "-edited": // in both families nothing leads to the endpoint whose address ends with 11
		out.Rules = nil
		for _, r := range realcluster.All() {
			if r.Backend != ruleset.NFT {
				continue
			}
			text, err := r.Text()
			if err != nil {
				return nil, err
			}
			for _, endpoint := range []string{`.11:8080"`, `:11]:8080"`} {
				text = withoutLine(text, "-A KUBE-SVC-IFSGUVPJVX5CWNQP", endpoint)
			}
			set, err := iptsave.Parse(r.Family, r.Backend, text)
			if err != nil {
				return nil, err
			}
			out.Rules = append(out.Rules, capture.Rules{Set: set})
		}
	case "-nftables":
		out.Rules = []capture.Rules{{Set: &ruleset.Ruleset{Backend: ruleset.NFT, Family: n.Rules[0].Set.Family}, NFTablesMode: true}}
	}
	return &out, nil
}

// withoutLine deletes the lines that have all parts.
func withoutLine(text string, parts ...string) string {
	lacks := func(line string) bool {
		return slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) })
	}
	return strings.Join(slices.DeleteFunc(strings.SplitAfter(text, "\n"), func(l string) bool { return !lacks(l) }), "")
}

// TestExplainWatches: it reads the node again at each interval, says only once where
// from, and ends without an error when it is interrupted.
func TestExplainWatches(t *testing.T) {
	n := capturedNode(t)
	synctest.Test(t, func(t *testing.T) {
		var stdout, stderr bytes.Buffer
		ctx, cancel := context.WithCancel(t.Context())
		e := testEnv("svcscope")
		e.stdout, e.stderr, e.sleep = &stdout, &stderr, sleep
		start, reads := time.Now(), 0
		e.readNode = func(ctx context.Context, c agent.Config) (*capture.Node, error) {
			reads++
			if since := time.Since(start); since != time.Duration(reads-1)*5*time.Second {
				t.Errorf("reading %d after %v", reads, since)
			}
			if reads == 4 {
				cancel()
				return nil, ctx.Err()
			}
			return capturedAnswer(n, "", c)
		}
		o := explainOptions{
			query: explain.Query{Service: service.Name{Namespace: "default", Name: "nodeport"}}, watch: true, interval: 5 * time.Second,
			format: formatTable,
		}
		o.source.direct = agent.DefaultConfig()
		if err := runExplain(ctx, e, o); err != nil {
			t.Error(err)
		}
		if reads != 4 || strings.Count(stdout.String(), "Service: ") != 3 || strings.Count(stderr.String(), "source: ") != 1 {
			t.Errorf("%d readings, said\n%s%s", reads, &stdout, &stderr)
		}
		if strings.Contains(stdout.String(), "\x1b") {
			t.Error("the screen is cleared where there is none")
		}
	})
}

// TestExplainWatchEnds: with an error when the Service is gone.
func TestExplainWatchEnds(t *testing.T) {
	n := capturedNode(t)
	synctest.Test(t, func(t *testing.T) {
		e := testEnv("svcscope")
		e.stdout, e.stderr, e.sleep = &bytes.Buffer{}, &bytes.Buffer{}, sleep
		reads := 0
		gone := errors.New("gone")
		e.readNode = func(_ context.Context, c agent.Config) (*capture.Node, error) {
			if reads++; reads == 3 {
				return nil, gone
			}
			return capturedAnswer(n, "", c)
		}
		o := explainOptions{query: explain.Query{Service: service.Name{Namespace: "default", Name: "web"}}, watch: true, interval: time.Second, format: formatJSON}
		o.source.direct = agent.DefaultConfig()
		if err := runExplain(t.Context(), e, o); !errors.Is(err, gone) || reads != 3 {
			t.Errorf("%v after %d readings", err, reads)
		}
	})
}
