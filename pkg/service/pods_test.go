// SPDX-License-Identifier: Apache-2.0

package service

import (
	"net/netip"
	"testing"
)

func pod(name string, change func(*Pod), addrs ...string) *Pod {
	p := &Pod{Name: Name{"shop", name}, UID: "uid-" + name}
	for _, a := range addrs {
		p.IPs = append(p.IPs, netip.MustParseAddr(a))
	}
	if change != nil {
		change(p)
	}
	return p
}

func host(p *Pod)    { p.HostNetwork = true }
func leaving(p *Pod) { p.Leaving = true }

// TestPodsByAddr looks for pods in any order in which they may have come.
func TestPodsByAddr(t *testing.T) {
	for _, tt := range []struct {
		name, addr, want string
		pods             []*Pod
	}{
		{"its own", "10.1.0.1", "web-0", []*Pod{pod("web-0", nil, "10.1.0.1", "fd00::1"), pod("web-1", nil, "10.1.0.2")}},
		{"of the other family", "fd00::1", "web-0", []*Pod{pod("web-0", nil, "10.1.0.1", "fd00::1"), pod("web-1", nil, "10.1.0.2")}},
		{"IPv4 in IPv6", "::ffff:10.1.0.1", "web-0", []*Pod{pod("web-0", nil, "10.1.0.1")}},
		{"nobody's", "10.1.0.3", "", []*Pod{pod("web-0", nil, "10.1.0.1")}},
		{"the node's", "192.0.2.1", "", []*Pod{pod("proxy", host, "192.0.2.1")}},
		{"of one that ends", "10.1.0.1", "web-0", []*Pod{pod("web-0", leaving, "10.1.0.1")}},
		{"taken over", "10.1.0.1", "web-1", []*Pod{pod("web-0", leaving, "10.1.0.1"), pod("web-1", nil, "10.1.0.1")}},
		{"of two", "10.1.0.1", "", []*Pod{pod("web-0", nil, "10.1.0.1"), pod("web-1", nil, "10.1.0.1")}},
		{"of two, and one that ends", "10.1.0.1", "", []*Pod{pod("web-0", nil, "10.1.0.1"), pod("web-1", nil, "10.1.0.1"), pod("web-2", leaving, "10.1.0.1")}},
		{"of two that end, and one", "10.1.0.1", "web-2", []*Pod{pod("web-0", leaving, "10.1.0.1"), pod("web-1", leaving, "10.1.0.1"), pod("web-2", nil, "10.1.0.1")}},
		{"of two that end", "10.1.0.1", "", []*Pod{pod("web-0", leaving, "10.1.0.1"), pod("web-1", leaving, "10.1.0.1")}},
		{"twice its own", "10.1.0.1", "web-0", []*Pod{pod("web-0", nil, "10.1.0.1", "10.1.0.1")}},
	} {
		for range len(tt.pods) {
			got := ""
			if p := NewPods(tt.pods).ByAddr(netip.MustParseAddr(tt.addr)); p != nil {
				got = p.Name.Name
			}
			if got != tt.want {
				t.Errorf("%s: %s is of %q, want %q", tt.name, tt.addr, got, tt.want)
			}
			tt.pods = append(tt.pods[1:], tt.pods[0])
		}
	}
}

// TestPodsByInterface has a name that sha1sum made: printf %s shop.web-0 | sha1sum | cut -b -11.
func TestPodsByInterface(t *testing.T) {
	p := NewPods([]*Pod{pod("web-0", nil), pod("proxy", host)})
	if got := p.ByInterface("calia4fc3c48bd8"); got == nil || got.Name != (Name{"shop", "web-0"}) {
		t.Errorf("got %+v, want shop/web-0", got)
	}
	if got := p.ByInterface(calicoInterface(Name{"shop", "proxy"})); got != nil {
		t.Errorf("a pod in the node's network has an interface: %+v", got)
	}
	if got := p.ByName(Name{"shop", "proxy"}); got == nil || got.UID != "uid-proxy" {
		t.Errorf("by its name: %+v", got)
	}
}

// TestNoPods: what is not watched is not known.
func TestNoPods(t *testing.T) {
	var p *Pods
	if p.ByAddr(netip.MustParseAddr("10.1.0.1")) != nil || p.ByInterface("cali1") != nil || p.ByName(Name{}) != nil {
		t.Error("there are pods")
	}
	var policies *Policies
	for namespace, name := range policies.All() {
		t.Errorf("there is %s/%s", namespace, name)
	}
	for namespace, name := range NewPolicies([]Name{{"a", "b"}}).All() {
		if namespace != "a" || name != "b" {
			t.Errorf("got %s/%s", namespace, name)
		}
		return
	}
	t.Error("there is no policy")
}
