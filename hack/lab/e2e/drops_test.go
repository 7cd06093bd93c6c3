// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/svcscope/svcscope/hack/lab/labtest"
)

// TestDrops: each refused packet is told once, with its reason, hook, owner and Service,
// and each witness's own count beside that; a group of NFLOG ends with the agent, and one that
// somebody else reads stays theirs.
func TestDrops(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]labtest.Options{
		"nft": {Backend: "nft"}, "legacy": {Backend: "legacy"}, "nftables": {ProxyMode: "nftables"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newDropScene(t, o)
			s.start(witnesses())
			s.send()
			s.settled("every refused packet is told once")
			s.checkLogs()
			s.checkEvents()
			result(t, "%d packets refused in %d ways and %d sendings, every one told once; %d of them logged, and witnessed",
				s.total(func(*refusal) bool { return true }), len(s.ways()), len(s.sent), s.allLogged())
			s.checkKilled()
			s.checkHeld()
		})
	}
}

// ways are the label sets that packets are told by.
func (s *dropScene) ways() map[dropped]bool {
	all := map[dropped]bool{}
	for _, r := range s.sent {
		all[r.counted] = true
	}
	return all
}

func (s *dropScene) allLogged() int {
	n := 0
	for _, logged := range s.logged {
		n += logged
	}
	return n
}

// checkLogs sees that the test shows something: what is logged without a limit is all that
// is refused there, and what has a limit is a part of it.
func (s *dropScene) checkLogs() {
	s.t.Helper()
	own := s.total(func(r *refusal) bool { return strings.HasSuffix(r.to, ":"+strconv.Itoa(ownLoggedPort)) })
	if got := s.logged[witnessed{"nflog", "rule", ""}]; got != own || got == 0 {
		s.t.Errorf("%d of %d packets are logged by a rule that logs all", got, own)
	}
	theirs := s.total(func(r *refusal) bool { return r.counted.owner == "kube-router" })
	if got := s.logged[witnessed{"nflog", "policy_default", ""}]; got == 0 || got > theirs {
		s.t.Errorf("%d of %d packets are logged by a rule with a limit", got, theirs)
	}
	m := s.agent.metrics()
	group := map[string]string{"group": "100"}
	if got, _ := m.sum("svcscope_nflog_packets_total", group); int(got) != s.allLogged() {
		s.t.Errorf("svcscope_nflog_packets_total is %v, want %d", got, s.allLogged())
	}
	if lost, n := m.sum("svcscope_nflog_lost_packets_total", group); lost != 0 || n != 1 {
		s.t.Errorf("svcscope_nflog_lost_packets_total is %v in %d series, want 0 in 1", lost, n)
	}
}

// dropEvent is one of /api/v1/drops.
type dropEvent struct {
	Source, Hook, Reason, Owner, Prefix, From, To string
	Refused                                       bool
	Pod, Service                                  *struct{ Namespace, Name string }
}

// checkEvents: there is an event of each logged packet, which tells both ends, the rule and
// the pod that the rule is for.
func (s *dropScene) checkEvents() {
	s.t.Helper()
	page, err := s.agent.get("10988", "/api/v1/drops")
	if err != nil {
		s.t.Fatal(err)
	}
	var report struct{ Events []dropEvent }
	if err := json.Unmarshal([]byte(page), &report); err != nil {
		s.t.Fatal(err)
	}
	clients := append(s.lab.Info.Client.IPv4, s.lab.Info.Client.IPv6...)
	got := map[witnessed]int{}
	tapped := 0
	for _, e := range report.Events {
		if e.Source == "tap" {
			tapped++
			s.checkTapped(&e)
			continue
		}
		got[witnessed{e.Source, e.Reason, ""}]++
		known := false
		for _, c := range clients {
			known = known || strings.HasPrefix(strings.Trim(e.From, "["), c)
		}
		switch {
		case !e.Refused || !known:
			s.t.Errorf("got %+v, want a refused packet of the client", e)
		case e.Reason == "policy_default" && (e.Pod == nil || e.Pod.Name != "pod2" || e.Owner != "kube-router" || e.Hook != "forward"):
			s.t.Errorf("got %+v, want one of kube-router's of pod2", e)
		case e.Reason == "rule" && (e.Prefix != "svcscope:deny:nobody" || e.Owner != "other" || e.Hook != "input" || !strings.HasSuffix(e.To, fmt.Sprint(":", ownLoggedPort))):
			s.t.Errorf("got %+v, want one of somebody's", e)
		}
	}
	if err := same("events of", s.logged, got); err != nil {
		s.t.Error(err)
	}
	if tapped == 0 {
		s.t.Error("the tap logged nothing")
	}
}

// checkTapped: what the tap logs tells the Service and why its packets are refused.
func (s *dropScene) checkTapped(e *dropEvent) {
	s.t.Helper()
	for _, r := range s.sent {
		if e.Refused && e.Service != nil && r.counted.service == e.Service.Name && r.counted.reason == e.Reason && r.to == e.To && r.counted.owner == e.Owner &&
			slices.Contains(strings.Split(r.counted.hook, "+"), e.Hook) {
			return
		}
	}
	s.t.Errorf("the tap tells of %+v, which nobody sent", *e)
}

// boundGroups are the groups of NFLOG that are bound on node1, with their holders, as
// the kernel tells them.
func (s *dropScene) boundGroups() string {
	s.t.Helper()
	return strings.TrimSpace(s.lab.Exec("node1", "cat", "/proc/net/netfilter/nfnetlink_log"))
}

// checkKilled: nothing is left of an agent that is killed.
func (s *dropScene) checkKilled() {
	s.t.Helper()
	groups := strings.Split(s.boundGroups(), "\n")
	if len(groups) != 2 || !strings.HasPrefix(strings.TrimSpace(groups[0]), "100 ") || !strings.HasPrefix(strings.TrimSpace(groups[1]), "10988 ") {
		s.t.Errorf("bound are %q, want group 100 and the tap's", groups)
	}
	if tables := s.lab.Exec("node1", "nft", "list", "tables"); !strings.Contains(tables, "inet svcscope") {
		s.t.Errorf("the tap's table is not among these:\n%s", tables)
	}
	sendSignal(s.lab, "svcscope", "KILL")
	<-s.agent.Done()
	if groups := s.boundGroups(); groups != "" {
		s.t.Errorf("after SIGKILL of the agent these are bound: %q", groups)
	}
	if tables := s.lab.Exec("node1", "nft", "list", "tables"); strings.Contains(tables, "svcscope") {
		s.t.Errorf("after SIGKILL of the agent its table is there:\n%s", tables)
	}
}

// checkHeld: a group that somebody holds is left alone, and the agent says so; all that
// is logged comes to the holder, and all that is refused is counted as ever.
func (s *dropScene) checkHeld() {
	s.t.Helper()
	holder := s.lab.StartProcess("node1", insideArgv(s.t, holdArg, "100")...)
	holder.WaitOutput(s.t, "holding")
	before := s.boundGroups()
	var others []witness
	if s.native { // where nothing else counts what kube-proxy refuses
		others = witnesses()[1:]
	}
	s.start(others, "--nflog.group=100")
	eventually(s.t, "the agent has tried to read the group", func() error {
		m := s.agent.metrics()
		bound, n := m.sum("svcscope_nflog_group_bound", map[string]string{"group": "100"})
		success, _ := m.sum("svcscope_collector_success", map[string]string{"collector": "nflog"})
		if bound != 0 || n != 1 || success != 0 {
			return fmt.Errorf("svcscope_nflog_group_bound is %v in %d series, the collector's success %v", bound, n, success)
		}
		return nil
	})
	s.send()
	s.settled("refused packets are counted while somebody else reads the group")
	if groups := s.boundGroups(); firstTwo(groups) != firstTwo(before) {
		s.t.Errorf("bound are %q, were %q", groups, before)
	}
	const says = "NFLOG group 100 is held by netlink port "
	for what, text := range map[string]string{
		"log":            s.agent.Output(),
		"svcscope drops": s.lab.Run("exec", "--caps=net_admin", "node1", "--", svcscope, "drops"),
	} {
		if !strings.Contains(text, says) {
			s.t.Errorf("%s does not say %q:\n%s", what, says, text)
		}
	}
	if err := holder.Stop(); err != nil {
		s.t.Errorf("the group's holder: %v: %s", err, holder.Output())
	}
	if want := fmt.Sprintf("%d packets", s.allLogged()); !strings.Contains(holder.Output(), want) {
		s.t.Errorf("the group's holder says %q, want %s", holder.Output(), want)
	}
	if err := s.agent.Stop(); err != nil {
		s.t.Errorf("the agent after SIGTERM: %v\n%s", err, s.agent.Output())
	}
}

// firstTwo are a line's group and holder; the other columns move.
func firstTwo(line string) string {
	f := strings.Fields(line)
	return strings.Join(f[:min(2, len(f))], " ")
}
