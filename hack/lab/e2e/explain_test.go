// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/svcscope/svcscope/hack/lab/labtest"
)

// explained is a node whose kube-proxy serves a Service of two endpoints by cluster address
// and node port, with an agent that has seen it, and no traffic any more.
type explained struct {
	t       *testing.T
	lab     *labtest.Lab
	agent   *agent
	backend string
	web     labtest.Service
	// cluster and external are how many connections were opened, in each family.
	cluster, external int
}

// TestExplain: what explain tells of the real kube-proxy's rules is what iptables-save -c
// prints, what a snapshot replays is what the node said, and of two snapshots, one before and one
// after a rule was deleted, diff tells what differs, and explain since when.
func TestExplain(t *testing.T) {
	t.Parallel()
	for _, backend := range []string{"nft", "legacy"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			s := newExplained(t, backend)
			s.numbers()
			before := s.replays(commands())
			s.saved(before)
			s.same(before, before)
			gone := s.deleteEndpoints()
			s.differs(before, s.replays(ofDrift()), gone)
		})
	}
}

func newExplained(t *testing.T, backend string) *explained {
	t.Helper()
	s := &explained{t: t, lab: labtest.Start(t, labtest.Options{Backend: backend}), backend: backend, cluster: 12, external: 8}
	// The agent is there before the Service, so that it has something to tell of its history.
	s.agent = startAgent(t, s.lab, "--kubeconfig="+s.lab.Info.Kubeconfig, "--interval=2s", "--drift.grace=2s")
	s.web = s.lab.Expose("web", "--port=80", "--type=NodePort", "--node-port=30080", "--pods=pod1,pod2")
	for _, f := range families {
		vip := s.web.VIP4()
		if f.v6 {
			vip = s.web.VIP6()
		}
		for to, n := range map[string]int{vip: s.cluster, s.lab.NodePort(30080, f.v6): s.external} {
			if r := s.lab.Load("client", to, n); r.Succeeded != n {
				t.Fatalf("%s: %d of %d connections to %s succeeded: %v", f.name, r.Succeeded, n, to, r.Errors)
			}
		}
	}
	s.awaitDrift("the agent finds that all is as it should be", (*driftReport).settled)
	return s
}

// awaitDrift waits for what the agent says of drift.
func (s *explained) awaitDrift(what string, cond func(*driftReport) error) {
	s.t.Helper()
	eventually(s.t, what, func() error {
		page, err := s.agent.get("10988", "/api/v1/drift")
		if err != nil {
			return err
		}
		var r driftReport
		if err := json.Unmarshal([]byte(page), &r); err != nil {
			return err
		}
		return cond(&r)
	})
}

// live runs a command on the node, as in the agent's pod. Those that read the kernel ask the
// API.
func (s *explained) live(args ...string) string {
	s.t.Helper()
	if args[0] == "explain" || args[0] == "snapshot" {
		args = append(slices.Clone(args), "--kubeconfig="+s.lab.Info.Kubeconfig, "--node-name=node1")
	}
	return s.output(s.lab.Command(append([]string{"exec", "--caps=net_admin", "node1", "--", svcscope}, args...)...), 0)
}

// away runs a command on this machine, which reads files.
func (s *explained) away(status int, args ...string) string {
	s.t.Helper()
	return s.output(exec.CommandContext(s.t.Context(), svcscope, args...), status)
}

// output is what a command prints, which ends with 0, or 1 where drift tells of some or files
// differ.
func (s *explained) output(cmd *exec.Cmd, status int) string {
	s.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err, code := cmd.Run(), 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		s.t.Fatalf("%q: %v", cmd.Args, err)
	}
	if code != status && !slices.Contains(cmd.Args, "drift") {
		s.t.Fatalf("%q: exit status %d, want %d: %s%s", cmd.Args, code, status, &stdout, &stderr)
	}
	return stdout.String()
}

// explainedPath is a path of the document, as far as these tests look.
type explainedPath struct {
	IPFamily    string
	Backend     string
	Differences []struct {
		Kind, Detail string
		Drift        *bool
		Since        *time.Time
	}
	Chains []struct {
		Name, Kind  string
		Connections int
		Shares      []struct {
			Endpoint     string
			Packets      int
			Real, Wanted float64
		}
		Rules []explainedRule
	}
	Endpoints []struct {
		Address  string
		Local    bool
		Commands []string
		Tracked  struct{ Entries int }
	}
	Entries []struct {
		Frontend string
		Tracked  int
	}
}

// explainedRule is one rule of a chain.
type explainedRule struct {
	Number         int
	Role, Endpoint string
}

// document is what explain -o json tells of web.
func (s *explained) document(args ...string) (text string, paths []explainedPath) {
	s.t.Helper()
	text = s.live(append([]string{"explain", "web", "-o", "json"}, args...)...)
	var d struct{ Paths []explainedPath }
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		s.t.Fatal(err)
	}
	if len(d.Paths) != len(families) {
		s.t.Fatalf("explain tells of %d paths:\n%s", len(d.Paths), text)
	}
	return text, d.Paths
}

// save is iptables-save -c of a family: the rules of each table and chain, by their
// numbers.
func (s *explained) save(family string) map[string]string {
	s.t.Helper()
	tool := "iptables-save"
	if family == "IPv6" {
		tool = "ip6tables-save"
	}
	rules, table, numbers := map[string]string{}, "", map[string]int{}
	for line := range strings.Lines(s.lab.Exec("node1", tool, "-c")) {
		line = strings.TrimSuffix(line, "\n")
		if name, ok := strings.CutPrefix(line, "*"); ok {
			table, numbers = name, map[string]int{}
		}
		if m := savedRule.FindStringSubmatch(line); m != nil {
			numbers[m[3]]++
			rules[fmt.Sprintf("%s %s %d", table, m[3], numbers[m[3]])] = line
		}
	}
	return rules
}

var savedRule = regexp.MustCompile(`^\[(\d+):(\d+)\] -A (\S+)(?: (.*))?$`)

// numbers sees that each rule that is told has the words and the counter of
// iptables-save -c, that connections are those that were opened, and where endpoints are.
func (s *explained) numbers() {
	t := s.t
	t.Helper()
	read := func() map[string]map[string]string {
		return map[string]map[string]string{"IPv4": s.save("IPv4"), "IPv6": s.save("IPv6")}
	}
	before := read()
	text, paths := s.document("--agent=none")
	after := read()
	told := 0
	for i, rules := range toldRules(t, text) {
		f := paths[i].IPFamily
		for _, r := range rules {
			told++
			at := fmt.Sprintf("%s %s %d", r.Table, r.Chain, r.Number)
			first, last := before[f][at], after[f][at]
			// A look opens a connection of its own, to the API: the jump of OUTPUT counts it.
			own := r.Chain == "OUTPUT"
			switch m, n := savedRule.FindStringSubmatch(first), savedRule.FindStringSubmatch(last); {
			case m == nil || n == nil:
				t.Errorf("%s: iptables-save has no rule %s: %+v", f, at, r)
			case m[4] != r.Text || n[4] != r.Text:
				t.Errorf("%s: %s is told as %s, iptables-save has %s", f, at, r.Text, m[4])
			case !own && (first != last || m[1] != strconv.FormatUint(r.Packets, 10)):
				t.Errorf("%s: %s has counted %d, iptables-save has %s before and %s after", f, at, r.Packets, m[1], n[1])
			case own && (counted(t, m[1]) > r.Packets || r.Packets > counted(t, n[1])):
				t.Errorf("%s: %s has counted %d, iptables-save has %s before and %s after", f, at, r.Packets, m[1], n[1])
			}
		}
	}
	if told < 2*15 {
		t.Errorf("only %d rules are told:\n%s", told, text)
	}
	for i := range paths {
		s.shares(&paths[i])
	}
	result(t, "%d rules of a Service are told as iptables-save -c prints them, with its counters", told)
}

func counted(t *testing.T, text string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// toldRule is a rule of the document.
type toldRule struct {
	Table, Chain, Text string
	Number             int
	Packets            uint64
}

// toldRules finds the rules anywhere in the document's paths.
func toldRules(t *testing.T, text string) (all [][]toldRule) {
	t.Helper()
	var d struct{ Paths []json.RawMessage }
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	var find func(json.RawMessage, *[]toldRule)
	find = func(b json.RawMessage, out *[]toldRule) {
		var list []json.RawMessage
		var object map[string]json.RawMessage
		switch {
		case json.Unmarshal(b, &list) == nil:
			for _, one := range list {
				find(one, out)
			}
		case json.Unmarshal(b, &object) == nil && object["table"] != nil:
			var r toldRule
			if err := json.Unmarshal(b, &r); err != nil {
				t.Fatal(err)
			}
			*out = append(*out, r)
		default:
			for _, one := range object {
				find(one, out)
			}
		}
	}
	for _, p := range d.Paths {
		var rules []toldRule
		find(p, &rules)
		all = append(all, rules)
	}
	return all
}

// shares sees that the connections are those that were opened, and that the endpoints are
// here.
func (s *explained) shares(p *explainedPath) {
	t := s.t
	t.Helper()
	if p.Backend != s.backend || p.Differences == nil || len(p.Differences) > 0 {
		t.Errorf("%s: backend %s, differences %+v", p.IPFamily, p.Backend, p.Differences)
	}
	found := 0
	for _, c := range p.Chains {
		if c.Kind != "cluster" {
			continue
		}
		found++
		sum := 0.0
		for _, share := range c.Shares {
			sum += share.Real
			if share.Wanted != 0.5 {
				t.Errorf("%s: %+v, wanted is a half", p.IPFamily, share)
			}
		}
		if c.Connections != s.cluster+s.external || len(c.Shares) != 2 || sum < 0.999 || sum > 1.001 {
			t.Errorf("%s: %d connections by %+v, %d were opened", p.IPFamily, c.Connections, c.Shares, s.cluster+s.external)
		}
	}
	tracked := 0
	for _, e := range p.Entries {
		tracked += e.Tracked
	}
	if found != 1 || tracked != s.cluster+s.external || len(p.Endpoints) != 2 {
		t.Errorf("%s: %d chains, %d entries tracked, %d endpoints: %+v", p.IPFamily, found, tracked, len(p.Endpoints), p)
	}
	for _, e := range p.Endpoints {
		for _, c := range e.Commands {
			if out := s.lab.Exec("node1", strings.Fields(c)...); strings.Contains(out, " via ") == e.Local || out == "" {
				t.Errorf("%s is here: %t, and %s prints %q", e.Address, e.Local, c, out)
			}
		}
	}
}
