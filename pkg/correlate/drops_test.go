// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/internal/iptsave"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/policy"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// dropScene counts the refusals of filter tables that are given as text.
type dropScene struct {
	*testing.T
	drops *Drops
	now   time.Time
	pods  *service.Pods
}

func newDropScene(t *testing.T) *dropScene {
	return &dropScene{T: t, drops: NewDrops(func(service.Name) bool { return true }), now: time.Unix(1_700_000_000, 0)}
}

// read takes a reading of the rules.
func (s *dropScene) read(rules string) {
	s.Helper()
	rs, err := iptsave.Parse(netfilter.IPv4, ruleset.Legacy, "*filter\n"+rules+"COMMIT\n")
	if err != nil {
		s.Fatal(err)
	}
	var others policy.Refusals
	others.Update(rs, []ruleset.Delta{{Table: "filter", Changed: rs.Table("filter").Chains}})
	s.now = s.now.Add(time.Second)
	s.drops.Apply(NewCounters().Refused(rs, kubeproxy.NewView(rs), &others, NewNames(nil).WithPods(s.pods), false), s.now)
}

func (s *dropScene) totals() []string {
	var all []string
	for _, t := range s.drops.Totals(func(service.Name) bool { return true }) {
		all = append(all, fmt.Sprintf("%s %s %s %s %d", t.Reason, t.Hook, t.Owner, t.Service, t.Packets))
	}
	return all
}

func (s *dropScene) want(want ...string) {
	s.Helper()
	if d := cmp.Diff(want, s.totals()); d != "" {
		s.Errorf("(-want +got):\n%s", d)
	}
}

// dropRules are kube-proxy's, kube-router's with a version in its chain's name, and
// somebody's.
func dropRules(version string, refused, invalid, denied, own int) string {
	return fmt.Sprintf(`:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-POD-FW-AAAAAAAAAAAAAAA%[1]s - [0:0]
[1000:1000] -A FORWARD -j KUBE-FORWARD
[1000:1000] -A FORWARD -m comment --comment "kubernetes service portals" -m conntrack --ctstate NEW -j KUBE-SERVICES
[1000:1000] -A FORWARD -d 10.1.0.1/32 -j KUBE-POD-FW-AAAAAAAAAAAAAAA%[1]s
[1000:1000] -A OUTPUT -m comment --comment "kubernetes service portals" -m conntrack --ctstate NEW -j KUBE-SERVICES
[%[5]d:0] -A INPUT -p tcp -m tcp --dport 22 -j DROP
[%[2]d:0] -A KUBE-SERVICES -d 10.96.0.7/32 -p tcp -m comment --comment "shop/web:http has no endpoints" -m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable
[%[3]d:0] -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
[77:0] -A KUBE-FIREWALL -m comment --comment "kubernetes firewall for dropping marked packets" -m mark --mark 0x8000/0x8000 -j DROP
[%[4]d:0] -A KUBE-POD-FW-AAAAAAAAAAAAAAA%[1]s -m comment --comment "shop/web-0 reject" -m mark ! --mark 0x10000/0x10000 -j REJECT --reject-with icmp-port-unreachable
`, version, refused, invalid, denied, own)
}

// TestDrops counts from the first reading on, through rewrites, each packet once.
func TestDrops(t *testing.T) {
	s := newDropScene(t)
	s.read(dropRules("A", 5, 6, 7, 8))
	s.read(dropRules("A", 5, 6, 7, 8))
	s.want(
		"invalid forward kube-proxy / 0",
		"no_endpoints forward+output kube-proxy shop/web 0",
		"policy_default forward kube-router / 0",
		"rule input other / 0",
	)
	s.read(dropRules("A", 6, 8, 10, 12))
	s.want(
		"invalid forward kube-proxy / 2",
		"no_endpoints forward+output kube-proxy shop/web 1",
		"policy_default forward kube-router / 3",
		"rule input other / 4",
	)

	// kube-router writes its chains under other names and the table without counters.
	s.read(dropRules("B", 1, 0, 2, 3))
	s.read(dropRules("B", 1, 0, 2, 3)) // a value that fell is believed when it stands
	s.want(
		"invalid forward kube-proxy / 2",
		"no_endpoints forward+output kube-proxy shop/web 2",
		"policy_default forward kube-router / 5",
		"rule input other / 7",
	)
	want := []PolicyDropTotal{{
		Owner: policy.KubeRouter, Pod: policy.Object{Namespace: "shop", Name: "web-0"}, Packets: 5,
	}}
	got := s.drops.Policies()
	for i := range got {
		got[i].Created = time.Time{}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestDropsOfRulesThatAreReachedOtherwise: what a rule has refused by then was refused
// where it was reached before.
func TestDropsOfRulesThatAreReachedOtherwise(t *testing.T) {
	rules := func(jump string, n int) string {
		return fmt.Sprintf(":INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:mine - [0:0]\n[0:0] -A INPUT -j mine\n%s[%d:0] -A mine -j DROP\n", jump, n)
	}
	s := newDropScene(t)
	for _, n := range []int{2, 2, 5} {
		s.read(rules("", n))
	}
	const more = "[0:0] -A FORWARD -j mine\n"
	s.read(rules(more, 9))
	s.want("rule input other / 7", "rule input+forward other / 0")
	s.read(rules(more, 12))
	s.read(rules(more, 20))
	s.want("rule input other / 7", "rule input+forward other / 11")
	s.read(rules("", 22))
	s.want("rule input other / 9", "rule input+forward other / 11")
}

// TestDropsAreBounded: of pods above the cap the packets count, without the name.
func TestDropsAreBounded(t *testing.T) {
	d := NewDrops(func(service.Name) bool { return true })
	key := DropKey{DropLabels: DropLabels{Reason: "policy_default", Hook: "forward", Owner: policy.KubeRouter}}
	for n := range maxNamed + 7 {
		key.Pod = policy.Object{Namespace: "shop", Name: fmt.Sprint(n)}
		d.of(key)
		d.of(key)
	}
	if len(d.keys) != maxNamed+1 || d.named != maxNamed {
		t.Errorf("%d keys, %d with a pod", len(d.keys), d.named)
	}
	d.forget(nil)
	if len(d.keys)+len(d.ports)+d.named != 0 {
		t.Errorf("%d keys are kept, %d with a pod", len(d.keys), d.named)
	}
}

// TestUnnamedDrops: what has no names as there is no room for them is told, and is named as soon
// as there is room.
func TestUnnamedDrops(t *testing.T) {
	s := newDropScene(t)
	s.drops.named = maxNamed
	check := func(policies string, unnamed uint64) {
		t.Helper()
		var got []string
		for _, p := range s.drops.Policies() {
			got = append(got, fmt.Sprintf("%s %s/%s %d", p.Owner, p.Pod.Namespace, p.Pod.Name, p.Packets))
		}
		if all := strings.Join(got, ", "); all != policies || s.drops.Unnamed() != unnamed {
			t.Errorf("%q and %d without names, want %q and %d", all, s.drops.Unnamed(), policies, unnamed)
		}
	}
	s.read(dropRules("A", 0, 0, 8, 0))
	s.read(dropRules("A", 0, 0, 8, 0))
	s.read(dropRules("A", 0, 0, 12, 3))
	check("", 4)
	s.drops.named = 0
	s.read(dropRules("A", 0, 0, 15, 3))
	check("kube-router shop/web-0 0", 7)
	s.read(dropRules("A", 0, 0, 20, 3))
	check("kube-router shop/web-0 5", 7)
	s.want(
		"invalid forward kube-proxy / 0",
		"no_endpoints forward+output kube-proxy shop/web 0",
		"policy_default forward kube-router / 12",
		"rule input other / 3",
	)
}

// TestDropsOfServicesAboveTheCap count together until the Service has totals.
func TestDropsOfServicesAboveTheCap(t *testing.T) {
	s := newDropScene(t)
	own := false
	s.drops = NewDrops(func(service.Name) bool { return own })
	for _, n := range []int{0, 0, 3} {
		s.read(dropRules("A", n, 0, 0, 0))
	}
	own = true
	s.read(dropRules("A", 5, 0, 0, 0))
	s.want(
		"invalid forward kube-proxy / 0",
		"no_endpoints forward+output kube-proxy /_other 3",
		"no_endpoints forward+output kube-proxy shop/web 2",
		"policy_default forward kube-router / 0",
		"rule input other / 0",
	)
}

// TestDropsForget what is gone, and keep what it counted; and a Service's when it is
// gone.
func TestDropsForget(t *testing.T) {
	s := newDropScene(t)
	for _, n := range []int{0, 0, 3} {
		s.read(dropRules("A", n, n, n, n))
	}
	const none = ":INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n"
	for range 15 {
		s.now = s.now.Add(time.Minute)
		s.read(none)
	}
	if n := len(s.drops.keys) + len(s.drops.ports) + len(s.drops.Policies()); n != 0 {
		t.Errorf("%d keys are kept", n)
	}
	s.want(
		"invalid forward kube-proxy / 3",
		"no_endpoints forward+output kube-proxy shop/web 3",
		"policy_default forward kube-router / 3",
		"rule input other / 3",
	)
	s.drops.Totals(func(service.Name) bool { return false })
	if n := len(s.totals()); n != 3 {
		t.Errorf("%d totals, want those of no Service", n)
	}

	// They come back, and count on.
	for _, n := range []int{1, 1} {
		s.read(dropRules("A", n, n, n, n))
	}
	s.want(
		"invalid forward kube-proxy / 4",
		"no_endpoints forward+output kube-proxy shop/web 1",
		"policy_default forward kube-router / 4",
		"rule input other / 4",
	)
}
